"""Rows into windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Slice(NamedTuple):
    """A full window.

    :ivar rows: float32 [size, channels]; a view that is valid until the iterator goes on.
    :ivar first: number of its first row since the start, from 0; ``last`` likewise.
    """

    rows: Floats
    first: int
    last: int


class Window:
    """Collects rows of one topic. A hop below ``size`` makes windows overlap."""

    def __init__(self, size: int, hop: int, channels: int) -> None:
        self._size = size
        self._hop = hop
        self._rows = np.zeros((size, channels), np.float32)
        self._filled = 0
        self._seen = 0
        self._pushing = False

    def push(self, rows: Floats) -> Iterator[Slice]:
        """Take rows (float32 [n, channels], in order) and yield each window that they fill.

        A caller that stops half-way (its model refused a window) leaves a gap: the next window begins anew behind it.
        """
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

    def reset(self) -> None:
        """Forget the rows of the window that is being filled."""
        self._filled = 0
