"""How long a result is waited for while its model is swapped for a new version, readings coming at a steady rate."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from pathlib import Path

from beside import EVERY, Feeder
from board import Board
from broker import mosquitto
from process import ProcessError, daemon
from report import Row
from subjects import vibration

_BAR = 1.0
_WARM_UP = 100
_COUNT = 300
_PATIENCE = 10.0


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Take the longest wait of each round, in turns with a swap in its middle and without one."""
    rounds = 3 if quick else 21
    steady, swapped, medians = [], [], []
    with mosquitto(directory) as port:
        board = Board(directory / "swap", port, vibration("small"), log="info")
        (place,) = board.places
        with daemon(board.directory) as (pid, _):
            feeder = Feeder(port, place)
            with feeder.link:
                feeder.pace(_WARM_UP)
                for version in range(2, rounds + 2):
                    waits = feeder.pace(_COUNT)
                    medians.append(statistics.median(waits))
                    steady.append(max(waits))
                    board.install(place, version)
                    timer = threading.Timer(_COUNT * EVERY / 2, os.kill, (pid, signal.SIGHUP))
                    timer.start()
                    swapped.append(max(feeder.pace(_COUNT)))
                    timer.join()
                    _wait_for_swap(board.directory / "daemon.log", version)
    longest = statistics.median(swapped)
    return [
        Row("longest wait for a result at a swap, in readings at 200 a second", longest / EVERY, "", _BAR),
        Row("  a result usually", statistics.median(medians) * 1e3, "ms"),
        Row(f"  the longest of {_COUNT} without a swap", statistics.median(steady) * 1e3, "ms"),
        Row(f"  the longest of {_COUNT} with a swap", longest * 1e3, "ms"),
    ]


def _wait_for_swap(log: Path, version: int) -> None:
    until = time.monotonic() + _PATIENCE
    while f"model small {version} " not in log.read_text():
        if time.monotonic() > until:
            raise ProcessError(f"version {version} does not take over: {log.read_text()[-1000:]}")
        time.sleep(0.05)
