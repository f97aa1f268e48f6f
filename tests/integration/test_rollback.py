"""Going back by hand: `edged rollback`, with the daemon running and without, and what stays away afterwards."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from edged.board.state import State
from edged.formats.package import Floor
from support.process import DaemonProcess
from support.promises import NEVER_OLDER, SWAPS
from support.site import GEARBOX, Site

pytestmark = pytest.mark.broker

TABLE = 'format = "f32le"\neach = "window"\n[model.trial]\nwindows = 5'
WHY = "sees faults that are none"
OVERFLOWS = '\n[normalise]\nmethod = "zscore"\nmean = 0.0\nstd = 1e-44\n'
"""Finite for a window of zeros, which its self-test holds, and for no other."""


def send(site: Site, *more: object) -> list[object]:
    source = site.models / "gearbox" / "golden.npz"
    return [
        "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "-t", site.topic, *more,
        *site.connection(),
    ]  # fmt: skip


def serve(site: Site, daemon: DaemonProcess, messages: int) -> None:
    """Have 100 readings answered, which proves the version that serves; ``messages`` with those of before."""
    site.edged(*send(site))
    daemon.wait_for(f"{messages} messages, {messages} results")


def rollback(site: Site, *more: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return site.run("rollback", "gearbox", "--why", WHY, "-c", "edged.toml", *more, **options)


def audit(site: Site) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(site.edged("audit", "--json", "-n", 1000, "-c", "edged.toml").stdout)
    return entries


def models(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(site.edged("models", "--json", "-c", "edged.toml").stdout)
    return found


def state(site: Site) -> State:
    return State(site.state)


@pytest.fixture
def board(site: Site) -> Site:
    """A board with version 1."""
    site.configure(TABLE)
    site.init()
    site.install(site.pack(version=1))
    return site


def prove(site: Site, *versions: int) -> None:
    """Record versions as good, as their trial would have."""
    identities = {one["version"]: bytes.fromhex(one["identity"]) for one in models(site)}
    with closing(state(site)) as found:
        for version in versions:
            found.set_good("gearbox", Floor(version, identities[version]))


@SWAPS
def test_a_running_board_goes_back_and_answers_every_reading(board: Site) -> None:
    with board.daemon() as daemon, board.listener(400) as listener:
        listener.wait_connected()
        serve(board, daemon, 100)
        board.install(board.pack(version=2))
        daemon.wait_ready()
        serve(board, daemon, 200)
        command = [sys.executable, "-m", "edged", *map(str, send(board, "--rate", 8))]
        with subprocess.Popen(command, cwd=board.path) as sender:
            assert rollback(board).stdout == "rolled back gearbox 2 to 1\n"
            daemon.wait_ready()
            assert sender.poll() is None, "readings came all the while"
        daemon.wait_for("300 messages, 300 results")
        serve(board, daemon, 400)
        results = listener.results()
        assert daemon.stop() == 0
    versions = [result["version"] for result in results]
    assert len(results) == 400
    assert versions[:200] == [1] * 100 + [2] * 100
    assert versions[300:] == [1] * 100
    assert versions[200:] == sorted(versions[200:], reverse=True)
    assert (versions[200], versions[299]) == (2, 1)
    entries = audit(board)
    kinds = [(entry["kind"], entry.get("version"), entry.get("before")) for entry in entries]
    assert kinds.index(("rollback", 1, 2)) < kinds.index(("swap", 1, 2))
    assert entries[kinds.index(("rollback", 1, 2))]["why"] == WHY
    board.edged("audit", "--verify", "-c", "edged.toml")


def test_a_rolled_back_version_stays_away_after_a_restart(board: Site) -> None:
    board.install(board.pack(version=2))
    prove(board, 1, 2)
    rollback(board)
    with board.daemon() as daemon, board.listener(100) as listener:
        listener.wait_connected()
        serve(board, daemon, 100)
        assert {result["version"] for result in listener.results()} == {1}
        assert daemon.stop() == 0
    assert f"gearbox 2 failed on this board before: {WHY}" in daemon.log

    refused = board.install(board.path / "gearbox-2.edged", check=False)
    assert (refused.returncode, WHY in refused.stderr) == (65, True)
    assert "a higher version is taken as usual" in refused.stderr
    board.install(board.pack(version=3))
    with board.daemon() as daemon, board.listener(100) as listener:
        listener.wait_connected()
        serve(board, daemon, 100)
        assert {result["version"] for result in listener.results()} == {3}


@NEVER_OLDER
def test_going_back_lets_no_other_old_version_in(board: Site) -> None:
    """The old version is served again, and the highest that was ever accepted stays the highest."""
    prove(board, 1)
    for version in (2, 3):
        board.install(board.pack(version=version))
    assert rollback(board).stdout == "rolled back gearbox 3 to 1\n"
    with board.daemon() as daemon:
        assert daemon.stop() == 0
    assert "model gearbox 1 on" in daemon.log

    refused = board.install(board.path / "gearbox-2.edged", check=False)

    assert (refused.returncode, "gearbox 2 is not above version 3" in refused.stderr) == (77, True), refused.stderr


@SWAPS
def test_a_version_on_trial_is_taken_back(board: Site) -> None:
    """Nothing was read since it came, and nothing is needed for it to go."""
    prove(board, 1)
    board.install(board.pack(version=2))
    with board.daemon() as daemon, board.listener(100) as listener:
        listener.wait_connected()
        rollback(board)
        daemon.wait_ready()
        serve(board, daemon, 100)
        assert {result["version"] for result in listener.results()} == {1}
    assert [(one["version"], one["state"]) for one in models(board)] == [(1, "in use"), (2, f"rejected: {WHY}")]


def test_without_a_good_version_before_nothing_changes(board: Site) -> None:
    board.install(board.pack(version=2))
    prove(board, 2)
    before = audit(board)

    refused = rollback(board, check=False)

    assert refused.returncode == 66
    assert "no version of gearbox below 2 that got through its trial is installed here" in refused.stderr
    assert "edged pack --from" in refused.stderr
    assert [one["state"] for one in models(board)] == ["kept", "in use"]
    assert audit(board) == before


def test_a_good_version_that_does_not_load_is_no_way_back(board: Site) -> None:
    board.install(board.pack(version=2))
    prove(board, 1, 2)
    package = board.state / "keystore" / "packages" / "gearbox-1.edged"
    package.write_bytes(package.read_bytes()[:-1000])

    refused = rollback(board, check=False)

    assert (refused.returncode, "gearbox-1.edged" in refused.stderr) == (65, True)
    assert models(board)[1]["state"] == "in use"


def test_the_same_version_is_taken_back_once(board: Site) -> None:
    """Asked again, as a playbook would, it does not go one further back; named, the next one goes."""
    for version in (2, 3):
        board.install(board.pack(version=version))
        prove(board, version - 1)
    prove(board, 3)
    assert json.loads(rollback(board, "--json").stdout) == {
        "model": "gearbox", "before": 3, "version": 2, "changed": True,
    }  # fmt: skip
    assert json.loads(rollback(board, "--json").stdout)["changed"] is False
    assert "gearbox 3 was rejected before" in rollback(board).stdout
    assert "2 is used" in rollback(board, "--version", 3).stdout

    assert rollback(board, "--version", 2, check=False).returncode == 66, "two good versions are remembered"
    with closing(state(board)) as found:
        assert [good.version for good in found.good("gearbox")] == [2]


def test_the_good_version_before_is_spared_when_newer_ones_come(board: Site) -> None:
    for version in (2, 3, 4):
        board.install(board.pack(version=version))
        prove(board, *{2: (1, 2), 3: (), 4: ()}[version])
    assert [one["version"] for one in models(board)] == [1, 2, 3, 4]
    refused = rollback(board, "--version", 2, check=False)
    assert (refused.returncode, "gearbox 4 is in use, not 2" in refused.stderr) == (64, True)

    rollback(board)  # 4
    rollback(board, "--version", 3)
    rollback(board, "--version", 2)

    assert [one["state"] for one in models(board)] == ["in use", *[f"rejected: {WHY}"] * 3]


def test_what_a_board_knew_as_good_before_this_release_is_good_still(board: Site) -> None:
    with closing(state(board)) as found:
        floor = found.floor("gearbox")
        assert floor is not None
    with closing(sqlite3.connect(board.state / "state.db")) as database, database:
        database.execute("INSERT INTO good VALUES ('gearbox', ?, ?)", floor)
        database.execute("DROP TABLE proven")
        database.execute("PRAGMA user_version = 3")
    board.install(board.pack(version=2))
    with closing(state(board)) as found:
        assert found.good("gearbox") == [floor]
    assert rollback(board).stdout == "rolled back gearbox 2 to 1\n"


def test_a_board_that_gave_up_a_new_version_by_itself_serves_the_old_one_after_a_restart(board: Site) -> None:
    """Also where the old one had not been through its own trial when the new one came."""
    np.savez(board.path / "zeros.npz", windows=np.zeros((1, 300, 4), "f"), scores=np.zeros((1, 2), "f"))
    overflows = GEARBOX.replace("selftest.npz", "zeros.npz").replace("0.02", "1.0") + OVERFLOWS
    with board.daemon() as daemon:
        board.install(board.pack(version=2, manifest=overflows))
        daemon.wait_ready()
        serve(board, daemon, 100)
        assert daemon.stop() == 0
    assert "version 1 answers again" in daemon.log
    with board.daemon() as daemon, board.listener(100) as listener:
        listener.wait_connected()
        serve(board, daemon, 100)
        assert {result["version"] for result in listener.results()} == {1}
