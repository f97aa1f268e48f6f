"""Keys that are not in edged's memory: the whole loop with tokens and TPMs, and what root finds when it looks.

SoftHSM is software in the process that loads it. Behind p11-kit's server it stands where a smart card stands: in
another process, to which edged's own has a socket.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role
from support import ram
from support.broker import PrivateBroker
from support.canary import Bench, make_bench
from support.site import Site, run_loop
from support.tokens import PIN, Keys, P11Server, SoftHsm
from support.tpm import Swtpm, put_tpm_key

# --- the loop --------------------------------------------------------------------------------


def test_every_gearbox_window_is_decided_right_with_the_boards_keys_elsewhere(site: Site, keys: Keys, uri: str) -> None:
    site.configure('format = "json"\neach = "row"', extra=keys.table(uri))
    site.init()
    run_loop(site)
    assert not list(site.state.rglob("*.key"))


def test_every_gearbox_window_is_decided_right_with_everybodys_keys_on_tokens(
    site: Site, keys: Keys, hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publisher, operator and hub name the URI wherever they named a file."""
    monkeypatch.setenv("EDGED_PASSPHRASE_FILE", str(keys.pin))
    for role, name in (("publisher", "acme"), ("operator", "fleet"), ("hub", "home")):
        (site.path / f"{name}.key").unlink()
        (site.path / f"{name}.pub").unlink()
        said = site.edged("keygen", role, "--id", name, "--keystore", hsm.uri("people")).stdout
        assert said.startswith(hsm.uri("people", name))
        assert not (site.path / f"{name}.key").exists()
    site.publisher_key, site.hub_key = hsm.uri("people", "acme"), hsm.uri("people", "home")
    site.configure('format = "json"\neach = "row"', extra=keys.table(hsm.uri("edged")))
    site.init()
    run_loop(site)

    granted = site.edged(
        "grant", "gearbox-1.edged", "--to", second_board(site, hsm), "--operator-key", hsm.uri("people", "fleet")
    )
    assert "granted to 1 more" in granted.stdout


def second_board(site: Site, hsm: SoftHsm) -> Path:
    """Make another board's keys on the same token, under a label of their own."""
    config = site.path / "second.toml"
    text = (site.path / "edged.toml").read_text().replace(hsm.uri("edged"), hsm.uri("edged", "press-08"))
    config.write_text(text.replace(str(site.state), str(site.path / "second")))
    site.edged("init", "-c", config, "-o", "second.enrol")
    return site.path / "second.enrol"


# --- memory ----------------------------------------------------------------------------------

see_memory = pytest.mark.skipif(bool(ram.cannot_look()), reason=ram.cannot_look())


@pytest.fixture
def bench(tmp_path: Path, models: Path, tls_broker: PrivateBroker, request: pytest.FixtureRequest) -> Bench:
    return make_bench(tmp_path, models, tls_broker, request.node.nodeid)


def search(pid: int, pair: tuple[PrivateKey, PrivateKey]) -> list[ram.Map]:
    """Return where one of two private keys stands, in the order of bytes of a file or of a big number."""
    return ram.search_memory(pid, *(form for key in pair for form in (key.scalar(), key.scalar()[::-1])))


def known_keys() -> tuple[PrivateKey, PrivateKey]:
    """Return keys that were made outside, so that the test knows what to search for."""
    return PrivateKey.generate(), PrivateKey.generate()


def enrol(bench: Bench, pair: tuple[PrivateKey, PrivateKey], table: str) -> None:
    """Make the board's record and configuration for keys that were put where ``table`` says."""
    record = Record(Role.DEVICE, bench.name, pair[0].public, pair[1].public, Aead.A256GCM, 1).encode(pair[0])

    def init() -> Path:
        directory = bench.state / "keystore"
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        bench.state.chmod(0o700)
        for path in (directory / "device.enrol", bench.path / "board.enrol"):
            path.write_bytes(record)
        return bench.path / "board.enrol"

    bench.init = init  # type: ignore[method-assign]
    bench.prepare(extra=table)


