"""What the promises about loss cost: the daemon with them and without, over TLS, in turns; how long results take."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from beside import Feeder
from board import Board
from broker import free_port
from load import LoadGenerator
from process import cpu_seconds, daemon
from report import Row, ratio
from subjects import cbor, vibration, windows

from edged.demo.broker import PrivateBroker

_BAR = 1.15
_TIMEOUT = 30.0
_DISTINCT = 64
_WARM_UP = 300
_SLOW_RATE = 100.0
_SHARE = 0.8
_CARELESS = Path(__file__).with_name("careless.py")


@dataclass
class _Side:
    """One of the two daemons: CPU seconds a message and results a second of each round."""

    board: Board
    program: tuple[object, ...]
    pid: int = 0
    load: LoadGenerator | None = None
    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)

    def play(self, count: int) -> None:
        """Answer ``count`` windows."""
        (place,) = self.board.places
        readings = [cbor(window) for window in windows(_DISTINCT)]
        sealed = [place.seal(reading) for reading in islice(cycle(readings), count)]
        before = cpu_seconds(self.pid)
        assert self.load is not None
        run = self.load.run(sealed, _TIMEOUT)
        self.cpu.append((cpu_seconds(self.pid) - before) / count)
        self.rate.append(run.rate)


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Play rounds in turns, then send readings at steady rates."""
    rounds, seconds, paced = (3, 0.7, 200) if quick else (9, 2.0, 2000)
    with ExitStack() as stack:
        broker, port = _tls_broker(directory)
        stack.enter_context(broker)
        sides = []
        for name, program in (("with", ("-m", "edged")), ("without", (_CARELESS,))):
            side = _Side(_over_tls(Board(directory / name, port, vibration()), broker, name), program)
            side.pid, _ = stack.enter_context(daemon(side.board.directory, program))
            side.load = stack.enter_context(side.board.places[0].load())
            for _ in range(2):
                side.play(_WARM_UP)
            sides.append(side)
        counts = [int(side.rate[-1] * seconds) for side in sides]
        for side in sides:
            side.cpu.clear()
            side.rate.clear()
        for _ in range(rounds):
            for side, count in zip(sides, counts, strict=True):
                side.play(count)
        promised, careless = sides
        highest = statistics.median(promised.rate)
        feeder = Feeder(port, promised.board.places[0])
        stack.enter_context(feeder.link)
        waits = {
            what: feeder.pace(paced, every=1 / rate)
            for what, rate in (("100 readings a second", _SLOW_RATE), ("80 % of the highest rate", _SHARE * highest))
        }
    return list(_rows(promised, careless, waits))


def _rows(promised: _Side, careless: _Side, waits: dict[str, list[float]]) -> Iterator[Row]:
    yield Row("CPU per message over TLS: with the promises / without", ratio(promised.cpu, careless.cpu), "x", _BAR)
    yield Row("QoS 1 rate over TLS: without the promises / with", ratio(careless.rate, promised.rate), "x", _BAR)
    for name, side in (("with", promised), ("without", careless)):
        yield Row(f"  CPU per message, {name}", statistics.median(side.cpu) * 1e6, "us")
        yield Row(f"  rate, {name}", statistics.median(side.rate), "/s")
    for what, seconds in waits.items():
        for percent in (50, 99):
            yield Row(
                f"  p{percent} from reading to result at {what}", float(np.percentile(seconds, percent)) * 1e3, "ms"
            )


def _tls_broker(directory: Path) -> tuple[PrivateBroker, int]:
    """Return a broker that takes boards over TLS and the load generator, which must be no bottleneck, beside it."""
    port = free_port()
    beside = (f"listener {port} 127.0.0.1", "allow_anonymous true")
    return PrivateBroker(directory / "tls", beside, ("max_inflight_messages 0",)), port


def _over_tls(board: Board, broker: PrivateBroker, name: str) -> Board:
    files = broker.client(name)
    config = board.directory / "edged.toml"
    lines = config.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("url = "))
    lines[at] = f'url = "{broker.url}"\nca = "{files.ca}"\ncert = "{files.cert}"\nkey = "{files.key}"'
    config.write_text("\n".join(lines) + "\n")
    return board
