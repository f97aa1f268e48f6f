"""A model of about 1 ms alone, and beside one of about 200 ms in the same daemon: from a reading to its result."""

from __future__ import annotations

import re
import select
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import models
import numpy as np
from board import Board, Place
from broker import mosquitto
from link import Link, LoadError
from process import ProcessError, daemon
from report import Row, ratio
from subjects import CHANNELS, LABELS, Subject, heavy

from edged.model.runtime import Interpreter, choose

_BAR = 2.0
FAST, _SLOW = 0.001, 0.2
"""Seconds of a window that the two models are to take."""
EVERY = 0.005
"""Seconds from one reading of the fast model to the next, on average."""
_BUSY = 2
"""Windows of the slow model on their way: one that it is at, and one that waits."""
_WIDTH, _LAST = 512, 8
_TIMEOUT = 10.0
_WARM_UP = 100


@dataclass
class Side:
    """Seconds from a reading to its result, of each round: without the slow load, or beside it."""

    median: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def note(self, seconds: Sequence[float]) -> None:
        """Take a round's."""
        self.median.append(float(np.percentile(seconds, 50)))
        self.high.append(float(np.percentile(seconds, 99)))


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Send readings to the fast model at a steady rate, in turns with the slow one busy and idle."""
    rounds, count = (2, 200) if quick else (9, 300)
    fast = sized(directory, "fast", 128, FAST)
    slow = sized(directory, "slow", 2048, _SLOW)
    alone, beside = Side(), Side()
    with mosquitto(directory) as port:
        board = Board(directory / "beside", port, fast, slow, log="info")
        with daemon(board.directory):
            one, busy = (Feeder(port, place) for place in board.places)
            with one.link, busy.link:
                one.pace(_WARM_UP)
                for _ in range(rounds):
                    alone.note(one.pace(count))
                    beside.note(one.pace(count, busy))
                    busy.finish()
        took = _self_tests(board.directory)
    return [
        Row("p99 of a 1 ms model beside a busy one of 200 ms / alone", ratio(beside.high, alone.high), "x", _BAR),
        Row("  median beside / alone", ratio(beside.median, alone.median), "x"),
        *(
            Row(f"  {what} {how}, from the reading to its result", statistics.median(times) * 1e3, "ms")
            for how, side in (("alone", alone), ("beside", beside))
            for what, times in (("median", side.median), ("p99", side.high))
        ),
        *(Row(f"  the {name} model's window, as its self-test says", took[name], "ms") for name in ("fast", "slow")),
        Row("  windows of the slow model meanwhile", busy.answered, ""),
    ]


def sized(directory: Path, name: str, rows: int, seconds: float) -> Subject:
    """Return a model of as many layers as take about so many seconds a window on this machine."""
    path = directory / f"{name}.tflite"
    took = []
    few, many = 2, 6
    for layers in (few, many):
        models.dense(path, _layers(layers), rows=rows)
        took.append(_best_run(path))
    layer = (took[1] - took[0]) / (many - few)
    return heavy(name, rows, _layers(max(1, round(few + (seconds - took[0]) / layer))))


def _layers(count: int) -> list[int]:
    return [CHANNELS, *[_WIDTH] * count, _LAST, LABELS]


def _best_run(path: Path) -> float:
    """Return the seconds of the quickest of some runs: what else the machine does must not size the model."""
    interpreter = Interpreter(choose(), str(path))
    tensor = np.ones(interpreter.inputs[0].shape, np.float32)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        interpreter.run(tensor)
        times.append(time.perf_counter() - started)
    interpreter.close()
    return min(times)


class Feeder:
    """Sends one model its readings, and takes their results, which come in the readings' order.

    :ivar answered: results so far.
    """

    def __init__(self, port: int, place: Place) -> None:
        self.link = Link(port, place.topic, place.results)
        self.answered = 0
        self._place = place
        self._sent: deque[float] = deque()

    def send(self) -> None:
        """Send a reading."""
        packet = self.link.packet(*self._place.sealed(1))
        self._sent.append(time.perf_counter())
        self.link.socket.sendall(packet)

    def take(self) -> list[float]:
        """Take the results that are there; return for each how many seconds it took."""
        count = self.link.count()
        now = time.perf_counter()
        self.answered += count
        return [now - self._sent.popleft() for _ in range(count)]

    def keep_busy(self) -> None:
        """Have as many readings on their way as keep the model busy."""
        while len(self._sent) < _BUSY:
            self.send()

    def finish(self) -> list[float]:
        """Wait for all results, as :meth:`take`.

        :raises LoadError: they do not come.
        """
        seconds: list[float] = []
        while self._sent:
            if not select.select([self.link], [], [], _TIMEOUT)[0]:
                raise LoadError(f"no result within {_TIMEOUT:.0f} s")
            seconds += self.take()
        return seconds

    def pace(self, count: int, beside: Feeder | None = None, *, every: float = EVERY) -> list[float]:
        """Send ``count`` readings, one after the other whatever becomes of them; return the seconds that each took.

        :param beside: is kept busy meanwhile.
        :param every: seconds from one to the next, on average.
        :raises LoadError: results do not come.
        """
        gaps = np.random.default_rng(3).uniform(0.5, 1.5, count) * every  # not in step with the other model
        links = [self.link] if beside is None else [self.link, beside.link]
        seconds: list[float] = []
        due = time.perf_counter()
        for gap in gaps:
            due += float(gap)
            while (left := due - time.perf_counter()) > 0:
                if beside is not None:
                    beside.keep_busy()
                ready = select.select(links, [], [], left)[0]
                if self.link in ready:
                    seconds += self.take()
                if beside is not None and beside.link in ready:
                    beside.take()
            self.send()
        return seconds + self.finish()


def _self_tests(directory: Path) -> dict[str, float]:
    """Return the milliseconds a window of both models, as the daemon's log has them.

    :raises ProcessError: one of them is not served as it should be: another size, on a machine that is too busy.
    """
    log = (directory / "daemon.log").read_text()
    found = re.findall(r"model (\w+) 1 on .* ([\d.]+) ms a window, in (a thread of its own|the main loop)", log)
    if {name: where for name, _, where in found} != {"fast": "the main loop", "slow": "a thread of its own"}:
        raise ProcessError(f"the fast model is not in the main loop, or the slow one is: {log[-1000:]}")
    return {name: float(took) for name, took, _ in found}
