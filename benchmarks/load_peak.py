"""How far memory rises while a model of 100 MB is loaded, watched from outside, relative to the model's size."""

from __future__ import annotations

import importlib.util
import os
import select
import statistics
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from board import Board
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from process import memory, reset_peak, running, wait_for_line
from report import Row
from subjects import CHANNELS, LABELS, ROWS, vibration

_LAYERS = {
    "float32": (ROWS * CHANNELS, 4096, 4096, 1280, LABELS),  # 25.2 million weights
    "int8": (ROWS * CHANNELS, 8192, 8192, 3072, LABELS),  # 98.6 million
}
_QUICK_LAYERS = {
    "float32": (ROWS * CHANNELS, 2048, 2048, 640, LABELS),
    "int8": (ROWS * CHANNELS, 4096, 4096, 1536, LABELS),
}
_CHILD = Path(__file__).with_name("load_child.py")
_SAMPLE_EVERY = 0.0005
_RUNTIMES = {
    "tflite": ("tflite_runtime", "tflite-runtime", 1.1),
    "litert": ("ai_edge_litert", "LiteRT", 2.1),
}
_NO_PORT = 1


class _Rise(NamedTuple):
    """By how many bytes RssAnon + RssShmem, and all that is resident, rose at most during one load."""

    private: int
    everything: int


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Load in turns: each runtime that is installed, as edged does and as one would by hand.

    Float32 has the bars; what a runtime packs differs from dtype to dtype, so int8 stands beside it.
    """
    rounds, layers = (1, _QUICK_LAYERS) if quick else (3, _LAYERS)
    boards = {
        kind: Board(directory / kind, _NO_PORT, vibration(layers=sizes, int8=kind == "int8"))
        for kind, sizes in layers.items()
    }
    engines = [engine for engine, (module, *_) in _RUNTIMES.items() if importlib.util.find_spec(module)]
    ways = [(kind, how, engine) for kind in boards for how in ("edged", "by hand") for engine in engines]
    for board in boards.values():
        _seal_by_hand(board)
    rises: dict[tuple[str, str, str], list[_Rise]] = defaultdict(list)
    for _ in range(rounds):
        for kind, how, engine in ways:
            rises[kind, how, engine].append(_load_once(boards[kind], how, engine))
    rows, explained = [], []
    for kind, how, engine in ways:
        _, runtime, bar = _RUNTIMES[engine]
        size = boards[kind].places[0].model.stat().st_size
        what = f"{size / 1e6:.0f} MB of {kind} on {runtime}"
        private = statistics.median(rise.private for rise in rises[kind, how, engine]) / size
        everything = statistics.median(rise.everything for rise in rises[kind, how, engine]) / size
        if how == "edged" and kind == "float32":
            rows.append(Row(f"load of {what}: peak of RssAnon + RssShmem / model", private, "x", bar))
        else:
            explained.append(Row(f"  {what}, {how}", private, "x"))
        explained.append(Row(f"  {what}, {how}: VmHWM, so with pages of files", everything, "x"))
    return rows + explained


def _seal_by_hand(board: Board) -> None:
    key, nonce = AESGCM.generate_key(256), os.urandom(12)
    (board.directory / "by-hand.key").write_bytes(key)
    (board.directory / "by-hand.bin").write_bytes(
        nonce + AESGCM(key).encrypt(nonce, board.places[0].model.read_bytes(), None)
    )


def _load_once(board: Board, how: str, engine: str) -> _Rise:
    with running(
        (_CHILD, how, engine, board.directory), cwd=board.directory, log=board.directory / "child.log"
    ) as process:
        wait_for_line(process, "ready")
        pid = process.pid
        reset_peak(pid)
        before, before_all = _private(pid), memory(pid, "VmRSS")
        _go_on(process)
        peak = before
        while not _has_spoken(process):
            peak = max(peak, _private(pid))
            time.sleep(_SAMPLE_EVERY)
        wait_for_line(process, "loaded")
        return _Rise(max(peak, _private(pid)) - before, memory(pid, "VmHWM") - before_all)


def _private(pid: int) -> int:
    return memory(pid, "RssAnon", "RssShmem")


def _go_on(process: subprocess.Popen[str]) -> None:
    if process.stdin:
        process.stdin.write("\n")
        process.stdin.flush()


def _has_spoken(process: subprocess.Popen[str]) -> bool:
    return bool(process.stdout and select.select([process.stdout], [], [], 0)[0])
