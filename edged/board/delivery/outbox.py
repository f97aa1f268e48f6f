"""The outbox: results wait in RAM for a moment, then in ``state.db``, and are sent in order at a bounded rate.

While the broker is connected this writes nothing. While it is away results are stored in groups; the readings of a
result are released once its group is durable. The way of a stored result ends once its removal is durable: until then
a crash would have it sent once more.
"""

from __future__ import annotations

from collections import Counter, deque
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

MaySend = Callable[[bytes], bool]


class _Fresh(NamedTuple):
    result: StoredResult
    done: Callable[[], None]


class _Sent(NamedTuple):
    """A stored result that is to be removed, and the reason if nobody will get it."""

    number: int
    kid: bytes
    why: str


class Outbox:
    """Waiting results, bounded in bytes and age; beyond that the oldest are dropped and counted.

    :param most: bytes of results, stored and not stored yet.
    :param longest: seconds.
    :param epoch_of: returns the epoch of a key id as it is stored.
    :param on_gone: called with the key id of each result whose way has ended for good, and why it was dropped, if so.
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
        self._kids = Counter(dict(store.kids()))
        self._ready: deque[StoredResult] = deque()
        self._read_to = 0
        self._newest = store.newest()
        self._in_flight: dict[int, StoredResult] = {}
        self._remove: list[_Sent] = []
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
            self._kids[result.kid] += 1
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
            behind = max((*self._in_flight, *(one.number for one in self._remove)), default=0)
            dropped = self._store.drop(behind, excess, before)
        except StateError as error:
            self.error = error.message
            dropped = []
        for number, kid, size in dropped:
            self._stored -= 1
            self._bytes -= size
            self._kids -= Counter((kid,))
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
            self._store.remove([one.number for one in self._remove])
        except StateError as error:
            self.error = error.message
            self._remove_at = now + RETRY_SECONDS
            return
        removed, self._remove = self._remove, []
        self._remove_at = float("inf")
        for one in removed:
            self._kids -= Counter((one.kid,))
            self._on_gone(one.kid, one.why)

    def start_over(self) -> None:
        """Go on after the disk has lost the stored results: all are gone but those on their way."""
        on_their_way = Counter([one.kid for one in self._in_flight.values()] + [one.kid for one in self._remove])
        lost, self._kids = self._kids - on_their_way, on_their_way
        self._stored, self._bytes = len(self._in_flight), sum(len(one.message) for one in self._in_flight.values())
        self._ready.clear()
        self._read_to = self._newest = 0
        for kid in lost.elements():
            self._on_gone(kid, "state.db was damaged")

    # --- the way back

    def next_to_send(self, now: float, may_send: MaySend, most: int = IN_FLIGHT) -> Iterable[StoredResult]:
        """Yield stored results that may be sent now, in order; each then waits for :meth:`sent` or :meth:`requeue`.

        :param may_send: returns True if results under a key id may be sent; the others wait for those that may not.
        :param most: the most that may be on their way.
        """
        self._allowance = min(self._allowance + (now - self._allowed_at) * RATE, RATE * _BURST)
        self._allowed_at = now
        while self._allowance >= 1 and len(self._in_flight) < most:
            result = self._next()
            if result is None:
                return
            if not may_send(result.kid):
                self._ready.appendleft(result)
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
        self._remove.append(_Sent(number, result.kid, why))
        self._remove_at = min(self._remove_at, now + _REMOVE_SECONDS)

    def requeue(self, number: int) -> None:
        """Put back a stored result that nobody received: it is the next to be sent."""
        self._ready.appendleft(self._in_flight.pop(number))
