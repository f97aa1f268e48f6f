"""Rows before they make windows: joined from several topics, cleaned, and put in the order of time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edged.base.errors import ReadingGapError, ReadingOrderError, ReadingValueError
from edged.base.units import parse_duration
from edged.formats.spec import Chain, Input, Join

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Joiner:
    """``input.join``: the newest values of each topic, and when they make a row.

    :param places: of each topic, the columns of a row that it brings.
    """

    def __init__(self, join: Join, places: Sequence[Sequence[int]]) -> None:
        self._every = join.when == "all"
        self._within = math.inf if join.within is None else parse_duration(join.within)
        self._places = [np.array(place) for place in places]
        self._row = np.zeros(sum(map(len, places)), np.float32)
        self._times = np.full(len(places), -math.inf)
        self._new = [False] * len(places)

    def hold(self, topic: int, value: Floats, time: float) -> None:
        """Take a value of one topic (float32 [its channels]) that is no news: it makes no row.

        Where ``input.join.within`` bounds the age of values it is passed over: nobody knows its age.
        """
        if self._within == math.inf:
            self._row[self._places[topic]] = value
            self._times[topic] = max(time, self._times[topic])
            self._new[topic] = True

    def push(self, topic: int, values: Floats, times: Doubles) -> tuple[Floats, Doubles]:
        """Take values of one topic (float32 [n, its channels]) and return the rows that they complete.

        :param topic: its number in ``places``.
        :return: float32 [m, channels], and float64 [m]: the newest time of each.
        """
        rows: list[Floats] = []
        moments: list[float] = []
        for value, time in zip(values, times, strict=True):
            self._row[self._places[topic]] = value
            self._times[topic] = time
            self._new[topic] = True
            newest = float(self._times.max())
            self._new = [new and newest - at <= self._within for new, at in zip(self._new, self._times, strict=True)]
            if all(self._new):
                rows.append(self._row.copy())
                moments.append(newest)
                if self._every:
                    self._new = [False] * len(self._new)
        return np.array(rows, np.float32).reshape(-1, len(self._row)), np.array(moments)


class Cleaner:
    """``input.nan``, ``input.range`` and ``input.outside``."""

    def __init__(self, source: Input) -> None:
        self._nan = None if source.nan == "refuse" else np.float32(source.nan)
        self._range = source.range
        self._clamps = source.outside == "clamp"

    def __call__(self, rows: Floats) -> Floats:
        """Return rows (float32 [n, channels]) that are finite and in range.

        :raises ReadingValueError: they are not, and the manifest wants that refused.
        """
        bounds = self._range
        if bounds is None and math.isfinite(np.vdot(rows, rows)):  # quick, and finite only if every value is
            return rows
        low, high = rows.min(), rows.max()  # NaN if any value is
        if not (math.isfinite(low) and math.isfinite(high)):
            if self._nan is None:
                raise ReadingValueError("a reading holds a value that is not finite")
            rows = np.where(np.isfinite(rows), rows, self._nan)
            low, high = rows.min(), rows.max()
        if bounds is not None and (low < bounds[0] or high > bounds[1]):
            if not self._clamps:
                raise ReadingValueError(f"a reading holds a value outside input.range, {bounds[0]} to {bounds[1]}")
            rows = rows.clip(*bounds)
        return rows


_MOST_ROWS_BETWEEN = 100_000
"""Rows that one reading may have put in front of it; after so long a pause the window restarts."""
_ROUNDING = 1e-6
"""Share of a period by which a row may be late and still count as on the grid."""


class Piece(NamedTuple):
    """Rows without a gap between them.

    :ivar rows: float32 [n, channels]; n may be 0.
    :ivar times: float64 [n], seconds.
    :ivar restarts: the window restarts with them.
    """

    rows: Floats
    times: Doubles
    restarts: bool


class Timeline:
    """``input.order``, ``input.gap`` and ``input.resample`` for one stream of rows."""

    def __init__(self, chain: Chain) -> None:
        source = chain.input
        self._order = source.order
        self._period = None if source.hertz is None else 1 / source.hertz
        self._resamples = source.resample != "none"
        self._linear = source.resample == "linear"
        self._fills = source.gap is not None and source.gap.then == "fill"
        self._window = _seconds_of(chain)
        self._longest = self._window if self._resamples else math.inf
        if source.gap is not None:
            self._longest = parse_duration(source.gap.over)
        self._last: tuple[float, Floats] | None = None
        self._next = 0.0
        """Time of the next row of the grid that rows are resampled to."""

    @staticmethod
    def needed(chain: Chain) -> bool:
        """Return True if a chain needs the times of rows."""
        return chain.input.gap is not None or chain.input.resample != "none" or chain.window.in_time

    def push(self, rows: Floats, times: Doubles) -> Iterator[Piece]:
        """Take rows with their times and yield them in pieces.

        :raises ReadingGapError: more rows than a window should need are missing before one.
        :raises ReadingOrderError: one is older than the row before it, and the manifest wants that refused.
        """
        if len(rows) == 1 and self._last is not None and not self._resamples:  # what most messages are
            time = float(times[0])
            if 0 <= time - self._last[0] <= self._longest:
                self._last = (time, rows[0])
                yield Piece(rows, times, restarts=False)
                return
        breaks = self._backwards(times)
        if len(breaks):
            if self._order == "refuse":
                raise ReadingOrderError("a row is older than the row before it")
            if self._order == "drop":
                rows, times = self._without_old(rows, times)
                breaks = breaks[:0]
        if not len(rows):
            return
        before = math.nan if self._last is None else self._last[0]
        gaps = np.flatnonzero(np.diff(times, prepend=before) > self._longest)
        starts = sorted({*breaks.tolist(), *gaps.tolist()})
        bounds = [0, *(start for start in starts if start), len(rows)]
        for first, end in itertools.pairwise(bounds):
            yield from self._piece(rows[first:end], times[first:end], broken=first in starts)

    def _backwards(self, times: Doubles) -> npt.NDArray[np.intp]:
        before = -math.inf if self._last is None else self._last[0]
        return np.flatnonzero(np.diff(times, prepend=before) < 0)

    def _without_old(self, rows: Floats, times: Doubles) -> tuple[Floats, Doubles]:
        before = -math.inf if self._last is None else self._last[0]
        newest = np.maximum.accumulate(np.concatenate(([before], times)))[:-1]
        kept = times >= newest
        return rows[kept], times[kept]

    def _piece(self, rows: Floats, times: Doubles, *, broken: bool) -> Iterator[Piece]:
        restarts = broken
        if broken and self._fills and self._last is not None and 0 < times[0] - self._last[0] <= self._window:
            rows, times = self._filled(rows, times)
            restarts = False
        result = self._resampled(rows, times, restarts=restarts) if self._resamples else (rows, times)
        self._last = (float(times[-1]), rows[-1].copy())
        yield Piece(*result, restarts)

    def reset(self) -> None:
        """Forget the last row: nothing follows from it for the next one."""
        self._last = None

    def _filled(self, rows: Floats, times: Doubles) -> tuple[Floats, Doubles]:
        """Return rows with the last one repeated in front of them, once a period, up to their first."""
        if self._last is None or self._period is None:
            return rows, times
        last, row = self._last
        missing = max(0, round((times[0] - last) / self._period) - 1)
        if missing > _MOST_ROWS_BETWEEN:
            self.reset()
            raise ReadingGapError(f"{missing:,} rows are missing before a reading; its window begins anew")
        filling = last + self._period * np.arange(1, missing + 1)
        return np.concatenate((np.tile(row, (missing, 1)), rows)), np.concatenate((filling, times))

    def _resampled(self, rows: Floats, times: Doubles, *, restarts: bool) -> tuple[Floats, Doubles]:
        """Return the rows of the grid up to the last row; the grid begins with the first row after a break."""
        if self._period is None:
            return rows, times
        if self._last is None or restarts:
            self._next = float(times[0])
        else:
            last, row = self._last
            rows, times = np.concatenate((row[np.newaxis], rows)), np.concatenate(([last], times))
        count = max(0, math.floor((times[-1] - self._next) / self._period + _ROUNDING) + 1)
        if count > _MOST_ROWS_BETWEEN + len(rows):
            self.reset()
            raise ReadingGapError(f"a reading lies {count:,} rows behind the one before it; its window begins anew")
        grid = self._next + self._period * np.arange(count)
        self._next += self._period * count
        if self._linear:
            columns = [np.interp(grid, times, column) for column in rows.T]
            return np.stack(columns, axis=1).astype(np.float32), grid
        newest = np.searchsorted(times, grid + _ROUNDING * self._period, side="right") - 1
        return rows[newest], grid


def _seconds_of(chain: Chain) -> float:
    """Return how long a window lasts, in seconds; without end where only rows are stated."""
    if chain.window.in_time:
        return chain.window.extent
    hertz = chain.input.hertz
    return math.inf if hertz is None else chain.window.extent / hertz
