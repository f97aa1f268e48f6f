"""A model of about 1 ms alone, and beside a training scheduled as edged-federated.service does: reading to result."""

from __future__ import annotations

import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beside import FAST, Feeder, Side, sized
from board import Board
from broker import mosquitto
from process import daemon
from report import Row, ratio

_BAR = 1.5
_WARM_UP = 100
_ROOT = Path(__file__).resolve().parents[1]
_MODEL = _ROOT / "examples" / "federated" / "vibration.tflite"
_UNIT = _ROOT / "systemd" / "edged-federated.service"
_TRAIN = """
import os, sys
import numpy as np
from edged.federated.fit import fit
from edged.federated.order import Plan
from edged.federated.trainer import Trainer
from edged.model.runtime import choose

trainer = Trainer(sys.argv[1], choose())
random = np.random.default_rng(1)
x = random.normal(size=(1000, *trainer.inputs)).astype(np.float32)
y = np.eye(*trainer.outputs, dtype=np.float32)[random.integers(0, trainer.outputs[0], 1000)]
plan = Plan(epochs=20, batch=16, rate=0.01, clip=1.0, noise=1.0)
os.nice(19)
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
print("trains", flush=True)
while True:
    fit(trainer, trainer.weights(), x, y, plan, random)
"""


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Send readings at a steady rate, in turns with training on every CPU that is left and without any."""
    rounds, count = (2, 200) if quick else (9, 300)
    fast = sized(directory, "fast", 128, FAST)
    alone, beside = Side(), Side()
    with mosquitto(directory) as port:
        board = Board(directory / "learning", port, fast, log="info")
        with daemon(board.directory), _training() as training:
            one = Feeder(port, board.places[0])
            with one.link:
                one.pace(_WARM_UP)
                for _ in range(rounds):
                    training.send_signal(signal.SIGSTOP)
                    alone.note(one.pace(count))
                    training.send_signal(signal.SIGCONT)
                    beside.note(one.pace(count))
    return [
        Row("median beside a training / alone", ratio(beside.median, alone.median), "x", _BAR),
        Row("  p99 beside / alone", ratio(beside.high, alone.high), "x"),
        *(
            Row(f"  {what} {how}, from the reading to its result", statistics.median(times) * 1e3, "ms")
            for how, side in (("alone", alone), ("beside", beside))
            for what, times in (("median", side.median), ("p99", side.high))
        ),
    ]


@contextmanager
def _training() -> Iterator[subprocess.Popen[str]]:
    """Train without an end, with what CPU nobody else wants, as the unit says."""
    unit = _UNIT.read_text()
    if not (re.search("^CPUSchedulingPolicy=idle$", unit, re.MULTILINE) and re.search("^Nice=19$", unit, re.MULTILINE)):
        raise ValueError(f"{_UNIT} schedules training otherwise than it is measured here")
    child = subprocess.Popen([sys.executable, "-c", _TRAIN, _MODEL], stdout=subprocess.PIPE, text=True)
    try:
        if child.stdout is None or child.stdout.readline() != "trains\n":
            raise ValueError("the training did not begin")
        yield child
    finally:
        child.kill()
        child.wait()
