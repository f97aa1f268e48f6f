"""CPU per message and QoS 1 rate of the daemon against the script that one would write by hand, in turns."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from board import Board
from broker import mosquitto
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from load import LoadGenerator, Run
from process import cpu_seconds, daemon, running, wait_for_line
from report import Row, ratio
from subjects import Encode, Floats, cbor, vibration, windows

_BAR = 3.0
_TIMEOUT = 30.0
_WARM_UP = 300
_DISTINCT = 64
_NAIVE = Path(__file__).with_name("naive.py")

CBOR = "edged, sealed CBOR windows (recommended)"
JSON = "edged, sealed JSON windows (like for like)"
NAIVE = "naive script"
SHORT = "naive script, numbers cut to float32 precision"


@dataclass
class Contender:
    """A process that answers windows, and what its rounds came to.

    :ivar make: returns as many sealed windows, each one new.
    """

    pid: int
    load: LoadGenerator
    make: Callable[[int], list[bytes]]
    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def warm_up(self) -> Run:
        """Have everything loaded and cached."""
        return self.load.run(self.make(_WARM_UP), _TIMEOUT)

    def round(self, count: int) -> None:
        """Play ``count`` windows."""
        sealed = self.make(count)
        before = cpu_seconds(self.pid)
        run = self.load.run(sealed, _TIMEOUT)
        self.cpu.append((cpu_seconds(self.pid) - before) / count)
        self.rate.append(run.rate)
        self.busy.append(run.busy)


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Play rounds in turns; each lasts about as many seconds for each contender."""
    rounds, seconds = (3, 0.7) if quick else (7, 2.0)
    with ExitStack() as stack:
        port = stack.enter_context(mosquitto(directory))
        board = Board(directory / "cbor", port, vibration())
        other = Board(directory / "json", port, vibration(format_="json"))
        naive_pid, naive_load, key = stack.enter_context(_naive(directory, port, board.places[0].model))
        contenders = {
            CBOR: stack.enter_context(_edged(board, cbor)),
            JSON: stack.enter_context(_edged(other, _json)),
            NAIVE: Contender(naive_pid, naive_load, _naive_sensor(key, _json)),
            SHORT: Contender(naive_pid, naive_load, _naive_sensor(key, _short_json)),
        }
        counts = {}
        for name, contender in contenders.items():
            contender.warm_up()
            counts[name] = int(contender.warm_up().rate * seconds)
        for _ in range(rounds):
            for name, contender in contenders.items():
                contender.round(counts[name])
    return list(_rows(contenders))


@contextmanager
def _edged(board: Board, encode: Encode) -> Iterator[Contender]:
    readings = [encode(window) for window in windows(_DISTINCT)]
    (place,) = board.places
    with daemon(board.directory) as (pid, _), place.load() as load:
        yield Contender(pid, load, lambda count: [place.seal(reading) for reading in islice(cycle(readings), count)])


@contextmanager
def _naive(directory: Path, port: int, model: Path) -> Iterator[tuple[int, LoadGenerator, AESGCM]]:
    key = directory / "naive.key"
    key.write_bytes(AESGCM.generate_key(256))
    command = (_NAIVE, "--port", port, "--model", model, "--key", key, "--input", "naive/in", "--output", "naive/out")
    with running(command, cwd=directory, log=directory / "naive.log") as process:
        wait_for_line(process, "ready")
        with LoadGenerator(port, "naive/in", "naive/out") as load:
            yield process.pid, load, AESGCM(key.read_bytes())


def _naive_sensor(key: AESGCM, encode: Encode) -> Callable[[int], list[bytes]]:
    readings = [encode(window) for window in windows(_DISTINCT)]

    def seal(reading: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + key.encrypt(nonce, reading, None)

    return lambda count: [seal(reading) for reading in islice(cycle(readings), count)]


def _json(window: Floats) -> bytes:
    """Return what everybody's sensor script sends."""
    return json.dumps(window.tolist()).encode()


def _short_json(window: Floats) -> bytes:
    """Return what a sensor sends that wastes no digit: the shortest text of each float32, half as long."""
    return json.dumps([[float(str(value)) for value in row] for row in window]).encode()


def _rows(contenders: dict[str, Contender]) -> Iterator[Row]:
    """Yield the two ratios that count, what else compares with them, and the figures behind."""
    for name, against, bar in ((CBOR, NAIVE, _BAR), (JSON, NAIVE, None), (CBOR, SHORT, None)):
        edged, naive = contenders[name], contenders[against]
        yield Row(f"CPU per message: {against} / {name}", ratio(naive.cpu, edged.cpu), "x", bar, "min")
        yield Row(f"QoS 1 rate: {name} / {against}", ratio(edged.rate, naive.rate), "x", bar, "min")
    for name, contender in contenders.items():
        yield Row(f"  CPU per message, {name}", statistics.median(contender.cpu) * 1e6, "us")
        yield Row(f"  rate, {name}", statistics.median(contender.rate), "/s")
        yield Row("  load generator's own share of a core then", statistics.median(contender.busy), "")
