"""A support bundle helps a maintainer, and holds neither keys nor passwords nor, unless asked for, anybody's names."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.board.support_bundle import SECTIONS
from support.bench import Bench, make_bench
from support.journal import Journal, cannot_journal

BROKER, USER, BOARD, TOPIC = "canaryhost.invalid", "canaryuser", "canary-board-7", "canarytopic/hall 3/shaken"
NAMES = ("canaryhost", "canaryuser", "canary-board", "canarytopic")
PASSWORD, WRAP, COMMENT, ENVIRONMENT = (
    "canary-p4ssw0rd",
    "canary-wr4p-of-16-bytes",
    "canary-c0mment",
    "canary-env1ronment",
)


@pytest.fixture
def bench(models: Path, tmp_path: Path) -> Bench:
    """A board with a canary in whatever it knows."""
    bench = make_bench(tmp_path / "bench", models, f"mqtt://{BROKER}:1883", name=BOARD)
    config = bench.path / "edged.toml"
    text = config.read_text().replace(bench.topic, "canarytopic/+/shaken")
    config.write_text(text.replace("[broker]", f'# {COMMENT}\n[broker]\nusername = "{USER}"\npassword = "password"'))
    for name, secret in (("password", PASSWORD), ("wrap", WRAP)):
        (bench.path / name).write_text(f"{secret}\n")
        (bench.path / name).chmod(0o600)
    return bench


@pytest.fixture
def journal() -> Iterator[Journal]:
    if why := cannot_journal():
        pytest.skip(why)
    with Journal() as journal:
        yield journal


def unpack(path: Path) -> dict[str, bytes]:
    """Return the files of a bundle."""
    with tarfile.open(path) as archive:
        members = [(entry, archive.extractfile(entry)) for entry in archive]
    found = {}
    with tarfile.open(path) as archive:
        for entry, _ in members:
            file = archive.extractfile(entry.name)
            assert file is not None
            assert (entry.mode, entry.uid) == (0o600, 0)
            found[entry.name.removeprefix("edged-support/")] = file.read()
    return found


def spellings(secret: bytes) -> list[bytes]:
    """Return how a secret may be written."""
    return [secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"="), base64.urlsafe_b64encode(secret)[:-4]]


def secrets_of(bench: Bench) -> list[bytes]:
    """Return what must not leave the board, in every spelling, and pieces of files that must not."""
    keys = [path.read_bytes() for path in (bench.state / "keystore" / "keys").iterdir()]
    assert keys
    said = [one.encode() for one in (PASSWORD, WRAP, COMMENT, ENVIRONMENT)]
    secrets = [one for secret in (bench.board_key.scalar(), *keys, *said) for one in spellings(secret)]
    files = [path.read_bytes() for path in bench.state.rglob("*") if path.suffix in (".edged", ".db", ".key")]
    pieces = [content[at : at + 16] for content in files for at in range(0, min(len(content), 100_000) - 16, 16)]
    return secrets + [piece for piece in pieces if not piece.isascii()]


def test_a_bundle_holds_what_helps_and_no_canary(bench: Bench, journal: Journal) -> None:
    """Canaries stand in keys, packages, state, configuration, environment and log."""
    said = (
        f"import sys; sys.stderr.write('<4>{TOPIC}: ReadingFormatError: no\\n<3>{BROKER} (192.0.2.9) refuses {USER},"
        f" {PASSWORD}\\n<6>canary-board-7 mqtt://x:{PASSWORD}@y\\n')"
    )
    journal.run(sys.executable, "-c", said)
    output = bench.path / "bundle.tar.gz"
    command = [sys.executable, "-m", "edged", "support-bundle", "-c", str(bench.path / "edged.toml"), "-o", str(output)]
    done = journal.run(*command, environment={"CANARY": ENVIRONMENT, "SUDO_USER": USER})
    assert done.returncode == 0, journal.ctl("-n5")
    assert "read it before you send it" in done.stdout
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    files = unpack(output)
    assert list(files) == [section.name for section in SECTIONS]
    everything = b"\n".join(files.values())
    for secret in secrets_of(bench):
        assert secret not in everything, secret
    lower = everything.lower()
    for name in NAMES:
        assert name.encode() not in lower, lower[lower.index(name.encode()) - 200 :][:400]
    assert b"192.0.2.9" not in everything

    checks = {one["check"]: one["ok"] for one in json.loads(files["check.json"])["found"]}
    assert (checks["model gearbox"], checks["broker"]) == (True, False)
    assert json.loads(files["status.json"])["found"]["running"] is False
    assert json.loads(files["models.json"])["found"][0]["name"] == "gearbox"
    assert json.loads(files["audit.json"])["found"][0]["kind"] == "install"
    assert json.loads(files["configuration.json"])["model"][0]["format"] == "f32le"
    assert json.loads(files["versions.json"])["libraries"]["cryptography"]
    assert json.loads(files["machine.json"])["disk"]["free"] > 0
    assert b"keystore/packages/gearbox-1.edged" in files["files.txt"]
    log = [json.loads(line)["MESSAGE"] for line in files["journal.jsonl"].splitlines()]
    [refused] = [line for line in log if "ReadingFormatError" in line]
    assert refused.startswith("<topic-")


def test_names_are_left_in_where_that_is_asked_for_and_secrets_are_not(bench: Bench) -> None:
    output = bench.path / "bundle.tar.gz"
    bench.edged("support-bundle", "-c", "edged.toml", "-o", output, "--with-names")
    everything = b"\n".join(unpack(output).values())
    for name in (BROKER, USER, BOARD):
        assert name.encode() in everything
    for secret in (PASSWORD, WRAP, COMMENT):
        assert secret.encode() not in everything


def test_a_board_that_cannot_do_anything_can_still_be_described(bench: Bench) -> None:
    """Without a configuration that can be used, without systemd: each part says what it lacks."""
    config = bench.path / "edged.toml"
    config.write_text(config.read_text().replace("[broker]", f'[broker]\npasswort = "{PASSWORD}"'))
    output = bench.path / "bundle.tar.gz"
    bench.run("support-bundle", "-c", "edged.toml", "-o", output, env={**os.environ, "PATH": "/nowhere"})
    files = unpack(output)
    assert "passwort: unknown key" in json.loads(files["check.json"])["found"][0]["detail"]
    assert b"No such file" in files["unit.txt"]
    everything = b"\n".join(files.values()).lower()
    for canary in (*NAMES, PASSWORD, COMMENT):
        assert canary.encode() not in everything


def test_a_bundle_replaces_nothing(bench: Bench) -> None:
    output = bench.path / "bundle.tar.gz"
    output.write_text("mine")
    done = bench.run("support-bundle", "-c", "edged.toml", "-o", output, check=False)
    assert done.returncode == 73
    assert output.read_text() == "mine"


def test_what_goes_in_can_be_read_before(tmp_path: Path, bench: Bench) -> None:
    listed = bench.edged("support-bundle", "--list").stdout
    assert all(section.name in listed and section.what in listed for section in SECTIONS)
    assert bench.run("support-bundle", check=False).returncode == 64
    assert not list(tmp_path.glob("*.gz"))
