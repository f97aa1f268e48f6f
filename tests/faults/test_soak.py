"""For half an hour: many readings, versions that change, connections that end. Nothing grows, nothing is lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.formats.channel.receiver import Opened
from edged.formats.channel.result import Sealed
from support.broker import PlainBroker
from support.faults import LONG, Board, Sensor, World, often
from support.hub import Hub
from support.site import Site

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(3000)]

SECONDS = often(20, 1800)
RATE = often(200, 500)
SWAP_EVERY = often(8, 60)
_WARM = 0.2
"""Share of the time after which memory is watched."""
_SLOPE = 1.0
"""MB an hour by which resident memory may grow."""


class CountingHub(Hub):
    """Remembers of each result only what it answers."""

    def __init__(self, *sites: Site, **options: Any) -> None:
        super().__init__(*sites, **options)
        self.names: Counter[object] = Counter()
        self.versions: set[int] = set()

    def _keep(self, opened: Opened) -> None:
        of = opened.result.input
        self.names[(of.first, of.last) if isinstance(of, Sealed) else of.digest] += 1
        self.versions.add(opened.result.version)


class NamingSensor(Sensor):
    """Remembers of each reading only what its result will call it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.names: list[object] = []

    def send_if_due(self) -> None:
        before = len(self.sent)
        super().send_if_due()
        for number in range(before, len(self.sent)):
            self.names.append(self._name([self.sent[number]]))
            self.sent[number] = b""

    def expected(self) -> list[object]:
        return self.names


class SoakWorld(World):
    """Asks the hub for the counts that it has already."""

    def answered(self) -> Counter[object]:
        assert isinstance(self.hub, CountingHub)
        return self.hub.names


def _figures(pid: int) -> tuple[float, int, int]:
    """Return resident MB, open files, and bytes written to the disk."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    written = next(
        int(line.split()[1])
        for line in Path(f"/proc/{pid}/io").read_text().splitlines()
        if line.startswith("write_bytes")
    )
    return resident / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())), written


def test_hours_of_readings_swaps_and_reconnects_leave_memory_and_files_as_they_were(
    tmp_path: Path, models: Path, windows: np.ndarray
) -> None:
    for name in ("broker", "site"):
        (tmp_path / name).mkdir()
    options = ("persistence true", "max_queued_messages 0", "max_inflight_messages 0")
    with PlainBroker(tmp_path / "broker", options=options) as broker:
        site = Site(tmp_path / "site", models, broker.url)
        site.configure('format = "f32le"\neach = "window"\nsensor = "sensor.key"\ntrial = { windows = 10 }\n')
        site.init()
        site.install(site.pack())
        sensor = NamingSensor(site, windows, rows=False, sealed=True, rate=RATE)
        hub = CountingHub(site, client_id="hub", session_expiry=3600)
        board = Board(site.path)
        runtime = tmp_path / "runtime"
        runtime.mkdir()
        board = Board(site.path, environment={"RUNTIME_DIRECTORY": str(runtime)})
        with board.running() as _, SoakWorld(site, sensor, hub=hub) as world:
            assert board.daemon is not None
            began = time.monotonic()
            next_swap, next_cut, version = began + SWAP_EVERY, began + 5, 1
            samples: list[tuple[float, float, int, int]] = []
            while (now := time.monotonic()) < began + SECONDS:
                if now >= next_swap:
                    version += 1
                    next_swap += SWAP_EVERY
                    site.install(site.pack(version=version))
                if now >= next_cut:
                    next_cut = now + random.uniform(5, often(10, 120))
                    broker.stop()
                    broker.start()
                if now >= began + SECONDS * _WARM:
                    samples.append((now, *_figures(board.daemon.pid)))
                time.sleep(1)
            world.finish(120)
    times, resident, files, written = (np.array(column) for column in zip(*samples, strict=True))
    slope = float(np.polyfit(times / 3600, resident, 1)[0])
    hours = (times[-1] - times[0]) / 3600
    print(
        f"\n{len(sensor.names)} readings in {SECONDS} s, {version} versions, of which {len(hub.versions)} answered:"
        f" 0 lost, 0 twice; resident {resident[0]:.1f} to {resident[-1]:.1f} MB, {slope:+.2f} MB an hour;"
        f" files {files.min()} to {files.max()}; {(written[-1] - written[0]) / hours / 1e6:.2f} MB written an hour"
    )
    half = len(files) // 2
    assert np.median(files[half:]) <= np.median(files[:half]) + 1, "what a load opens it opens for a moment"
    if LONG:  # a slope over seconds says nothing
        assert slope < _SLOPE
