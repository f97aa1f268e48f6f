"""The last hour of each place, in bounded memory, for the page's charts."""

from __future__ import annotations

import math
import sys
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from threading import Lock

from edged.hub.sinks import AcceptedResult, ResultSink

STEP = 10.0
"""Seconds of a bucket, counted from 1970."""
SPAN = 3600.0
MOST_POINTS = 2 * int(SPAN / STEP)
"""Points of a place at most: two a bucket, so that a whole hour fits however fast results come."""
MOST_PLACES = 4096

Point = tuple[float, float | None, str | None]
"""Unix seconds, score or value, label."""


class _Series:
    """The points of one place, oldest first, in 24 bytes each."""

    __slots__ = ("labels", "times", "values")

    def __init__(self) -> None:
        self.times = array("d")
        self.values = array("d")
        self.labels: list[str | None] = []

    def add(self, time: float, value: float, label: str | None) -> None:
        self._drop(bisect_right(self.times, time), len(self.times))
        start = time // STEP * STEP
        first = bisect_left(self.times, start)
        if first < len(self.times):
            if self.labels[-1] == label:
                self._drop(len(self.times) - 1, len(self.times))
            else:
                self._drop(first, len(self.times) - 1)
        self.times.append(time)
        self.values.append(value)
        self.labels.append(label)
        too_old = bisect_left(self.times, start - SPAN + STEP)
        self._drop(0, max(too_old, len(self.times) - MOST_POINTS))

    def _drop(self, start: int, end: int) -> None:
        del self.times[start:end], self.values[start:end], self.labels[start:end]

    def from_(self, time: float) -> Iterator[Point]:
        for at in range(bisect_left(self.times, time), len(self.times)):
            value = self.values[at]
            yield self.times[at], None if math.isnan(value) else value, self.labels[at]


class History(ResultSink):
    """Remembers the results of each place within the last hour. Any thread may use it.

    Of each bucket of 10 seconds two points are kept at most: the newest, and before it the newest that had another
    label, so that no change of labels goes unseen. A place takes 17 kB at most.

    :param places: most places to remember; the one that was silent for longest makes room.
    """

    def __init__(self, places: int = MOST_PLACES) -> None:
        self._most = places
        self._series: dict[tuple[str, str], _Series] = {}  # the one noted last stands last
        self._lock = Lock()

    def deliver(self, result: AcceptedResult) -> None:
        """See :class:`ResultSink`."""
        if result.newest:
            opened, said = result.opened, result.opened.result
            value = said.value if said.score is None else said.score
            self.note(opened.device, result.place.levels, time.time(), value, said.label)  # by the clock of the page

    def note(self, device: str, place: str, time: float, value: float | None, label: str | None) -> None:
        """Remember a result.

        :param place: its levels.
        :param time: Unix seconds by this machine's clock: boards' clocks differ. Where it goes back, what was noted
            for later times is forgotten.
        :param value: a score, or a regressor's value; what is not finite counts as None.
        """
        if not math.isfinite(time):
            return
        number = math.nan if value is None or not math.isfinite(value) else float(f"{value:.6g}")
        if label is not None:
            label = sys.intern(label)  # one copy, however many points bear it
        with self._lock:
            series = self._series.pop((device, place), None)
            if series is None:
                series = _Series()
                if len(self._series) >= self._most:
                    del self._series[next(iter(self._series))]
            self._series[device, place] = series
            series.add(round(time, 1), number, label)

    def forget(self, device: str) -> None:
        """Forget a board."""
        with self._lock:
            for key in [key for key in self._series if key[0] == device]:
                del self._series[key]

    def shown(self, now: float, since: float = -math.inf) -> dict[str, dict[str, list[Point]]]:
        """Return the points of the last hour, oldest first, by board and place; those without any are left out.

        :param now: Unix seconds.
        :param since: leave out what is older. At a multiple of :data:`STEP` the points before it change no more, so
            long as nothing older is noted.
        """
        oldest = max(since, now - SPAN)
        found: dict[str, dict[str, list[Point]]] = {}
        with self._lock:
            for (device, place), series in self._series.items():
                if points := list(series.from_(oldest)):
                    found.setdefault(device, {})[place] = points
        return found
