"""The outbox: results wait in RAM for a moment, then in ``state.db``, and are sent in order at a bounded rate.

While the broker is connected this writes nothing. While it is away results are stored in groups; the readings of a
result are released once its group is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from edged.base.errors import StateError
from edged.board.state import OutboxStore, StoredResult
from edged.formats.channel.epoch import StoredEpoch

GROUP = 64
"""Results that are written at once ..."""
PATIENT, HASTY = 0.5, 0.05
"""... or so many seconds after the first of them: their readings wait, and some brokers deliver few meanwhile."""
RETRY_SECONDS = 1.0
"""From a write that failed to the next try."""
IN_FLIGHT = 100
RATE = 1500.0
"""Stored results a second that are sent when the broker is back: live ones go past them."""
_REMOVE_SECONDS = 0.5
_OUTDATED_SECONDS = 60.0
_SHARE = 64
"""The part of the outbox that is freed at once when it is full: not a write for each result."""
_BURST = 0.1


class _Fresh(NamedTuple):
    result: StoredResult
    done: Callable[[], None]


class Outbox:
    """Waiting results, bounded in bytes and age; beyond that the oldest are dropped and counted.

    :param most: bytes of results, stored and not stored yet.
    :param longest: seconds.
    :param epoch_of: returns the epoch of a key id as it is stored.
    :param on_gone: called with the key id of each result that is sent or dropped, and the reason why it was dropped.
    :ivar error: the reason why nothing can be stored now; empty while storing works.
    """

    def __init__(
        self,
        store: OutboxStore,
        *,
        most: int,
        longest: float,
        epoch_of: Callable[[bytes], StoredEpoch | None],
        on_gone: Callable[[bytes, str], None],
    ) -> None:
        self.error = ""
        self.group_seconds = PATIENT
        self._store = store
        self._most = most
        self._longest = longest
        self._epoch_of = epoch_of
        self._on_gone = on_gone
        self._fresh: deque[_Fresh] = deque()
        self._fresh_bytes = 0
        self._write_at = float("inf")
        self._stored, self._bytes = store.totals()
        self._ready: deque[StoredResult] = deque()
        self._read_to = 0
        self._newest = store.newest()
        self._in_flight: dict[int, StoredResult] = {}
        self._remove: list[int] = []
        self._remove_at = float("inf")
        self._allowance = 0.0
        self._allowed_at = 0.0
        self._outdated_at = 0.0

    @property
    def waiting(self) -> int:
        """Number of waiting results."""
        return self._stored + len(self._fresh)

    @property
    def bytes(self) -> int:
        """Bytes of waiting results."""
        return self._bytes + self._fresh_bytes

    @property
    def unstored(self) -> int:
        """Number of results that are not durable yet."""
        return len(self._fresh)

    @property
    def idle(self) -> bool:
        """True while nothing waits, nothing has to be removed, and nothing is wrong."""
        return not (self._stored or self._fresh or self._remove or self.error)

    @property
    def unsent(self) -> bool:
        """True while stored results wait that are not on their way yet."""
        return self._stored > len(self._in_flight)

    def add(self, result: StoredResult, now: float, done: Callable[[], None]) -> None:
        """Take a sealed result.

        :param result: its number is ignored.
        :param now: monotonic seconds.
        :param done: called once it is durable, or gone.
        """
        self._fresh.append(_Fresh(result, done))
        self._fresh_bytes += len(result.message)
        if len(self._fresh) >= GROUP and not self.error:
            self._write(now)
        elif self._write_at == float("inf"):
            self._write_at = now + self.group_seconds
        self._shrink(result.stored)

    def due_in(self, now: float) -> float:
        """Return the seconds until :meth:`turn` has something to do."""
        return min(self._write_at, self._remove_at) - now

    def turn(self, wall: float, now: float) -> None:
        """Write results and removals that are due.

        :param wall: Unix seconds; 0 while the clock is not known to be right.
        """
        if now >= self._write_at:
            self._write(now)
        if now >= self._remove_at:
            self._flush_removals(now)
        self._shrink(wall)

    def flush(self, now: float) -> None:
        """Write everything now: the process ends."""
        if self._fresh:
            self._write(now)
        if self._remove:
            self._flush_removals(now)

    def _write(self, now: float) -> None:
        group = list(self._fresh)
        kids = dict.fromkeys(one.result.kid for one in group)
        epochs = [epoch for kid in kids if (epoch := self._epoch_of(kid)) is not None]
        try:
            numbers = self._store.add([one.result for one in group], epochs)
        except StateError as error:
            self.error = error.message
            self._write_at = now + RETRY_SECONDS
            return
        self.error = ""
        self._write_at = float("inf")
        self._fresh.clear()
        self._fresh_bytes = 0
        self._newest = numbers[-1]
        self._stored += len(group)
        for result, done in group:
            self._bytes += len(result.message)
            done()

    def _shrink(self, wall: float) -> None:
        """Drop the oldest while they are too many or too old."""
        if self.bytes > self._most:
            self._drop(self.bytes - self._most + self._most // _SHARE, 0.0, "results.outbox.size is full")
        if wall >= self._outdated_at:
            self._drop(0, wall - self._longest, "it waited longer than results.outbox.age")
            self._outdated_at = wall + min(_OUTDATED_SECONDS, self._longest / 10)

    def _drop(self, excess: int, before: float, why: str) -> None:
        try:
            dropped = self._store.drop(max((*self._in_flight, *self._remove), default=0), excess, before)
        except StateError as error:
            self.error = error.message
            dropped = []
        for number, kid, size in dropped:
            self._stored -= 1
            self._bytes -= size
            while self._ready and self._ready[0].number <= number:
                self._ready.popleft()
            self._on_gone(kid, why)
        while self._fresh and (self.bytes > self._most or 0 < self._fresh[0].result.stored < before):
            oldest = self._fresh.popleft()
            self._fresh_bytes -= len(oldest.result.message)
            oldest.done()
            self._on_gone(oldest.result.kid, why)

    def _flush_removals(self, now: float) -> None:
        try:
            self._store.remove(self._remove)
        except StateError as error:
            self.error = error.message
            self._remove_at = now + RETRY_SECONDS
            return
        self._remove.clear()
        self._remove_at = float("inf")

    def start_over(self) -> None:
        """Go on after the disk has lost the stored results: all are gone but those on their way."""
        lost = self._stored - len(self._in_flight)
        self._stored, self._bytes = len(self._in_flight), sum(len(one.message) for one in self._in_flight.values())
        self._ready.clear()
        self._read_to = self._newest = 0
        for _ in range(lost):
            self._on_gone(b"", "state.db was damaged")

    # --- the way back

    def next_to_send(self, now: float, most: int = IN_FLIGHT) -> Iterable[StoredResult]:
        """Yield stored results that may be sent now, in order; each then waits for :meth:`sent` or :meth:`requeue`.

        :param most: the most that may be on their way.
        """
        self._allowance = min(self._allowance + (now - self._allowed_at) * RATE, RATE * _BURST)
        self._allowed_at = now
        while self._allowance >= 1 and len(self._in_flight) < most:
            result = self._next()
            if result is None:
                return
            self._allowance -= 1
            self._in_flight[result.number] = result
            yield result

    def _next(self) -> StoredResult | None:
        while not self._ready:
            if self._read_to >= self._newest:
                return None
            try:
                self._ready.extend(self._store.after(self._read_to, GROUP))
            except StateError as error:
                self.error = error.message
                return None
            self._read_to = self._ready[-1].number if self._ready else self._newest
        return self._ready.popleft()

    def sent(self, number: int, now: float, why: str = "") -> None:
        """Note that the broker has a stored result, or, with a reason, that it never will."""
        result = self._in_flight.pop(number)
        self._stored -= 1
        self._bytes -= len(result.message)
        self._remove.append(number)
        self._remove_at = min(self._remove_at, now + _REMOVE_SECONDS)
        self._on_gone(result.kid, why)

    def requeue(self, number: int) -> None:
        """Put back a stored result that nobody received: it is the next to be sent."""
        self._ready.appendleft(self._in_flight.pop(number))
