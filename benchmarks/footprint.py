"""Start and memory of the daemon, against a Python that does nothing but import the libraries that it needs.

Nothing here imports those libraries itself: a page that two processes map counts half in each one's PSS.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from broker import mosquitto
from load import LoadGenerator
from process import daemon, memory, pss, running, wait_for_line
from report import Row, ratio

_START_BAR, _MEMORY_BAR = 2.0, 1.2
_TIMEOUT = 10.0
_RUNTIME = "ai_edge_litert" if importlib.util.find_spec("ai_edge_litert") else "tflite_runtime"
IMPORTS = f"import numpy, {_RUNTIME}.interpreter, cryptography.hazmat.primitives.ciphers.aead, paho.mqtt.client"
_WAITING = f"{IMPORTS}\nprint('ready', flush=True)\ninput()"


@dataclass
class _Side:
    seconds: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    private: list[float] = field(default_factory=list)

    def look_at(self, pid: int) -> None:
        """Note the memory of a process; PSS of one that is not dumpable is root's to read."""
        self.resident.append(memory(pid, "VmRSS"))
        self.private.append(memory(pid, "RssAnon"))
        if os.geteuid() == 0:
            self.bytes.append(pss(pid))


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Start one after the other, in turns."""
    rounds = 3 if quick else 11
    edged, bare = _Side(), _Side()
    with mosquitto(directory) as port:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            board = pool.submit(_prepare, directory / "small", port, rounds).result()
        for window in board.windows:
            bare.seconds.append(_time_imports(directory))
            with daemon(board.directory) as (pid, seconds), LoadGenerator(port, board.topic, board.results) as load:
                edged.seconds.append(seconds)
                load.run([window], _TIMEOUT)
                edged.look_at(pid)
            with running(("-c", _WAITING), cwd=directory, log=directory / "imports.log") as process:
                wait_for_line(process, "ready")
                bare.look_at(process.pid)
    return [*_rows_of_start(edged, bare), *_rows_of_memory(edged, bare)]


class _Prepared(NamedTuple):
    directory: Path
    topic: str
    results: str
    windows: list[bytes]


def _prepare(directory: Path, port: int, count: int) -> _Prepared:
    """Make a board and its sealed windows in another process: whoever maps a library takes a share of its PSS."""
    from board import Board  # noqa: PLC0415
    from subjects import vibration  # noqa: PLC0415

    (place,) = Board(directory, port, vibration()).places
    return _Prepared(directory, place.topic, place.results, place.sealed(count))


def _time_imports(directory: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=directory, check=True)
    return time.perf_counter() - started


def _rows_of_start(edged: _Side, bare: _Side) -> list[Row]:
    return [
        Row("start: exec to READY / the bare imports", ratio(edged.seconds, bare.seconds), "x", _START_BAR),
        Row("  exec to READY", statistics.median(edged.seconds) * 1e3, "ms"),
        Row("  the bare imports, to the end of the process", statistics.median(bare.seconds) * 1e3, "ms"),
    ]


def _rows_of_memory(edged: _Side, bare: _Side) -> list[Row]:
    """Return PSS, and what explains it: RSS knows no other process, RssAnon no pages of code that come and go."""
    sides = {
        "PSS": (edged.bytes, bare.bytes),
        "RSS": (edged.resident, bare.resident),
        "RssAnon": (edged.private, bare.private),
    }
    if not edged.bytes:
        print("PSS left out: only root may read it of a daemon that is not dumpable")
        del sides["PSS"]
    rows = []
    for name, (ours, theirs) in sides.items():
        bar = _MEMORY_BAR if name == "PSS" else None
        of = "memory: PSS" if bar else f"  {name}"
        rows += [
            Row(f"{of} after the first result / the bare imports", ratio(ours, theirs), "x", bar),
            Row(f"  {name} after the first result", statistics.median(ours) / 1e6, "MB"),
            Row(f"  {name} of the bare imports", statistics.median(theirs) / 1e6, "MB"),
        ]
    return rows
