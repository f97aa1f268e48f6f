"""A daemon and a hub that are scraped while they work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edged import __version__
from support.books import check_numbers, is_the_same
from support.played import Scene
from support.scrape import scrape
from support.site import Site
from support.waiting import wait_until

pytestmark = pytest.mark.broker

Numbers = dict[tuple[str, ...], float]


def wait(path: Path, holds: Callable[[Numbers], bool]) -> Numbers:
    """Wait until the numbers are as wanted: they are taken every five seconds."""

    def found() -> Numbers | None:
        numbers = scrape(path)
        return numbers if holds(numbers) else None

    numbers = wait_until(found, every=0.2, told=lambda: scrape(path))
    assert numbers is not None
    return numbers


def test_a_boards_numbers_are_what_it_did(site: Site) -> None:
    path = site.path / "metrics.sock"
    site.configure('format = "f32le"\neach = "window"', extra=f'[metrics]\nlisten = "{path}"')
    site.init()
    site.install(site.pack())
    site.edged("check", "edged.toml", "--offline")
    with site.daemon() as daemon:
        fresh = scrape(path)
        source = site.models / "gearbox" / "golden.npz"
        site.edged(
            "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "-t", site.topic,
            *site.connection(),
        )  # fmt: skip
        site.run("send", source, "--array", "raw_windows", "--each", "row", "--format", "f32le", "-t", site.topic,
                   *site.connection(), check=False)  # fmt: skip
        daemon.wait_for("100 results")
        busy = wait(path, lambda numbers: numbers[("edged_results_total",)] == 100)
        daemon.process.kill()
        daemon.process.wait()
    assert path.exists(), "nobody took it away"
    with site.daemon():
        again = scrape(path)
    assert not path.exists()

    assert fresh[("edged_model_info", "gearbox", "1", "c1")] == 1
    assert fresh[("edged_model_on_trial", "gearbox", "c1")] == 1
    assert 0 < fresh[("edged_model_window_seconds", "gearbox", "c1")] < 1
    assert fresh[("edged_build_info", "board", __version__)] == 1
    assert (fresh[("edged_broker_up", "sensors")], fresh[("edged_broker_up", "uplink")]) == (1, 1)
    assert ("edged_last_result_timestamp_seconds",) not in fresh
    assert busy[("edged_model_on_trial", "gearbox", "c1")] == 0
    assert abs(busy[("edged_last_result_timestamp_seconds",)] - time.time()) < 60
    assert busy[("edged_messages_total",)] == 100 + sum(
        value for name, value in busy.items() if name[0] == "edged_refused_total"
    )
    assert again[("edged_results_total",)] == 0


def test_a_hubs_numbers_are_what_it_did(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "metrics.sock"
    with Scene(tmp_path, more_local=f'[metrics]\nlisten = "{path}"') as scene:
        board = scene.board("press")
        board.announce()
        board.serve("c1")
        scene.settle()
        scene.hub.start()
        scene.wait_arrived(board.send(), board.send())
        numbers = wait(path, lambda numbers: numbers.get(("edged_hub_results_total", "press")) == 2)
        wait(path, lambda numbers: is_the_same(scene.hub.status(), numbers))
        wait(path, lambda numbers: is_the_same(scene.hub.command("status"), numbers))
        assert scene.hub.stop() == 0
    check_numbers(numbers)
    assert numbers[("edged_hub_broker_up", "u0")] == numbers[("edged_hub_broker_up", "local")] == 1
    assert ("edged_hub_board_up", "press") in numbers
    assert numbers[("edged_hub_dropped_total",)] == 0
    assert numbers[("edged_build_info", "hub", __version__)] == 1
    assert not path.exists()


def test_a_daemon_does_not_start_where_its_numbers_have_no_place(site: Site) -> None:
    site.configure('format = "f32le"\neach = "window"', extra=f'[metrics]\nlisten = "{site.path}/nowhere/metrics.sock"')
    site.init()
    site.install(site.pack())
    refused = site.run("run", "-c", "edged.toml", check=False)
    assert (refused.returncode, "metrics.listen: " in refused.stderr) == (78, True)
