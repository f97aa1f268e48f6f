"""A sensor, a board and a hub that go on while brokers and daemons are killed, and the count of what came through."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from edged.base.errors import EdgedError, ReplayError
from edged.broker import Broker, run_once
from edged.formats.channel.reading import ReadingSealer
from edged.formats.channel.result import Sealed
from edged.formats.cose.encrypt0 import parse
from edged.keystore.records import read_sensor_key
from support.hub import Hub
from support.observer import Observer, Verdict
from support.process import DaemonProcess
from support.site import Site
from support.waiting import PATIENCE, wait_until

LONG = "EDGED_FAULTS" in os.environ
"""Set by `make faults`: as long and as often as it is claimed; `make test-faults` runs a short form of each."""
PER_WINDOW = 10
"""Readings that make a window where rows are sent."""


def often(short: int, long: int) -> int:
    """Return how often something is done."""
    return long if LONG else short


def stored(site: Site) -> int:
    """Return how many results are durable in the outbox."""
    return _number(site, "SELECT count(*) FROM outbox")


def newest_epoch(site: Site) -> int:
    """Return the number of the newest epoch of the board's channel key."""
    return _number(site, "SELECT max(number) FROM epoch")


def _number(site: Site, query: str) -> int:
    with closing(sqlite3.connect(f"file:{site.state}/state.db?mode=ro", uri=True)) as database:
        return int(database.execute(query).fetchone()[0])


def status(site: Site) -> dict[str, Any]:
    """Return what `edged status` says."""
    facts: dict[str, Any] = json.loads(site.edged("status", "-c", "edged.toml", "--json").stdout)
    return facts


class Sensor:
    """Sends readings at a steady rate, each different from all others, and each until the broker has it.

    :ivar sent: the readings, as they were published; ``times``: when, monotonic seconds.
    :ivar paused: sends nothing more, but for what :meth:`send_more` asks for; ``resting`` is set once that holds.
    """

    def __init__(
        self, site: Site, windows: np.ndarray, *, rows: bool, sealed: bool, rate: float = 10.0, name: str = "sensor"
    ) -> None:
        self.sent: list[bytes] = []
        self.times: list[float] = []
        self.paused = False
        self.resting = threading.Event()
        self.rate = rate
        self._more = 0
        self.client = Broker(site.options(client_id=name, session_expiry=3600))
        self._topic = site.topic
        self._windows = windows
        self.sends_rows = rows
        self.sealer = ReadingSealer(read_sensor_key(site.path / "sensor.key"), site.topic) if sealed else None
        self._next = time.monotonic()

    def send_if_due(self) -> None:
        """Send what is due by now."""
        now = time.monotonic()
        if self.paused:
            self._next = now
            more, self._more = self._more, 0
            for _ in range(more):
                self._send(now)
            self.resting.set()
            return
        while now >= self._next:
            self._next += 1 / self.rate
            self._send(now)

    def send_more(self) -> None:
        """Order a window's readings, which the sending thread sends at once."""
        self.resting.clear()
        self._more = PER_WINDOW if self.sends_rows else 1

    def pause(self) -> None:
        """Send no more; once ``resting`` is set, the thread that sends knows."""
        self.resting.clear()
        self.paused = True

    def _send(self, now: float) -> None:
        payload = self._reading(len(self.sent))
        self.sent.append(payload)
        self.times.append(now)
        self.client.publish(self._topic, payload, qos=1)

    def _reading(self, number: int) -> bytes:
        at, part = divmod(number, PER_WINDOW) if self.sends_rows else (number, 0)
        window = self._windows[at % len(self._windows)].copy()
        if self.sends_rows:
            window = window.reshape(PER_WINDOW, -1, window.shape[1])[part].copy()
        window[0, 0] += 1e-6 * (1 + number)
        payload = np.ascontiguousarray(window, "<f4").tobytes()
        return payload if self.sealer is None else self.sealer.seal(payload)

    def expected(self) -> list[object]:
        """Return what the hub should be told has been answered, each once."""
        if not self.sends_rows:
            return [self._name([one]) for one in self.sent]
        full = len(self.sent) // PER_WINDOW * PER_WINDOW
        return [self._name(self.sent[at : at + PER_WINDOW]) for at in range(0, full, PER_WINDOW)]

    def _name(self, readings: Sequence[bytes]) -> object:
        if self.sealer is None:
            return hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in readings)).digest()
        counts = [int.from_bytes(parse(one, len(one)).iv[:8], "big") for one in readings]
        return counts[0], counts[-1]


