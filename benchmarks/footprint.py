"""Start and memory of the daemon, against a Python that does nothing but import the libraries that it needs."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from board import Board, windows
from process import pss, running, wait_for_line
from report import Row, ratio

from edged.demo.broker import Mosquitto
from edged.samples import encode_reading

_START_BAR, _MEMORY_BAR = 2.0, 1.2
_TIMEOUT = 10.0
_RUNTIME = "ai_edge_litert" if importlib.util.find_spec("ai_edge_litert") else "tflite_runtime"
IMPORTS = f"import numpy, {_RUNTIME}.interpreter, cryptography.hazmat.primitives.ciphers.aead, paho.mqtt.client"


@dataclass
class _Side:
    seconds: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Start one after the other, in turns. PSS of another user's or a hardened process is root's to read."""
    rounds = 3 if quick else 11
    daemon, bare = _Side(), _Side()
    with Mosquitto(directory, ["allow_anonymous true"], ["set_tcp_nodelay true"]) as broker:
        board = Board(directory / "small", broker.port)
        window = encode_reading(windows(1)[0], "cbor", None)
        for _ in range(rounds):
            bare.seconds.append(_time_imports(directory))
            with board.daemon() as (pid, seconds), board.load() as load:
                daemon.seconds.append(seconds)
                load.run([board.seal(window)], _TIMEOUT)
                daemon.bytes += _pss_if_root(pid)
            bare.bytes += _pss_of_imports(directory)
    return [*_rows_of_start(daemon, bare), *_rows_of_memory(daemon, bare)]


def _time_imports(directory: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=directory, check=True)
    return time.perf_counter() - started


def _pss_of_imports(directory: Path) -> list[float]:
    code = f"{IMPORTS}\nprint('ready', flush=True)\ninput()"
    with running(["-c", code], cwd=directory, log=directory / "imports.log") as process:
        wait_for_line(process, "ready")
        return _pss_if_root(process.pid)


def _pss_if_root(pid: int) -> list[float]:
    return [pss(pid)] if os.geteuid() == 0 else []


def _rows_of_start(daemon: _Side, bare: _Side) -> list[Row]:
    return [
        Row("start: exec to READY / the bare imports", ratio(daemon.seconds, bare.seconds), "x", _START_BAR),
        Row("  exec to READY", statistics.median(daemon.seconds) * 1e3, "ms"),
        Row("  the bare imports, to the end of the process", statistics.median(bare.seconds) * 1e3, "ms"),
    ]


def _rows_of_memory(daemon: _Side, bare: _Side) -> list[Row]:
    if not daemon.bytes:
        print("PSS left out: only root may read it of a daemon that is not dumpable")
        return []
    return [
        Row("memory: PSS after the first result / the bare imports", ratio(daemon.bytes, bare.bytes), "x", _MEMORY_BAR),
        Row("  PSS after the first result", statistics.median(daemon.bytes) / 1e6, "MB"),
        Row("  PSS of the bare imports", statistics.median(bare.bytes) / 1e6, "MB"),
    ]
