"""The uplink is away for long, nobody listens, the disk fails: results wait, inference goes on, and all comes back."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edged.base.errors import DuplicateDeviceError, ReplayError
from support.broker import PlainBroker
from support.disk import fill
from support.faults import Board, Sensor, World, often, stored
from support.hub import Hub
from support.site import Site
from support.waiting import PATIENCE

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1200)]

HOUR = often(300, 36_000)
"""Results of an outage: an hour's worth at 10 a second, sent faster."""
RATE = 200.0
_WINDOWS = 'format = "f32le"\neach = "window"\nsensor = "sensor.key"\n'
_DRAINED_WITHIN = 60.0


@pytest.fixture
def uplink(tmp_path: Path) -> Iterator[PlainBroker]:
    """The broker that results go to. It is stopped here, never killed: it need not write with each message."""
    directory = tmp_path / "uplink"
    directory.mkdir()
    with PlainBroker(directory, options=("persistence true", "max_queued_messages 0")) as running:
        yield running


def _world(site: Site, windows: np.ndarray, uplink: PlainBroker, *, outbox: str = "64 MB") -> World:
    extra = f'[uplink]\nurl = "{uplink.url}"\n'
    site.configure(_WINDOWS, extra=extra)
    config = site.path / "edged.toml"
    text = config.read_text().replace(
        'hubs = ["home.pub"]', f'hubs = ["home.pub"]\nheartbeat = "1 s"\noutbox = {{ size = "{outbox}" }}'
    )
    config.write_text(text)
    site.init()
    site.install(site.pack())
    sensor = Sensor(site, windows, rows=False, sealed=True, rate=RATE)
    return World(site, sensor, hub=Hub(site, url=uplink.url, client_id="hub", session_expiry=3600))


