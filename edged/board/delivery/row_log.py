"""The row log: a reading of rows is acknowledged once it is durable, and deleted once no window needs it.

Readings are written in groups. After a crash the daemon restarts where the open window began, so that the same windows
are answered under the same names as without the crash.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial

from edged.base.errors import StateError
from edged.board.delivery.hold import Hold
from edged.board.pipeline import Message, Start
from edged.board.state import RowStore, StoredReading

GROUP = 256
"""Readings that are written at once ..."""
PATIENT, HASTY = 1.0, 0.05
"""... or so many seconds after the first of them: each write wears a card, but a broker that delivers few waits."""
KEPT = 1000
"""Readings that stay when no window needs them any more: as many as a broker redelivers after a crash."""
_TIDY_SECONDS = 1.0
_GIVE_UP = 5.0
"""Seconds of failed writes after which readings are acknowledged all the same: inference goes on."""

StreamKey = tuple[str, str]
"""Channel of the model, and key of the stream."""


@dataclass
class _Track:
    """A stream: its stored readings, the start of its open window, and windows whose results are not safe."""

    numbers: deque[int] = field(default_factory=deque)
    begins: Start | None = None
    held: Counter[Start] = field(default_factory=Counter)

    def needed_from(self) -> Start | None:
        """Return the start of the first window that is needed."""
        starts = [*self.held] if self.begins is None else [self.begins, *self.held]
        return min(starts, default=None)


class RowLog:
    """Writes readings of rows before they are acknowledged.

    :ivar error: the reason why nothing can be written now; empty while writing works.
    """

    def __init__(self, store: RowStore) -> None:
        self.error = ""
        self.group_seconds = PATIENT
        self._store = store
        self._last = store.last()
        self._tracks: dict[StreamKey, _Track] = {}
        self._pending: list[tuple[StoredReading, Hold]] = []
        self._changed: set[StreamKey] = set()
        self._gone: deque[int] = deque()
        self._write_at = float("inf")
        self._failing_since = float("inf")

    def next_number(self) -> int:
        """Return the number for the next reading."""
        self._last += 1
        return self._last

    def keep_window(self, key: StreamKey, start: Start) -> Hold:
        """Keep the readings of a window until its result is safe: until the hold is released."""
        self._track(key).held[start] += 1
        return Hold(partial(self._release_window, key, start))

    def _release_window(self, key: StreamKey, start: Start) -> None:
        held = self._track(key).held
        held[start] -= 1
        if not held[start]:
            del held[start]
        self._changed.add(key)

    def _track(self, key: StreamKey) -> _Track:
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _Track()
        return track

    def add(self, key: StreamKey, number: int, message: Message, hold: Hold, now: float) -> None:
        """Queue a reading for writing; its acknowledgement and its replay mark wait for that."""
        self._track(key).numbers.append(number)
        self._pending.append((StoredReading(number, key[0], message.topic, message.payload), hold.hold()))
        self._write_at = min(self._write_at, now + self.group_seconds)
        if len(self._pending) >= GROUP and not self.error:
            self._write(now)

    def keep(self, key: StreamKey, number: int) -> None:
        """Track a reading already on disk."""
        self._track(key).numbers.append(number)

    def retire(self, number: int) -> None:
        """Schedule a reading on disk for deletion."""
        self._gone.append(number)

    def window_begins(self, key: StreamKey, begins: Start | None, now: float) -> None:
        """Note the start of a stream's open window."""
        self._track(key).begins = begins
        self._changed.add(key)
        self._write_at = min(self._write_at, now + _TIDY_SECONDS)

    def due_in(self, now: float) -> float:
        """Return the seconds until :meth:`turn` has something to do."""
        return self._write_at - now

    def turn(self, now: float) -> None:
        """Write readings that are due."""
        if now >= self._write_at:
            self._write(now)

    def _write(self, now: float) -> None:
        windows: list[tuple[str, str, int, int]] = []
        for key in self._changed:
            track = self._tracks[key]
            needed = track.needed_from() or (self._last + 1, 0)
            while track.numbers and track.numbers[0] < needed[0]:
                self._gone.append(track.numbers.popleft())
            windows.append((*key, *needed))
        readings = [reading for reading, _ in self._pending]
        old = [number for number in self._gone if number <= self._last - KEPT]
        try:
            if readings or old:
                self._store.write(readings, windows, old)
        except StateError as error:
            self._failed(error, now)
            return
        self.error = ""
        self._failing_since = float("inf")
        self._changed.clear()
        while self._gone and self._gone[0] <= self._last - KEPT:
            self._gone.popleft()
        self._release()
        self._write_at = float("inf")

    def _failed(self, error: StateError, now: float) -> None:
        """Schedule a retry; readings that cannot be written for long are acknowledged all the same."""
        self.error = error.message
        self._failing_since = min(self._failing_since, now)
        self._write_at = now + _TIDY_SECONDS
        if now - self._failing_since > _GIVE_UP:
            self._release()

    def _release(self) -> None:
        pending, self._pending = self._pending, []
        for _, hold in pending:
            hold.release()
