"""The outbox: sealed results wait in RAM for a moment, then in ``state.db``, and are read in order.

They are written in groups. The way of a stored result ends once its removal is durable: until then a crash would have
it sent once more, and its epoch stays announced.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from edged.base.errors import StateError
from edged.board.delivery.hold import Hold
from edged.board.health import Health
from edged.board.state import OutboxStore, StoredResult
from edged.formats.channel.announcer import Announcer

GROUP = 64
"""Results that are written at once ..."""
PATIENT, HASTY = 0.5, 0.05
"""... or so many seconds after the first of them: their readings wait, and some brokers deliver few meanwhile."""
_RETRY_SECONDS = 1.0
"""From a write that failed to the next try."""
_REMOVE_SECONDS = 0.5
_OUTDATED_SECONDS = 60.0
_SHARE = 64
"""The part of the outbox that is freed at once when it is full: not a write for each result."""


@dataclass(slots=True, eq=False)
class Outbound:
    """A sealed result whose way has not ended.

    :ivar kid: id of the key that sealed it, ``count``: its count under that key.
    :ivar stored: Unix seconds; 0 if the clock was not known to be right: its age is unknown.
    :ivar hold: of its reading; None once it was let go.
    :ivar sent: when it was sent, monotonic seconds; 0 while it is not on its way.
    :ivar number: in ``state.db``; 0 while it is not durable.
    :ivar fresh: True while it waits to be written.
    """

    kid: bytes
    count: int
    topic: str
    message: bytes
    stored: float
    hold: Hold | None = None
    sent: float = 0.0
    number: int = 0
    fresh: bool = False

    def let_go(self) -> None:
        """Let go of the reading: the result is safe, or gone."""
        hold, self.hold = self.hold, None
        if hold is not None:
            hold.release()


class Outbox:
    """Waiting results, bounded in bytes and age; beyond that the oldest are dropped and counted.

    :param announcer: is told of each result whose way has ended for good.
    :param most: bytes of results, stored and not stored yet.
    :param longest: seconds.
    :ivar error: the reason why nothing can be stored now; empty while storing works.
    :ivar group_seconds: for how long a result may wait to be written with others.
    """

    def __init__(self, store: OutboxStore, announcer: Announcer, health: Health, *, most: int, longest: float) -> None:
        self.error = ""
        self.group_seconds = PATIENT
        self._store = store
        self._announcer = announcer
        self._health = health
        self._most = most
        self._longest = longest
        self._fresh: deque[Outbound] = deque()
        self._fresh_bytes = 0
        self._write_at = math.inf
        self._rows, self._bytes = store.totals()
        self._kids = Counter(dict(store.kids()))
        """Results that the disk has or had a moment ago, by key id: their epochs stay announced."""
        self._newest, self._read_to = store.newest(), 0
        self._held: dict[int, Outbound] = {}
        """Stored results that are in RAM, too: on their way, or about to be."""
        self._ready: list[tuple[int, Outbound]] = []
        self._removals: dict[int, bytes] = {}
        self._remove_at = math.inf
        self._outdated_at = 0.0
        health.books.restored = self._rows
        announcer.restore(store.epochs())

    @property
    def waiting(self) -> int:
        """Number of results whose way has not ended."""
        return self._rows + len(self._fresh)

    @property
    def size(self) -> int:
        """Bytes of these."""
        return self._bytes + self._fresh_bytes

    @property
    def unwritten(self) -> int:
        """Number of results that wait to be written."""
        return len(self._fresh)

    @property
    def is_idle(self) -> bool:
        """True while nothing waits, nothing has to be removed, and nothing is wrong."""
        return not (self._rows or self._fresh or self._removals or self.error)

    def keep(self, result: Outbound, now: float) -> None:
        """Take a result that could not be sent: it is written, and returned by :meth:`take_next` in its turn."""
        result.sent = 0.0
        if result.number:
            heapq.heappush(self._ready, (result.number, result))
        else:
            self.store(result, now)

    def store(self, result: Outbound, now: float) -> None:
        """Write a result in a moment, while it may be on its way all the same."""
        if not (result.number or result.fresh):
            result.fresh = True
            self._fresh.append(result)
            self._fresh_bytes += len(result.message)
            if len(self._fresh) >= GROUP and not self.error:
                self._write(now)
            elif self._write_at == math.inf:
                self._write_at = now + self.group_seconds
            self._drop_excess()

    def end(self, result: Outbound, now: float) -> None:
        """End the way of a result: the broker has it, or never takes it."""
        if result.number:
            self._rows -= 1
            self._bytes -= len(result.message)
            self._held.pop(result.number, None)
            self._removals[result.number] = result.kid
            self._remove_at = min(self._remove_at, now + _REMOVE_SECONDS)
            return
        if result.fresh:  # it was about to be written: the broker has it after all
            self._forget_fresh(result)
        self._announcer.delivered(result.kid)
        result.let_go()

    def _forget_fresh(self, result: Outbound) -> None:
        result.fresh = False
        self._fresh.remove(result)
        self._fresh_bytes -= len(result.message)

    def take_next(self) -> Outbound | None:
        """Return the next stored result that is not on its way; None if there is none. :meth:`keep` puts it back."""
        while not self._ready:
            if self._read_to >= self._newest:
                return None
            try:
                rows = self._store.after(self._read_to, GROUP)
            except StateError as error:
                self.error = error.message
                return None
            self._read_to = rows[-1].number if rows else self._newest
            for row in rows:
                if row.number not in self._held and row.number not in self._removals:
                    result = Outbound(row.kid, row.counter, row.topic, row.message, row.stored, number=row.number)
                    self._held[row.number] = result
                    heapq.heappush(self._ready, (row.number, result))
        return heapq.heappop(self._ready)[1]

    # --- the disk

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
            self._remove(now)
        self._drop_excess()
        if wall >= self._outdated_at:
            self._drop(0, wall - self._longest, "it waited longer than results.outbox.age")
            self._outdated_at = wall + min(_OUTDATED_SECONDS, self._longest / 10)

    def flush(self, now: float) -> None:
        """Write everything now: the process ends."""
        if self._fresh:
            self._write(now)
        if self._removals:
            self._remove(now)

    def _write(self, now: float) -> None:
        group = list(self._fresh)
        epochs = [one for kid in {one.kid for one in group} if (one := self._announcer.find(kid)) is not None]
        rows = [StoredResult(0, one.kid, one.count, one.topic, one.message, one.stored) for one in group]
        try:
            numbers = self._store.add(rows, epochs) if rows else []
        except StateError as error:
            self.error = error.message
            self._write_at = now + _RETRY_SECONDS
            return
        self.error = ""
        self._write_at = math.inf
        self._fresh.clear()
        self._fresh_bytes = 0
        for number, result in zip(numbers, group, strict=True):
            result.number, result.fresh = number, False
            self._newest = number
            self._rows += 1
            self._bytes += len(result.message)
            self._kids[result.kid] += 1
            if result.sent:
                self._held[number] = result
            result.let_go()

    def _remove(self, now: float) -> None:
        try:
            self._store.remove(self._removals)
        except StateError as error:
            self.error = error.message
            self._remove_at = now + _RETRY_SECONDS
            return
        removed, self._removals = self._removals, {}
        self._remove_at = math.inf
        for kid in removed.values():
            self._gone(kid)

    def _gone(self, kid: bytes) -> None:
        """Note that the disk has a result no more."""
        self._kids[kid] -= 1
        if not self._kids[kid]:
            del self._kids[kid]
        self._announcer.delivered(kid)

    # --- its bounds

    def _drop_excess(self) -> None:
        if self.size > self._most:
            self._drop(self.size - self._most + self._most // _SHARE, 0.0, "results.outbox.size is full")

    def _drop(self, excess: int, before: float, why: str) -> None:
        """Drop the oldest results that are not on their way: so many bytes, and those from before a time."""
        on_their_way = {number for number, one in self._held.items() if one.sent} | self._removals.keys()
        try:
            dropped = self._store.drop(on_their_way, excess, before)
        except StateError as error:
            self.error = error.message
            dropped = []
        gone = {number for number, _, _ in dropped}
        self._ready = [one for one in self._ready if one[0] not in gone]  # a sorted list stays a heap
        heapq.heapify(self._ready)
        for number, kid, size in dropped:
            self._rows -= 1
            self._bytes -= size
            self._held.pop(number, None)
            self._gone(kid)
            self._health.drop(why)
        for oldest in [one for one in self._fresh if not one.sent]:
            if self.size <= self._most and not 0 < oldest.stored < before:
                break
            self._health.drop(why)
            self.end(oldest, 0.0)

    def start_over(self, now: float, flying: Iterable[Outbound]) -> None:
        """Go on with an empty disk: results in RAM are stored anew, the others are lost and counted."""
        kept = [result for _, result in sorted(self._ready)] + [one for one in flying if one.number]
        lost = self._kids - Counter(one.kid for one in kept) - Counter(self._removals.values())
        ended, self._kids = [*self._removals.values(), *lost.elements()], Counter()
        self._rows = self._bytes = self._newest = self._read_to = 0
        self._held, self._ready, self._removals, self._remove_at = {}, [], {}, math.inf
        for kid in ended:
            self._announcer.delivered(kid)
        for _ in lost.elements():
            self._health.drop("state.db was damaged")
        for result in kept:
            result.number = 0
            self.store(result, now)
