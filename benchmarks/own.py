"""What edged itself costs beside the runtime's invoke: a window inside one process, and a message in the daemon.

Inside one process the daemon's own lanes answer sealed readings; the broker's client alone is left out. What the
interpreter takes to fill its tensors, invoke and hand out copies is measured in turns with it, and taken off. From the
live daemon's CPU time the same is taken off, as measured here: the daemon itself is not disturbed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from board import Board, Place
from broker import mosquitto
from inside import Inside, Tensors
from load import LoadGenerator
from process import cpu_seconds, daemon
from report import Row
from subjects import CHANNELS, FIVE_FEATURES, LABELS, Subject, keywords, pictures, real_models, vibration

_BAR = 40.0
_DISTINCT = 64
_TIMEOUT = 30.0
_BLOCK = 0.01
"""CPU seconds of a block of windows: short, so that both sides of a difference meet the same machine."""
_RUNTIMES = {"litert": "LiteRT", "tflite": "tflite-runtime"}
_MODELS = {
    "dense": "dense model on 128x6 float32",
    "features": "dense model on five features of 128x6 float32",
    "keywords": "kws on 49x10 float32",
    "pictures": "ic_resnet on raw 32x32x3",
}


@dataclass
class _Measured:
    """One model, CPU seconds a window of each block, and CPU seconds a message of each round.

    :ivar all: of everything, inside this process.
    :ivar invoke: of the interpreter, inside this process.
    :ivar live: of the daemon, with the interpreter's beside it.
    """

    place: Place
    load: LoadGenerator
    tensors: list[Tensors]
    all: list[float] = field(default_factory=list)
    invoke: list[float] = field(default_factory=list)
    live: list[tuple[float, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The model's name, which is its channel too."""
        return self.place.subject.name


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Measure all models in turns: inside this process, then in one daemon."""
    blocks, rounds, seconds = (30, 2, 0.3) if quick else (100, 5, 0.6)
    with ExitStack() as stack:
        port = stack.enter_context(mosquitto(directory))
        # no model has a thread of its own: all are measured on the same way
        board = Board(directory / "own", port, *_subjects(), slow="1 s")
        inside = stack.enter_context(closing(Inside(board.directory)))
        measured = []
        for place in board.places:
            tensors = inside.tensors(place.subject.name, place.topic, place.sealed(_DISTINCT))
            measured.append(_Measured(place, stack.enter_context(place.load()), tensors))
        for _ in range(blocks):
            for one in measured:
                _block(inside, one)
        pid, _ = stack.enter_context(daemon(board.directory))
        for one in measured:
            one.load.run(one.place.sealed(_DISTINCT), _TIMEOUT)
        for _ in range(rounds):
            for one in measured:
                _round(inside, one, pid, seconds)
    runtime = f"{_RUNTIMES[inside.engine.name]} {inside.engine.version}"
    return [row for one in measured for row in _rows(one, runtime)]


def _subjects() -> Iterator[Subject]:
    yield vibration("dense")
    layers = (CHANNELS * len(FIVE_FEATURES), 16, LABELS)
    yield vibration("features", layers=layers, features=FIVE_FEATURES)
    folder = real_models()
    if folder is None:
        print("own: kws and ic_resnet left out: ../shared/models is absent, and EDGED_MODELS names no other folder")
        return
    yield keywords(folder)
    yield pictures(folder)


def _block(inside: Inside, one: _Measured) -> None:
    """Answer some windows, and give the interpreter as many."""
    count = max(5, int(_BLOCK / one.all[0])) if one.all else _DISTINCT
    one.all.append(inside.serve(one.place.topic, one.place.sealed(count)) / count)
    one.invoke.append(inside.invoke(one.name, list(islice(cycle(one.tensors), count))) / count)


def _round(inside: Inside, one: _Measured, pid: int, seconds: float) -> None:
    """Have the daemon answer windows for about as many seconds; the interpreter's share is measured again beside it."""
    count = int(seconds / statistics.median(one.all))
    sealed = one.place.sealed(count)
    before = cpu_seconds(pid)
    one.load.run(sealed, _TIMEOUT)
    cpu = (cpu_seconds(pid) - before) / count
    again = max(1, count // 4)
    one.live.append((cpu, inside.invoke(one.name, list(islice(cycle(one.tensors), again))) / again))


def _rows(one: _Measured, runtime: str) -> Iterator[Row]:
    what = _MODELS[one.name]
    own = statistics.median(a - b for a, b in zip(one.all, one.invoke, strict=True))
    share = statistics.median((a - b) / a for a, b in zip(one.all, one.invoke, strict=True))
    live = statistics.median((cpu - invoke) / cpu for cpu, invoke in one.live)
    yield Row(
        f"edged's own work on a window, {what}, {runtime}", own * 1e6, "us", _BAR if one.name == "dense" else None
    )
    yield Row("  the interpreter's beside it", statistics.median(one.invoke) * 1e6, "us")
    yield Row("  edged's own share, without a broker", share * 100, "%")
    yield Row("  CPU per message of the live daemon", statistics.median(cpu for cpu, _ in one.live) * 1e6, "us")
    yield Row("  share of it that is not the interpreter's: edged and its broker client", live * 100, "%")
