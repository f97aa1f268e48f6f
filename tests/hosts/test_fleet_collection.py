"""The collection by itself: lint, and its filters in Ansible's own Python: what they write, compare and judge."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.ansible import COLLECTION, ansible_bin

_CALL = """
import importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.edged.fleet.plugins.filter import {file}
filters = {file}.FilterModule().filters()
for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        print(json.dumps(filters[name](*arguments)), flush=True)
    except Exception as error:
        print(json.dumps({{"error": str(error)}}), flush=True)
"""


class Filters:
    """The filters of one file, in a process of Ansible's Python."""

    def __init__(self, root: Path, file: str) -> None:
        folder = ansible_bin()
        assert folder is not None
        command = [str(folder / "python"), "-c", _CALL.format(file=file), str(root)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, name: str, *arguments: object) -> Any:  # noqa: ANN401  whatever the filter makes
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([name, *arguments]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=20)


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Ansible finds the collection."""
    if ansible_bin() is None:
        pytest.skip("no Ansible: `make hosts` installs it")
    root = tmp_path_factory.mktemp("collections")
    (root / "ansible_collections" / "edged").mkdir(parents=True)
    shutil.copytree(COLLECTION, root / "ansible_collections" / "edged" / "fleet")
    return root


@pytest.fixture(scope="module", params=["configuration", "passwords", "health", "preflight"])
def filters(request: pytest.FixtureRequest, collections: Path) -> Iterator[Filters]:
    filters = Filters(collections, request.param)
    yield filters
    filters.close()


def only(file: str) -> pytest.MarkDecorator:
    """Give a test the filters of one file."""
    return pytest.mark.parametrize("filters", [file], indirect=True)


def test_lint_finds_nothing_in_its_strictest_profile(collections: Path) -> None:
    folder = ansible_bin()
    assert folder is not None
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections), "PATH": f"{folder}:{os.environ['PATH']}"}
    place = collections / "ansible_collections" / "edged" / "fleet"
    command = [str(folder / "ansible-lint"), "--offline", "--strict", "--profile", "production", "--nocolor"]
    done = subprocess.run(
        command, cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Profile 'production' was required, and it passed" in done.stdout + done.stderr


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | _TEXT
_TABLES = st.dictionaries(
    _TEXT,
    st.recursive(
        _SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
        max_leaves=12,
    ),
    max_size=5,
)


@only("configuration")
@settings(max_examples=300)
@given(tables=_TABLES)
def test_what_is_written_as_toml_is_read_back_as_it_was_whatever_the_order_of_its_keys(
    filters: Filters, tables: dict[str, Any]
) -> None:
    written = filters("to_toml", tables)
    assert tomllib.loads(written) == tables
    assert filters("to_toml", dict(reversed(tables.items()))) == written


@only("configuration")
@pytest.mark.parametrize("tables", [{"a": None}, {"a": {"b": [1, None]}}, [1], {"a": 2**64}])
def test_what_toml_cannot_say_is_refused(filters: Filters, tables: object) -> None:
    assert "to_toml: " in filters("to_toml", tables)["error"]


@only("configuration")
@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("mqtts://8.8.8.8:8883", ["8.8.8.8"]),
        ("mqtts://[2606:4700::1]", ["2606:4700::1"]),
        ("mqtts://10.0.0.7", []),
        ("mqtt://[fe80::1]:1883", []),
        ("mqtts://broker.local", []),
        ("unix:///run/mqtt", []),
    ],
)
def test_an_address_outside_private_networks_is_allowed_by_itself(filters: Filters, url: str, found: list[str]) -> None:
    assert filters("outside_addresses", url) == found


@only("passwords")
def test_each_board_has_a_password_of_its_own_and_mosquitto_its_hash(filters: Filters) -> None:
    passwords = {filters("broker_password", "s" * 32, user, number) for user in ("a", "b") for number in (1, 2)}
    assert len(passwords) == 4
    assert all(len(one) == 43 for one in passwords)
    assert "fewer than 16" in filters("broker_password", "short", "a")["error"]
    _, kind, iterations, salt, key = filters("mosquitto_hash", "password", "a").split("$")
    made = hashlib.pbkdf2_hmac("sha512", b"password", base64.b64decode(salt), int(iterations))
    assert (kind, base64.b64decode(key)) == ("7", made)


def snapshot(version: int = 2, **change: Any) -> dict[str, Any]:
    """Return what a board in good health says."""
    model = {
        "channel": "c1",
        "name": "gearbox",
        "serving": version,
        "on_trial": False,
        "newest": version,
        "rejected": [],
    }
    status = {"running": True, "version": "0.1.0", "degraded": [], "models": [{**model, **change.pop("model", {})}]}
    reported = {"messages": 10, "results": 10, "dropped": 0, **change.pop("reported", {})}
    unit = {"InvocationID": change.pop("invocation", "a"), "NRestarts": "0"}
    return {"status": {**status, "reported": reported, **change}, "unit": unit}


@only("health")
@pytest.mark.parametrize(
    ("after", "why"),
    [
        (snapshot(reported={"messages": 20, "results": 20}), []),
        (snapshot(), []),
        (snapshot(running=False), ["the daemon does not run"]),
        (snapshot(invocation="b"), ["the daemon was started again"]),
        (snapshot(1), ["channel c1 is served by gearbox 1, not 2"]),
        (snapshot(1, model={"rejected": [{"version": 2, "why": "slow"}]}), ["gearbox 2 failed: slow"]),
        (snapshot(model={"on_trial": True}), []),
        (
            snapshot(model={"on_trial": True}, reported={"messages": 11, "results": 11}),
            ["gearbox 2 is still on trial after 1 readings: a longer soak time would tell"],
        ),
        (snapshot(reported={"messages": 11}), ["readings came, and no result"]),
        (snapshot(reported={"dropped": 3}), ["3 results were dropped"]),
        (snapshot(degraded=["disk: full"]), ["disk: full"]),
        (snapshot(models=[]), ["no [[model]] uses gearbox"]),
    ],
)
def test_a_board_that_did_not_prove_itself_is_told_why(filters: Filters, after: dict[str, Any], why: list[str]) -> None:
    want = {"name": "gearbox", "version": 2, "results": True}
    assert filters("unproven", after, snapshot(), want) == why


@only("health")
@pytest.mark.parametrize(
    ("newest", "good", "said"),
    [(None, None, ""), (2, 2, ""), (2, 1, ""), (2, None, "gearbox 2 has not been through its trial there")],
)
def test_before_a_wave_a_board_has_something_to_go_back_to(
    filters: Filters, newest: int | None, good: int | None, said: str
) -> None:
    """The first version replaces nothing; one that is on trial can go back to an older good one."""
    status = {
        "models": [{"name": "gearbox", "newest": newest, "good": good}, {"name": "other", "newest": 1, "good": None}]
    }
    assert filters("no_way_back", status, "gearbox").startswith(said)
    assert bool(filters("no_way_back", status, "gearbox")) is bool(said)


@only("health")
def test_status_shows_the_revision_of_the_package(filters: Filters) -> None:
    rows = [{"board": "press-07", "status": snapshot()["status"], "revision": "0.1.0-2~deb12"}]
    assert "0.1.0-2~deb12" in filters("status_table", rows)[1]


@only("preflight")
def test_all_that_is_wrong_with_a_machine_is_said_at_once(filters: Filters) -> None:
    want = {"free": 10, "now": 1000, "tolerance": 60, "state": "/var/lib/edged", "user": "edged"}
    fit = {"distribution": "Debian", "release": "12", "architecture": "arm64", "clock": 1000.0, "free": 10}
    fit |= {"random": True, "misowned": [], "apt": True}
    wrong = {"release": "11", "clock": 5.0, "free": 9, "random": False, "misowned": ["/x"], "apt": False}
    assert filters("unfit", fit, want) == []
    assert len(filters("unfit", {**fit, **wrong}, want)) == len(wrong)
    assert "armhf is not supported" in filters("unfit", {**fit, "architecture": "armhf"}, want)[0]


# --- docs/fleet.md --------------------------------------------------------------------------------

DOCS = Path(__file__).resolve().parents[2] / "docs" / "fleet.md"
_PLAYED = re.compile(r"ansible-playbook (.*)")


def blocks(kind: str) -> list[str]:
    """Return the fenced blocks of a kind, in the order in which they stand."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)


