"""The units on a real host: what they keep away from the daemon, and what they do when it hangs, dies or is changed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.faults import Sensor, World
from support.hosts import Fleet
from support.installed import InstalledSite
from support.netns import entered
from support.waiting import wait_until

UNITS = ("edged", "edged-hub", "edged-init", "edged-hub-init")
MOST_EXPOSED = 1.0
WATCHDOG = 4.0
ELSEWHERE = "203.0.113.10"  # an address of nobody's (RFC 5737), and no private one
_WINDOWS = 'format = "f32le"\neach = "window"\nsensor = "sensor.key"\n'


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """One host."""
    with Fleet(1, name="unit", net="10.76.0") as running:
        yield running


@pytest.fixture(scope="module")
def board(fleet: Fleet, package: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> InstalledSite:
    """It, with a model that serves."""
    site = InstalledSite(tmp_path_factory.mktemp("site"), models, fleet.hosts[0], package)
    site.configure(_WINDOWS)
    site.init()
    site.install(site.pack(version=1))
    site.host.run("systemctl", "start", "edged")
    return site


@pytest.fixture(scope="module")
def windows(models: Path) -> np.ndarray:
    """Windows of the gearbox model, float32 [n, 300, 4]."""
    with np.load(models / "gearbox" / "golden.npz") as golden:
        return golden["raw_windows"].astype(np.float32)


@pytest.fixture(autouse=True)
def _as_it_was(board: InstalledSite) -> Iterator[None]:
    """Take back what a test changed."""
    yield
    (board.host.root / "etc/systemd/system/edged.service.d/test.conf").unlink(missing_ok=True)
    board.host.run("systemctl", "daemon-reload")
    board.configure(_WINDOWS)
    board.host.run("systemctl", "reset-failed")
    board.host.run("systemctl", "restart", "edged")


def _pid(board: InstalledSite) -> str:
    return board.shows("MainPID")["MainPID"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_exposed_as_little_as_promised(board: InstalledSite, unit: str) -> None:
    said = board.host.run("systemd-analyze", "security", "--no-pager", f"{unit}.service", check=False).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) <= MOST_EXPOSED


def test_weights_are_locked_in_ram_and_the_boards_memory_is_bounded(board: InstalledSite) -> None:
    """As far as this machine lets a container lock: all of the daemon where it may, its weights everywhere."""
    said = board.journal(f"_PID={_pid(board)}")
    assert ", weights locked in RAM" in said
    assert "freed memory overwritten, Python's objects too: yes" in said
    status = board.host.run("cat", f"/proc/{_pid(board)}/status").stdout
    found = dict(re.findall(r"(Vm\w+):\s+(\d+) kB", status))
    assert int(found["VmLck"]) > 0 == int(found["VmSwap"])
    shown = board.shows("MemoryMax", "MemoryHigh", "MemorySwapMax", "LimitCORE", "OOMScoreAdjust", "LimitMEMLOCK")
    assert int(shown.pop("MemoryHigh")) < int(shown.pop("MemoryMax"))
    assert shown == {"MemorySwapMax": "0", "LimitCORE": "0", "OOMScoreAdjust": "-200", "LimitMEMLOCK": "infinity"}


def test_the_runtime_keeps_xnnpack(board: InstalledSite) -> None:
    """It reads /proc/cpuinfo, and would leave XNNPACK out where the unit hid that, and say nothing."""
    created = "Created TensorFlow Lite XNNPACK delegate"
    _restart_noting_since(board)
    assert created in board.journal(f"_PID={_pid(board)}")
    board.drop_in("[Service]\nProcSubset=pid\n")
    _restart_noting_since(board)
    assert created not in board.journal(f"_PID={_pid(board)}"), "then this test would show nothing"


def _restart_noting_since(board: InstalledSite) -> None:
    board.host.run("systemctl", "restart", "edged")
    board.host.run("journalctl", "--sync")


def test_a_daemon_that_hangs_is_caught_by_the_watchdog(board: InstalledSite) -> None:
    board.drop_in(f"[Service]\nWatchdogSec={WATCHDOG}\n")
    board.host.run("systemctl", "restart", "edged")
    before = _pid(board)
    board.host.run("systemctl", "kill", "--signal=STOP", "edged")
    began = time.monotonic()
    wait_until(lambda: _pid(board) != before)
    caught = time.monotonic() - began
    wait_until(lambda: board.shows("ActiveState")["ActiveState"] == "active")
    assert f"Watchdog timeout (limit {WATCHDOG:.0f}s)" in board.journal()
    print(f"\na hanging daemon was ended after {caught:.1f} s; WatchdogSec is {WATCHDOG} s")


def test_a_host_that_lost_its_power_serves_again(board: InstalledSite) -> None:
    board.host.kill()
    began = time.monotonic()
    board.host.start()
    wait_until(lambda: board.shows("ActiveState")["ActiveState"] == "active")
    took = time.monotonic() - began
    print(f"\nserves {took:.1f} s after it was switched on")


def test_a_reload_swaps_the_model_and_loses_no_reading(board: InstalledSite, fleet: Fleet, windows: np.ndarray) -> None:
    with entered(fleet.bridge):
        world = World(board, Sensor(board, windows, rows=False, sealed=True, rate=50.0))
        with world:
            wait_until(lambda: len(world.hub.results) > 25)
            board.install(board.pack(version=2))
            board.host.run("systemctl", "reload", "edged")
            wait_until(lambda: world.hub.results[-1].result.version == 2)
            wait_until(lambda: sum(one.result.version == 2 for one in world.hub.results) > 50)
            world.finish(30)
    assert {one.result.version for one in world.hub.results} == {1, 2}
    shown = json.loads(board.host.run("edged", "status", "--json").stdout)
    assert shown["running"] is True


def test_a_configuration_that_is_wrong_is_not_tried_again_and_again(board: InstalledSite) -> None:
    config = board.host.root / "etc/edged/edged.toml"
    config.write_text(config.read_text().replace("[runtime]", "[runtme]"))
    assert board.host.run("systemctl", "restart", "edged", check=False).returncode
    # a unit that systemd will start again is "activating" from its end on
    wait_until(lambda: board.shows("ActiveState")["ActiveState"] == "failed", told=board.journal)
    shown = board.shows("ActiveState", "NRestarts", "ExecMainStatus")
    assert shown == {"ActiveState": "failed", "NRestarts": "0", "ExecMainStatus": "78"}
    assert "did you mean `runtime`?" in board.journal("--lines=20")


def test_a_broker_outside_private_networks_needs_to_be_allowed(board: InstalledSite) -> None:
    board.host.add_address(ELSEWHERE)
    config = board.host.root / "etc/edged/edged.toml"
    config.write_text(config.read_text().replace(board.host.address, ELSEWHERE))
    board.host.run("systemctl", "restart", "edged")
    said = "connected, MQTT 5"
    wait_until(
        lambda: f"broker {ELSEWHERE}:1883: no answer" in board.journal(f"_PID={_pid(board)}"), told=board.journal
    )
    assert said not in board.journal(f"_PID={_pid(board)}")
    example = Path(__file__).parents[2] / "systemd" / "drop-ins" / "broker-elsewhere.conf"
    board.drop_in(example.read_text())
    board.host.run("systemctl", "restart", "edged")
    wait_until(lambda: said in board.journal(f"_PID={_pid(board)}"))