@pytest.mark.root
@see_memory
@pytest.mark.parametrize("where", ["softhsm", "p11-kit", "swtpm"])
def test_private_keys_elsewhere_do_not_stay_in_the_daemons_memory(
    bench: Bench, keys: Keys, request: pytest.FixtureRequest, where: str
) -> None:
    """After it loaded a model with one and announced itself with the other."""
    pair = known_keys()
    uri = put_board_keys(request, bench, where, pair)
    enrol(bench, pair, keys.table(uri))
    bench.put(1, bench.make(1))
    with bench.daemon() as daemon:
        bench.answer()
        assert search(daemon.pid, pair) == []


def put_board_keys(
    request: pytest.FixtureRequest, bench: Bench, where: str, pair: tuple[PrivateKey, PrivateKey]
) -> str:
    """Put keys that the test knows where a board's are; return their URI."""
    if where == "swtpm":
        tpm = request.getfixturevalue("tpm")
        folder = bench.state / "keystore" / "keys"
        folder.mkdir(parents=True, mode=0o700)
        put_tpm_key(tpm.tcti, folder / "sign.tpm", pair[0], "SIGN_ENCRYPT")
        put_tpm_key(tpm.tcti, folder / "ecdh.tpm", pair[1], "DECRYPT")
        return str(tpm.uri)
    hsm = request.getfixturevalue("hsm")
    hsm.put("edged", "edged-sign", pair[0], uses="SIGN")
    hsm.put("edged", "edged-ecdh", pair[1], uses="DERIVE")
    return str((request.getfixturevalue("agreeing_server") if where == "p11-kit" else hsm).uri("edged"))


BUSY = """
import sys
from pathlib import Path
from edged.keystore import open_keystore
from edged.keystore.people import PersonalKeys
from edged.keystore import exercise
from edged.keystore.token_uri import TokenUri

uri, folder, pin = sys.argv[1], Path(sys.argv[2]), sys.argv[3].encode()
keys = open_keystore(uri, folder, None) if uri.startswith("tpm2:") else PersonalKeys.on_token(TokenUri.parse(uri), pin)
print("begins", flush=True)
while True:
    exercise(keys.signer, keys.agreement)
"""
LOOKS = 25


@contextmanager
def busy(uri: str, folder: Path) -> Iterator[int]:
    """Use private keys without a pause, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", BUSY, uri, folder, PIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begins\n"
            yield process.pid
        finally:
            process.kill()


def looks(pids: Sequence[int], pair: tuple[PrivateKey, PrivateKey]) -> Iterator[bool]:
    """Yield whether a key stands in one of the processes, at moments that follow no rhythm."""
    while True:
        time.sleep(random.uniform(0, 0.02))
        yield any(search(pid, pair) for pid in pids)


@pytest.mark.root
@see_memory
def test_private_keys_in_a_tpm_are_never_in_the_process_that_uses_them(tmp_path: Path, tpm: Swtpm) -> None:
    pair = known_keys()
    put_tpm_key(tpm.tcti, tmp_path / "sign.tpm", pair[0], "SIGN_ENCRYPT")
    put_tpm_key(tpm.tcti, tmp_path / "ecdh.tpm", pair[1], "DECRYPT")
    tmp_path.chmod(0o700)
    with busy(tpm.uri, tmp_path) as pid:
        assert not any(itertools.islice(looks([pid], pair), LOOKS))


@pytest.mark.root
@see_memory
def test_private_key_on_a_token_of_another_process_is_never_in_the_process_that_uses_it(
    hsm: SoftHsm, server: P11Server, tmp_path: Path
) -> None:
    """It is in the server's at times, which shows that the search finds a key where there is one."""
    pair = known_keys()
    hsm.put("edged", "acme-sign", pair[0], uses="SIGN")
    with busy(server.uri("edged", "acme"), tmp_path) as pid:
        assert not any(itertools.islice(looks([pid], pair), LOOKS))
        assert any(itertools.islice(looks(server.pids, pair), 20 * LOOKS))


@pytest.mark.root
@see_memory
def test_private_key_on_a_software_token_is_at_times_in_the_process_that_uses_it(hsm: SoftHsm, tmp_path: Path) -> None:
    """What docs/threats.md says of SoftHSM: it decrypts the key for each use, here, and wipes it after."""
    pair = known_keys()
    hsm.put("edged", "acme-sign", pair[0], uses="SIGN")
    with busy(hsm.uri("edged", "acme"), tmp_path) as pid:
        assert any(itertools.islice(looks([pid], pair), 20 * LOOKS))