def test_documented_commands_name_the_inventorys_file_playbooks_and_variables_that_there_are() -> None:
    texts = {path: path.read_text() for path in (DOCS, COLLECTION / "README.md", *COLLECTION.glob("playbooks/*.yml"))}
    played = [line for text in texts.values() for line in _PLAYED.findall(text)]
    assert len(played) > 10
    for line in played:
        assert line.startswith("-i inventory/hosts.ini edged.fleet."), line
        name = line.split()[2].removeprefix("edged.fleet.")
        assert (COLLECTION / "playbooks" / f"{name}.yml").exists(), line
    files = [path for path in COLLECTION.rglob("*") if path.suffix in {".yml", ".j2"}]
    known = {name for path in files for name in re.findall(r"\bedged_[a-z_]+", path.read_text())}
    names = set(re.findall(r"\bedged_[a-z_]+(?!\w*\.deb)", DOCS.read_text())) - {"edged_"}
    assert names <= known, names - known


def test_what_is_documented_before_the_first_board_works_as_written(tmp_path: Path, collections: Path) -> None:
    """Keys, certificates, inventory and settings, in the order in which they stand; then Ansible reads all of it."""
    folder = ansible_bin()
    assert folder is not None
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "edged").write_text(f'#!/bin/sh\nexec {sys.executable} -m edged "$@"\n')
    (programs / "edged").chmod(0o755)
    fleet = tmp_path / "fleet"
    (fleet / "inventory" / "group_vars" / "all").mkdir(parents=True)
    (tmp_path / "vault-password").write_text("vault password")
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(tmp_path / "vault-password"),
        "PATH": f"{programs}:{folder}:{os.environ['PATH']}",
    }

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=fleet, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, command + done.stdout + done.stderr
        return done.stdout

    settings, hosts = [block for block in blocks("ini") if "aggregators" not in block]
    (fleet / "ansible.cfg").write_text(settings)
    (fleet / "inventory" / "hosts.ini").write_text(hosts)
    for block in blocks("yaml"):
        for part in re.split(r"^# (?=inventory/)", block, flags=re.MULTILINE)[1:]:
            path, _, text = part.partition("\n")
            (fleet / path.split(",")[0]).write_text(text)
    steps = [block for block in blocks("sh") if "ansible-playbook" not in block]
    assert len(steps) == 2
    for block in steps:
        run(re.sub(r"^(edged keygen .*)$", r"\1 --no-passphrase", block, flags=re.MULTILINE))
    assert run("openssl verify -CAfile ca.crt broker.crt").endswith("OK\n")
    assert run("head -c 14 broker.key") == "$ANSIBLE_VAULT"
    (fleet / "packages").mkdir()
    (fleet / "packages" / "edged_0.1.0-1~deb12_arm64.deb").touch()
    control = "- hosts: all\n  gather_facts: false\n  tasks:\n    - edged.fleet.control: {command: true, package: true, files: true}\n      run_once: true\n"
    (tmp_path / "control.yml").write_text(control)
    assert '"msg": "in order"' in run(f"ansible-playbook -v {tmp_path}/control.yml")
    for command in re.findall(r"^ansible-playbook .*", "\n".join(blocks("sh")), re.MULTILINE):
        run(command + " --syntax-check")
