"""``decide.smooth``: over the last windows; at the beginning, over those that there are."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Smoother:
    """Mean or median of each score over the last windows.

    Each is worked out anew from all of them: a running sum would keep what a single large value had rounded away.

    :param over: how many windows.
    """

    def __init__(self, over: int, *, median: bool) -> None:
        self._over = over
        self._reduce = _median if median else _mean
        self._last: Floats = np.zeros((0, 0), np.float32)
        self._seen = 0

    def step(self, scores: Floats) -> Floats:
        """Take a window's scores (float32 [k]) and return the smoothed ones (float32 [k])."""
        if not self._seen:
            self._last = np.zeros((self._over, len(scores)), np.float32)
        self._last[self._seen % self._over] = scores
        self._seen += 1
        return self._reduce(self._last[: self._seen])


def _mean(rows: Floats) -> Floats:
    """Return the mean of each column; summed as float64, so that even scores keep their value."""
    mean: Floats = (np.add.reduce(rows, axis=0, dtype=np.float64) / len(rows)).astype(np.float32)
    return mean


def _median(rows: Floats) -> Floats:
    """Return the median of each column, as `numpy.median`, which takes 10 us for the smallest."""
    low, high = (len(rows) - 1) // 2, len(rows) // 2
    return _mean(np.partition(rows, (low, high), axis=0)[low : high + 1])


class Majority:
    """The label that most of the last windows came to; of those that are even, the one that came last.

    :param over: how many windows.
    """

    def __init__(self, over: int) -> None:
        self._last: deque[int] = deque(maxlen=over)

    def step(self, label: int) -> int:
        """Take a window's label, by its number, and return the majority's."""
        self._last.append(label)
        counts = Counter(reversed(self._last))  # in this order, so that `max` meets the newest first
        return max(counts, key=counts.__getitem__)
