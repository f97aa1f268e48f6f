"""A sensor, a board and a hub that go on while brokers and daemons are killed, and the count of what came through."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np

from edged.base.errors import EdgedError, ReplayError
from edged.broker import Broker, run_once
from edged.formats.channel.reading import ReadingSealer
from edged.formats.channel.result import Sealed
from edged.formats.cose.encrypt0 import parse
from edged.keystore.records import read_sensor_key
from support.hub import Hub
from support.process import DaemonProcess
from support.site import Site
from support.waiting import PATIENCE, wait_until

LONG = "EDGED_FAULTS" in os.environ
"""Set by `make faults`: as long and as often as it is claimed; `make test-faults` runs a short form of each."""
UNSTORED = 0.06
"""Seconds before a broker is killed within which it may have acknowledged what it had not stored yet, also a result.

Mosquitto acknowledges first and stores after (once a turn of its loop): killed 100 times at 10 messages a second, without any edged,
it lost 2 or 3 messages that it had acknowledged. Nothing that was acknowledged earlier may be lost.
"""
PER_WINDOW = 10
"""Readings that make a window where rows are sent."""


def often(short: int, long: int) -> int:
    """Return how often something is done."""
    return long if LONG else short


class Sensor:
    """Sends readings at a steady rate, each different from all others, and each until the broker has it.

    :ivar sent: the readings, as they were published; ``times``: when, monotonic seconds.
    :ivar paused: sends nothing more, but for what :meth:`send_more` asks for; ``resting`` is set once that holds.
    :ivar repeated: those that it may have sent twice, because it did not hear whether the broker had them.
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
        self.client.on_down = self._note_repeats
        self.client.on_delivered = self._note_acknowledged
        self.repeated: set[bytes] = set()
        self.acknowledged: dict[int, float] = {}
        self._tokens: dict[int, int] = {}
        self._topic = site.topic
        self._windows = windows
        self.sends_rows = rows
        self.sealer = ReadingSealer(read_sensor_key(site.path / "sensor.key"), site.topic) if sealed else None
        self._next = time.monotonic()

    def _note_repeats(self) -> None:
        self.repeated.update(outgoing.message.payload for outgoing in self.client._waiting)

    def _note_acknowledged(self, token: int, _outcome: object) -> None:
        self.acknowledged[self._tokens.pop(token)] = time.monotonic()

    def may_be_lost(self, kills: Sequence[float]) -> set[int]:
        """Return the numbers of the readings that the broker acknowledged so shortly before it died."""
        return {
            number
            for number, at in self.acknowledged.items()
            if any(kill - UNSTORED <= at <= kill + UNSTORED for kill in kills)
        }

    def counts(self) -> list[int]:
        """Return the count of each reading that was sent, where they are sealed."""
        return [int.from_bytes(parse(one, len(one)).iv[:8], "big") for one in self.sent]

    def may_be_twice(self) -> set[object]:
        """Return what may be answered twice: plain readings that the sensor itself has sent twice.

        It did not hear whether the broker had them. Their bytes are all that a plain reading has to be told by.
        """
        if self.sealer is not None or self.sends_rows:
            return set()
        return {self._name([one]) for one in self.repeated}

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
        token = self.client.publish(self._topic, payload, qos=1)
        self._tokens[token] = len(self.sent) - 1

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

    :ivar sensor: the first of them.

    :ivar hub: keeps its session at the broker, as a hub does.
    :ivar kills: when the broker was killed, monotonic seconds.
    :ivar lost_by_broker: readings that it lost, or their results: acknowledged, and not stored yet when it died.
    :ivar witness: what ``support/witness.py`` wrote: which results the broker has acknowledged.
    """

    def __init__(self, site: Site, sensor: Sensor, *more: Sensor, hub: Hub | None = None) -> None:
        super().__init__()
        self.kills: list[float] = []
        self.lost_by_broker = 0
        self.site = site
        self.witness: Path | None = None
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

    def wait(self, holds: Callable[[], object], timeout: float = PATIENCE) -> float:
        """Wait until something holds; return the seconds that it took."""
        began = time.monotonic()

        def either() -> object:
            assert self.error is None, self.error
            return holds()

        told = lambda: f"{len(self.sensor.sent)} sent, {len(self.hub.results)} answered"  # noqa: E731
        wait_until(either, timeout, told=told)
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

    def _unstored_results(self) -> set[object]:
        """Return what was answered by results that the broker acknowledged so shortly before it died."""
        if self.witness is None:
            return set()
        sealed: dict[tuple[str, str], list[str]] = {}
        found: set[object] = set()
        for line in self.witness.read_text().splitlines():
            what, *parts = line.split()
            if what == "sealed":
                sealed[parts[0], parts[1]] = parts[2:]
            elif any(kill - UNSTORED <= float(parts[0]) <= kill + UNSTORED for kill in self.kills):
                name = sealed[parts[1], parts[2]]
                found.add(bytes.fromhex(name[0]) if len(name) == 1 else (int(name[1]), int(name[2])))
        return found

    def _wanted(self) -> list[object]:
        return [name for sensor in self.sensors for name in sensor.expected()]

    def _is_answered(self, wanted: Sequence[object]) -> bool:
        """Return True if all is answered but for what the broker may have lost."""
        answered = self.answered()
        if len(answered) >= len(wanted):
            return True
        if not self.kills or self.sensor.sends_rows:
            return False
        missing = {number for number, one in enumerate(wanted) if one not in answered}
        unstored = self._unstored_results()
        return {number for number in missing if wanted[number] not in unstored} <= self.sensor.may_be_lost(self.kills)

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
        with suppress(AssertionError):  # what is missing is told below
            self.wait(lambda: self._is_answered(self._wanted()), timeout)
        for sensor in self.sensors:
            sensor.send_more()
            self.wait(sensor.resting.is_set)
        wanted = self._wanted()
        with suppress(AssertionError):
            self.wait(lambda: self._is_answered(wanted), timeout)
        assert self.error is None
        answered = self.answered()
        may_be_lost = self.sensor.may_be_lost(self.kills)
        unstored = self._unstored_results() - set(answered)
        if self.sensor.sends_rows and self.kills:
            self.lost_by_broker = len(unstored) + _check_rows(
                self.sensor.counts(), answered + Counter(unstored), may_be_lost
            )
            return
        # answers come twice where an acknowledgement was lost; each of them opens, and one of two is refused
        assert all(isinstance(error, refusals) for error in self.hub.refused), self.hub.refused
        missing = [number for number, one in enumerate(wanted) if one not in answered]
        lost = [number for number in missing if number not in may_be_lost and wanted[number] not in unstored]
        self.lost_by_broker = len(missing) - len(lost)
        may = self.sensor.may_be_twice()
        twice = [number for number, one in enumerate(wanted) if answered[one] > 1 and one not in may]
        strange = len(answered) - len(wanted) + len(missing)
        told = f"of {len(wanted)} lost: {lost}, twice: {twice}, unasked: {strange}"
        assert lost == twice == [] and strange == 0, f"{told}; {[error.message for error in self.hub.refused]}"  # noqa: PT018


def _check_rows(counts: Sequence[int], answered: Counter[object], may_be_lost: set[int]) -> int:
    """Check that windows of rows follow one another, none twice; return how many rows the broker lost.

    :param counts: of the rows that were sent.
    :param answered: first and last count of each window.
    """
    places = {count: number for number, count in enumerate(counts)}
    spans = sorted((places[first], places[last]) for first, last in answered)  # type: ignore[misc]
    assert set(answered.values()) == {1}
    at = lost = 0
    for first, last in spans:
        gone = (first - at) + (last + 1 - first - PER_WINDOW)
        excused = sum(at <= number <= last for number in may_be_lost)
        assert first >= at and 0 <= gone <= excused, f"rows {at} to {last}: {gone} gone, {excused} excused"  # noqa: PT018
        at, lost = last + 1, lost + gone
    assert len(counts) - at < PER_WINDOW + sum(number >= at for number in may_be_lost)
    return lost


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
