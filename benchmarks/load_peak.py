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

from board import CHANNELS, LABELS, ROWS, Board
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from process import memory, reset_peak, running, wait_for_line
from report import Row

_LAYERS = (ROWS * CHANNELS, 4096, 4096, 1280, LABELS)  # 25.2 million weights
_SMALLER = (ROWS * CHANNELS, 2048, 2048, 640, LABELS)
_CHILD = Path(__file__).with_name("load_child.py")
_SAMPLE_EVERY = 0.0005
_RUNTIMES = {
    "tflite": ("tflite_runtime", "tflite-runtime", 1.1),
    "litert": ("ai_edge_litert", "LiteRT", 2.1),
}
_NO_PORT = 1


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Load in turns: each runtime that is installed, as edged does and as one would by hand."""
    rounds, layers = (1, _SMALLER) if quick else (3, _LAYERS)
    board = Board(directory / "large", _NO_PORT, layers=layers)
    _seal_by_hand(board)
    size = board.model.stat().st_size
    engines = [engine for engine, (module, *_) in _RUNTIMES.items() if importlib.util.find_spec(module)]
    rises: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for _ in range(rounds):
        for engine in engines:
            for how in ("edged", "by-hand"):
                private, peak = _load_once(board, how, engine)
                rises[how, engine].append((private / size, peak / size))
    rows, explained = [], []
    for engine in engines:
        _, name, bar = _RUNTIMES[engine]
        of = f"load of a model of {size / 1e6:.0f} MB on {name}"
        private, peak = map(statistics.median, zip(*rises["edged", engine], strict=True))
        rows.append(Row(f"{of}: peak of RssAnon + RssShmem / model", private, "x", bar))
        explained.append(Row(f"  {of}: rise of VmHWM, with the package's own pages of the file", peak, "x"))
        private, peak = map(statistics.median, zip(*rises["by-hand", engine], strict=True))
        explained.append(Row(f"  {of}: read, decrypt and model_content=, by hand", private, "x"))
    return rows + explained


def _seal_by_hand(board: Board) -> None:
    key, nonce = AESGCM.generate_key(256), os.urandom(12)
    (board.directory / "by-hand.key").write_bytes(key)
    (board.directory / "by-hand.bin").write_bytes(nonce + AESGCM(key).encrypt(nonce, board.model.read_bytes(), None))


def _load_once(board: Board, how: str, engine: str) -> tuple[int, int]:
    """Return by how many bytes RssAnon + RssShmem, and VmHWM, rose at most."""
    with running((_CHILD, how, engine, board.directory), cwd=board.directory, log=board.log) as process:
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
        return max(peak, _private(pid)) - before, memory(pid, "VmHWM") - before_all


def _private(pid: int) -> int:
    return memory(pid, "RssAnon", "RssShmem")


def _go_on(process: subprocess.Popen[str]) -> None:
    if process.stdin:
        process.stdin.write("\n")
        process.stdin.flush()


def _has_spoken(process: subprocess.Popen[str]) -> bool:
    return bool(process.stdout and select.select([process.stdout], [], [], 0)[0])
