"""Rows into windows: by their number, or by their time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edged.base.errors import ReadingGapError
from edged.formats.spec import Chain

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_MOST_ROWS_IN_TIME = 100_000
"""Rows that a window by time may hold; a sensor that sends more than that is not the one that was meant."""


class Slice(NamedTuple):
    """A full window.

    :ivar rows: float32 [size, channels]; a view that is valid until the iterator goes on.
    :ivar first: number of its first row since the start, from 0; ``last`` likewise.
    """

    rows: Floats
    first: int
    last: int


class Windower(Protocol):
    """Collects rows of one topic into windows."""

    @property
    def begins(self) -> int:
        """Number of the first row that is kept for the next window, from 0."""

    def push(self, rows: Floats, times: Doubles | None) -> Iterator[Slice]:
        """Take rows (float32 [n, channels], in order) and yield each window that they fill.

        A caller that stops half-way (its model refused a window) leaves a gap: the next window starts behind it.

        :param times: float64 [n], seconds, where windows are by time.
        """

    def reset(self) -> bool:
        """Forget the rows of the window that is being filled; return True if there were any."""


def new_window(chain: Chain) -> Windower:
    """Return the collector of the windows that a manifest wants."""
    channels = len(chain.input.channels)
    if chain.rows is None or chain.hop is None:
        return TimeWindow(chain.window.extent, chain.window.step, channels)
    return RowWindow(chain.rows, chain.hop, channels)


class RowWindow:
    """Windows of ``size`` rows. A hop below ``size`` makes them overlap."""

    def __init__(self, size: int, hop: int, channels: int) -> None:
        self._size = size
        self._hop = hop
        self._rows = np.zeros((size, channels), np.float32)
        self._filled = 0
        self._seen = 0
        self._pushing = False

    @property
    def begins(self) -> int:
        """As :attr:`Windower.begins`."""
        return self._seen - self._filled

    def push(self, rows: Floats, _times: Doubles | None = None) -> Iterator[Slice]:
        """As :meth:`Windower.push`."""
        if self._pushing:
            self.reset()
        self._pushing = True
        start, at = self._seen, 0
        self._seen += len(rows)
        while at < len(rows):
            taken = min(self._size - self._filled, len(rows) - at)
            self._rows[self._filled : self._filled + taken] = rows[at : at + taken]
            self._filled += taken
            at += taken
            if self._filled == self._size:
                yield Slice(self._rows, start + at - self._size, start + at - 1)
                self._filled = self._size - self._hop
                self._rows[: self._filled] = self._rows[self._hop :]
        self._pushing = False

    def reset(self) -> bool:
        """As :meth:`Windower.reset`."""
        had, self._filled = self._filled > 0, 0
        self._pushing = False
        return had


class TimeWindow:
    """Windows of ``size`` seconds, from the time of the first row on; one is full when a row beyond it comes."""

    def __init__(self, size: float, hop: float, channels: int) -> None:
        self._size = size
        self._hop = hop
        self._seen = 0
        self._pushing = False
        self._rows: Floats = np.zeros((0, channels), np.float32)
        self._times: Doubles = np.zeros(0, np.float64)
        self._begin: float | None = None

    @property
    def begins(self) -> int:
        """As :attr:`Windower.begins`."""
        return self._seen - len(self._times)

    def push(self, rows: Floats, times: Doubles | None) -> Iterator[Slice]:
        """As :meth:`Windower.push`.

        :raises ReadingGapError: more rows came than a window may hold.
        """
        if times is None:
            raise TypeError("windows by time need times")
        if self._pushing:
            self.reset()
        self._pushing = True
        start = self._seen + len(rows)
        self._seen = start
        self._rows = np.concatenate((self._rows, rows))
        self._times = np.concatenate((self._times, times))
        if self._begin is None:
            self._begin = float(self._times[0])
        while len(self._times) and self._times[-1] >= self._begin + self._size:
            end = int(np.searchsorted(self._times, self._begin + self._size))
            if end:
                first = start - len(self._times)
                yield Slice(self._rows[:end], first, first + end - 1)
            self._advance()
        self._pushing = False
        if len(self._rows) > _MOST_ROWS_IN_TIME:
            self.reset()
            raise ReadingGapError(f"a window by time holds over {_MOST_ROWS_IN_TIME:,} rows; it begins anew")

    def _advance(self) -> None:
        """Go on to the next window that holds a row, at a whole number of hops."""
        begin = (self._begin or 0.0) + self._hop
        gone = int(np.searchsorted(self._times, begin))
        self._rows, self._times = self._rows[gone:].copy(), self._times[gone:]
        if len(self._times) and self._times[0] >= begin + self._size:
            begin += self._hop * ((self._times[0] - begin - self._size) // self._hop + 1)
        self._begin = begin

    def reset(self) -> bool:
        """As :meth:`Windower.reset`."""
        had = len(self._times) > 0
        self._rows, self._times, self._begin = self._rows[:0], self._times[:0], None
        self._pushing = False
        return had
