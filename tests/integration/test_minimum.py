"""A version that must not come back: `minimum`, whatever happens to packages, state and trials; and versions past their date."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest

from edged.base.errors import RollbackError
from edged.board.installation import Board
from edged.board.state import State
from edged.config.load import load_board
from edged.formats.package import Floor
from support.packages import Workshop
from support.promises import NEVER_OLDER
from support.site import GEARBOX, Site
from support.waiting import wait_until

pytestmark = [pytest.mark.broker, NEVER_OLDER]

TABLE = 'format = "f32le"\neach = "window"\n[model.trial]\nwindows = 5'
OVERFLOWS = '\n[normalise]\nmethod = "zscore"\nmean = 0.0\nstd = 1e-44\n'
"""Finite for a window of zeros, which its self-test holds, and for no other."""


def lowest(minimum: int) -> str:
    return GEARBOX.replace("version =", f"minimum = {minimum}\nversion =")


@pytest.fixture
def board(site: Site) -> Site:
    """A board with version 1, which is known as good, and version 2, below which nothing is served."""
    site.configure(TABLE)
    site.init()
    site.install(site.pack(version=1))
    (one,) = json.loads(site.edged("models", "--json", "-c", "edged.toml").stdout)
    with closing(State(site.state)) as state:
        state.set_good("gearbox", Floor(1, bytes.fromhex(one["identity"])))
    site.install(site.pack(version=2, manifest=lowest(2)))
    return site


def damage(site: Site) -> None:
    package = site.state / "keystore" / "packages" / "gearbox-2.edged"
    content = bytearray(package.read_bytes())
    content[-5000] ^= 1
    package.write_bytes(content)


def forget(site: Site) -> None:
    for file in site.state.glob("state.db*"):
        file.unlink()


@pytest.mark.parametrize("change", [damage, lambda site: (damage(site), forget(site))], ids=["package", "and state"])
def test_a_damaged_newest_package_lets_no_version_below_the_minimum_be_served(
    board: Site, change: Callable[[Site], object]
) -> None:
    """Version 1 is installed, intact, and was good."""
    change(board)
    done = board.run("run", "-c", "edged.toml", check=False)
    assert done.returncode == 77
    assert ": the AEAD tag does not hold" in done.stderr
    assert "model gearbox 1 on" not in done.stderr
    again = board.run("install", "gearbox-1.edged", "-c", "edged.toml", check=False)
    assert (again.returncode, "version 2" in again.stderr) == (77, True), again.stderr


def test_a_version_that_was_good_is_checked_against_the_minimum_at_every_load(board: Site) -> None:
    found = Board(load_board(board.path / "edged.toml"))
    installed = found.packages.find("gearbox", 1)
    assert installed is not None
    with closing(State(board.state)) as state:
        assert [good.version for good in state.good("gearbox")] == [1]
        with pytest.raises(RollbackError, match="below version 2"):
            found.load(installed, found.keystore(), state, found.engine())


def test_a_minimum_is_never_lowered(board: Site) -> None:
    with closing(State(board.state)) as state:
        state.accept("gearbox", Floor(3, bytes(32)), 0, 1)
        assert state.minimum("gearbox") == 2
        state.accept("gearbox", Floor(1, bytes(32)), 0, 9)
        assert (state.minimum("gearbox"), state.floor("gearbox")) == (9, Floor(3, bytes(32)))


def test_going_back_by_hand_is_refused_below_the_minimum(board: Site) -> None:
    done = board.run("rollback", "gearbox", "--why", "no", "-c", "edged.toml", check=False)
    assert (done.returncode, "below version 2" in done.stderr) == (77, True), done.stderr


def test_a_running_daemon_lets_go_of_a_version_below_the_minimum(site: Site) -> None:
    """A newer version was accepted, and cannot be loaded: here its package is gone."""
    site.configure(TABLE)
    site.init()
    site.install(site.pack(version=1))
    with site.daemon() as daemon:
        with closing(State(site.state)) as state:
            state.accept("gearbox", Floor(2, bytes(32)), 0, 2)
        daemon.reload()
        daemon.wait_logged("degraded: model c1")
        assert daemon.stop() == 0
    assert "gearbox 1 lies below version 2" in daemon.log


def test_a_version_with_a_minimum_that_fails_its_trial_leaves_nothing_that_answers(board: Site) -> None:
    zeros = board.path / "zeros.npz"
    np.savez(zeros, windows=np.zeros((1, 300, 4), "f"), scores=np.zeros((1, 2), "f"))
    manifest = lowest(3).replace("selftest.npz", zeros.name).replace("0.02", "1.0") + OVERFLOWS
    with board.daemon() as daemon, board.listener(1) as listener:
        listener.wait_connected()
        board.install(board.pack(version=3, manifest=manifest))
        daemon.wait_logged("model gearbox 3 on")
        source = board.models / "gearbox" / "golden.npz"
        board.edged(
            "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "-t", board.topic,
            *board.connection(),
        )  # fmt: skip
        daemon.wait_for("100 messages, 0 results")
        daemon.wait_logged("degraded: model")
        daemon.reload()
        assert daemon.stop() == 0
    rows = {
        row["version"]: row["state"] for row in json.loads(board.edged("models", "--json", "-c", "edged.toml").stdout)
    }
    assert rows[3].startswith("rejected: ")
    done = board.run("run", "-c", "edged.toml", check=False)
    assert done.returncode != 0
    assert "model gearbox 1 on" not in done.stderr


def test_pack_warns_of_a_version_with_no_way_back(site: Site) -> None:
    site.configure(TABLE)
    site.init()
    site.pack(version=2)
    pack = (
        "pack",
        site.models / "gearbox" / "dnn.tflite",
        "-m",
        "manifest.toml",
        "--sign",
        "acme.key",
        "--to",
        "board.enrol",
    )
    done = site.edged(*pack, "--minimum", "2", "-o", "two.edged")
    assert "never go back below version 2" in done.stderr
    assert "no way back below  2" in site.edged("inspect", "two.edged").stdout
    above = site.edged(*pack, "--minimum", "3", "-o", "three.edged", check=False)
    assert (above.returncode, "minimum" in above.stderr) == (65, True), above.stderr


# --- past its date ---------------------------------------------------------------------------


def test_freeze_at_a_version_past_its_date_is_said_as_long_as_it_serves(site: Site) -> None:
    """A supplier who holds back newer versions cannot be told from one who has none: people are told of the date."""
    config = site.configure(TABLE)
    text = config.read_text().replace("[results]", '[results]\nheartbeat = "1 s"')
    config.write_text(text.replace("[device]", '[device]\nclock = "trusted"'))
    site.init()
    expires = int(time.time()) + 8
    workshop = Workshop.of_site(site.path / "workshop", site.path / "acme.key")
    short = site.path / "short.edged"
    short.write_bytes(workshop.resign(site.pack(version=1).read_bytes(), expires=expires))
    site.install(short)
    wait_until(lambda: time.time() > expires)
    listen = ("listen", "--hub-key", "home.key", "--board", "board.enrol", "--health", "-W", "4", *site.connection())
    with site.daemon() as daemon:
        daemon.wait_logged("degraded: expiry c1: gearbox 1 expired on")
        said = site.run(*listen, check=False).stdout
        assert daemon.stop() == 0
    (why,) = json.loads(said.splitlines()[-1])["health"]["degraded"]
    assert why.startswith("expiry c1: gearbox 1 expired on 20")