class World(threading.Thread):
    """Sensors and a hub, in a thread of their own, until the block ends.

    :param observer: judges what became of all readings, where brokers are killed; without one they are all answered.
    :ivar sensor: the first of them.
    :ivar hub: keeps its session at the broker, as a hub does.
    :ivar verdict: the observer's, in the end.
    """

    def __init__(
        self, site: Site, sensor: Sensor, *more: Sensor, hub: Hub | None = None, observer: Observer | None = None
    ) -> None:
        super().__init__()
        self.site = site
        self.observer = observer
        self.verdict: Verdict | None = None
        self._answers: Counter[object] = Counter()
        self.sensor = sensor
        self.sensors = (sensor, *more)
        self.hub = hub or Hub(site, client_id="hub", session_expiry=3600)
        self.error: BaseException | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self.hub.__enter__()
        for sensor in self.sensors:
            sensor.client.connect()
        self.start()
        return self

    def run(self) -> None:
        clients = (self.hub.client, *(sensor.client for sensor in self.sensors))
        try:
            while not self._ended.is_set():
                run_once(clients, min(0.02, 0.5 / self.sensor.rate))
                for sensor in self.sensors:
                    sensor.send_if_due()
        except BaseException as error:  # noqa: BLE001  shown by the test
            self.error = error

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        for sensor in self.sensors:
            sensor.client.close()
        self.hub.client.close()

    def wait(self, holds: Callable[[], object], timeout: float = PATIENCE, *, every: float = 0.02) -> float:
        """Wait until something holds; return the seconds that it took."""
        began = time.monotonic()

        def either() -> object:
            assert self.error is None, self.error
            return holds()

        def told() -> str:
            return f"{len(self.sensor.sent)} sent, {len(self.hub.results)} answered"

        wait_until(either, timeout, every=every, told=told)
        return time.monotonic() - began

    def pause(self) -> None:
        """Stop all sensors, and wait until each has stopped."""
        for sensor in self.sensors:
            sensor.pause()
            self.wait(sensor.resting.is_set)

    def wait_sent(self, more: int, timeout: float = PATIENCE) -> None:
        """Wait until the sensor has sent so many more readings."""
        until = len(self.sensor.sent) + more
        self.wait(lambda: len(self.sensor.sent) >= until, timeout)

    def wait_answered(self, more: int) -> None:
        """Wait until so many more results have come to the hub."""
        until = len(self.hub.results) + more
        self.wait(lambda: len(self.hub.results) >= until)

    def answered(self) -> Counter[object]:
        """Return how often each reading, or window of readings, was answered at the hub."""
        for opened in self.hub.results[self._answers.total() :]:  # it is asked again and again
            of = opened.result.input
            self._answers[(of.first, of.last) if isinstance(of, Sealed) else of.digest] += 1
        return self._answers

    def _wanted(self) -> list[object]:
        return [name for sensor in self.sensors for name in sensor.expected()]

    def _is_done(self) -> bool:
        """Return True once everything is answered, but for what a broker lost; or something is wrong for good."""
        if self.observer is None:
            return len(self.answered()) >= len(self._wanted())
        self.verdict = self.observer.judge(self.hub.results)
        last = self.observer.track(self.site.topic, self.sensor.sent[-1])
        return bool(self.verdict.twice or (last.handed_out and self.verdict.is_clean))

    def waits(self) -> list[float]:
        """Return for how many seconds each whole window waited for its first result, of those that have one."""
        sent = dict(zip(self.sensor.expected(), self.sensor.times, strict=True))
        waits: dict[object, float] = {}
        for one, came in zip(list(self.hub.results), list(self.hub.times), strict=False):
            of = one.result.input
            name = (of.first, of.last) if isinstance(of, Sealed) else of.digest
            if name in sent and name not in waits:
                waits[name] = came - sent[name]
        return list(waits.values())

    def finish(
        self,
        timeout: float = 60.0,
        *,
        refusals: tuple[type[EdgedError], ...] = (ReplayError,),
    ) -> None:
        """Stop sending, wait until all is answered, and check that nothing is lost and nothing is there twice.

        A last window is sent when all is answered: what would come twice comes before its result.
        """
        self.pause()
        every = 0.02 if self.observer is None else 0.5
        with suppress(AssertionError):  # what is missing is told below
            self.wait(self._is_done, timeout, every=every)
        for sensor in self.sensors:
            sensor.send_more()
            self.wait(sensor.resting.is_set)
        with suppress(AssertionError):
            self.wait(self._is_done, timeout, every=every)
        assert self.error is None
        # answers come twice where an acknowledgement was lost; each of them opens, and one of two is refused
        assert all(isinstance(error, refusals) for error in self.hub.refused), self.hub.refused
        if self.verdict is not None:
            assert self.verdict.is_clean, self.verdict
            return
        wanted, answered = self._wanted(), self.answered()
        lost = [number for number, one in enumerate(wanted) if one not in answered]
        twice = [number for number, one in enumerate(wanted) if answered[one] > 1]
        told = f"of {len(wanted)} lost: {lost}, twice: {twice}; {[error.message for error in self.hub.refused]}"
        assert answered == Counter(wanted), told


class Board:
    """A board's daemon that is started again after each death, as systemd does.

    :ivar slowest_start: the most seconds that it took to be READY.
    """

    def __init__(self, path: Path, **options: object) -> None:
        self._path = path
        self._options = options
        self.slowest_start = 0.0
        self.daemon: DaemonProcess | None = None

    def start(self) -> DaemonProcess:
        """Start it, and wait until it is READY."""
        began = time.monotonic()
        self.daemon = DaemonProcess(self._path, **self._options)  # type: ignore[arg-type]
        self.daemon.wait_ready()
        self.slowest_start = max(self.slowest_start, time.monotonic() - began)
        return self.daemon

    def kill(self) -> None:
        """Kill it, as a power cut or the kernel would."""
        assert self.daemon is not None
        self.daemon.process.kill()
        self.daemon.stop()

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Have it run until the block ends, under whatever process it is then."""
        self.start()
        try:
            yield self
        finally:
            if self.daemon is not None:
                self.daemon.stop()
