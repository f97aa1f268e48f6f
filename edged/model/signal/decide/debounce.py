"""N of M without a watched label: a change to any label takes several windows that come to it."""

from __future__ import annotations

from collections import deque

from edged.formats.spec import Needed


class Debounce:
    """Another label holds once N of the last M windows came to it. M goes back to the last change at most.

    :param begin: number of the label that holds at first; None: the first window's.
    """

    def __init__(self, needed: Needed, begin: int | None) -> None:
        self._n = needed.n
        self._last: deque[int] = deque(maxlen=needed.of)
        self._holds = begin

    def step(self, label: int) -> int:
        """Take a window's label, by its number, and return the one that holds."""
        if self._holds is None:
            self._holds = label
        else:
            self._last.append(label)
        if label != self._holds and self._last.count(label) >= self._n:
            self._holds = label
            self._last.clear()
        return self._holds