@pytest.mark.parametrize("restarts", [False, True])
def test_an_outage_of_the_uplink_costs_no_result(
    quick_site: Site, windows: np.ndarray, uplink: PlainBroker, *, restarts: bool
) -> None:
    """Also where the board is switched off and on meanwhile: its announcements of earlier keys travel with them.

    The sensors' broker is not killed, and writes nothing: one that writes its store for each message is what would be
    measured here (35 readings a second from a backlog of 3,000).
    """
    world = _world(quick_site, windows, uplink)
    board = Board(quick_site.path)
    with board.running(), world:
        world.wait_answered(20)
        uplink.stop()
        for half in (1, 2):
            world.wait_sent(HOUR // 2, HOUR / RATE * 2 + PATIENCE)
            if restarts and half == 1:
                board.kill()
                board.start()
        world.pause()
        world.wait(lambda: stored(quick_site) > HOUR * 0.95)
        uplink.start()
        drained = world.wait(lambda: len(world.answered()) >= len(world.sensor.sent), _DRAINED_WITHIN + 60)
        world.finish(30)
        late = sum(one.result.late for one in world.hub.results)
    assert late >= HOUR * 0.9
    print(f"\noutage of {HOUR} results: 0 lost, 0 twice, {late} late, drained in {drained:.1f} s")


def test_beyond_the_outboxs_size_what_is_missing_is_what_was_counted(
    site: Site, windows: np.ndarray, uplink: PlainBroker
) -> None:
    world = _world(site, windows, uplink, outbox="100 kB")
    board = Board(site.path)
    count = often(600, 5000)
    with board.running(), world:
        world.wait_answered(20)
        uplink.stop()
        world.wait_sent(count)
        world.pause()
        assert board.daemon is not None
        board.daemon.wait_for(f"{len(world.sensor.sent)} messages")
        uplink.start()
        world.wait(lambda: world.hub.reports and world.hub.reports[-1].dropped and not world.hub.reports[-1].waiting)
        dropped = world.hub.reports[-1].dropped
        world.wait(lambda: len(world.answered()) + dropped >= len(world.sensor.sent))
        answered = world.answered()
        missing = [number for number, one in enumerate(world.sensor.expected()) if one not in answered]
    assert 0 < len(missing) == dropped
    assert all(later == number + 1 for number, later in pairwise(missing)), "the oldest go first"
    print(f"\n{count} results and room for fewer: {dropped} dropped, {len(missing)} missing")


def test_results_wait_for_a_hub_that_subscribes(site: Site, windows: np.ndarray) -> None:
    """MQTT 5 says that nobody gets a message: it is not thrown away."""
    site.configure(_WINDOWS)
    site.init()
    site.install(site.pack())
    sensor = Sensor(site, windows, rows=False, sealed=True, rate=50)
    board = Board(site.path)
    with board.running() as running:
        sensor.client.connect()
        while len(sensor.sent) < 150 or sensor.client.pending:
            sensor.client.run_once(0.01)
            sensor.send_if_due()
            sensor.paused = len(sensor.sent) >= 150
        assert running.daemon is not None
        with World(site, sensor) as world:
            world.finish(30)
    print(f"\n{len(sensor.sent)} results waited for their hub")


# --- the disk --------------------------------------------------------------------------------


@pytest.mark.root
def test_a_disk_that_is_full_stops_no_result_and_what_follows_needs_no_hand(
    site: Site, windows: np.ndarray, uplink: PlainBroker, small_disk: Path
) -> None:
    site.state = small_disk / "state"
    world = _world(site, windows, uplink)
    world.sensor.rate = 50
    with Board(site.path).running(), world:
        world.wait_answered(20)
        fill(small_disk)
        uplink.stop()  # results are to be stored now, and cannot be
        world.wait_sent(50)
        uplink.start()
        world.wait_answered(100)
        world.wait(lambda: any(report.degraded for report in world.hub.reports))
        (small_disk / "filler").unlink()
        world.wait(lambda: not world.hub.reports[-1].degraded)
        world.finish(60)
    site.edged("audit", "--verify", "-c", "edged.toml")
    print(f"\ndisk full: {len(world.sensor.sent)} readings, 0 lost, 0 twice")


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """An ext4 in a file; the kernel makes it read-only when an error is written to the second path."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4, to mount a file system")
    image, path = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    path.mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, path], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts no file as a file system")
    device = subprocess.run(["findmnt", "-no", "SOURCE", path], check=True, capture_output=True, text=True).stdout
    yield path, Path("/sys/fs/ext4", Path(device.strip()).name, "trigger_fs_error")
    subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.root
def test_a_disk_that_the_kernel_makes_read_only_stops_no_result(
    site: Site, windows: np.ndarray, uplink: PlainBroker, failing_disk: tuple[Path, Path]
) -> None:
    """As it does with a card that fails. It stays so until the board is started anew."""
    disk, trigger = failing_disk
    site.state = disk / "state"
    world = _world(site, windows, uplink)
    world.sensor.rate = 50
    board = Board(site.path)
    with board.running(), world:
        world.wait_answered(20)
        trigger.write_text("1")
        world.wait_answered(100)
        uplink.stop()
        world.wait_sent(50)
        uplink.start()
        world.wait(lambda: any(report.degraded for report in world.hub.reports))
        board.kill()
        board.start()
        world.wait_answered(100)
        world.finish(60)
    print(f"\ndisk read-only: {len(world.sensor.sent)} readings, 0 lost, 0 twice")


@pytest.mark.root
def test_a_board_whose_disk_is_read_only_at_its_start_serves_all_the_same(
    site: Site, windows: np.ndarray, uplink: PlainBroker, small_disk: Path
) -> None:
    site.state = small_disk / "state"
    world = _world(site, windows, uplink)
    world.sensor.rate = 50
    board = Board(site.path)
    with board.running(), world:
        world.wait_answered(20)
        world.finish(30)
        board.kill()
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        board.start()
        world.sensor.paused = False
        world.wait(lambda: any(report.degraded for report in world.hub.reports))
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        world.wait(lambda: not world.hub.reports[-1].degraded)
        world.finish(60)


def _damage(state: Path) -> None:
    """Overwrite the middle of the database."""
    database = sqlite3.connect(state / "state.db")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with (state / "state.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(16 * 4096))


@pytest.mark.parametrize("running", [False, True])
def test_a_damaged_state_is_begun_anew_and_older_packages_stay_refused(
    site: Site, windows: np.ndarray, uplink: PlainBroker, *, running: bool
) -> None:
    """What is installed sets the floor; what stood in the file alone is lost, and the board says so."""
    # where the clock is not synchronised the epoch begins at 1 again, until the board has seen its own announcement
    expected = (ReplayError, DuplicateDeviceError)
    world = _world(site, windows, uplink)
    world.sensor.rate = 50
    board = Board(site.path)
    shutil.copy(site.path / "gearbox-1.edged", site.path / "old.edged")
    site.install(site.pack(version=2))
    with board.running(), world:
        world.wait_answered(20)
        if running:
            _damage(site.state)
            uplink.stop()  # results are to be stored now, and cannot be
            world.wait_sent(50)
            uplink.start()
            world.finish(60, refusals=expected)
        else:
            world.finish(30, refusals=expected)
            board.kill()
            _damage(site.state)
            board.start()
            world.sensor.paused = False
            world.wait_sent(50)
            world.finish(60, refusals=expected)
        assert site.install(site.path / "old.edged", check=False).returncode != 0
        world.wait(lambda: stored(site) == 0)
    assert (site.state / "state.db.damaged").exists()
