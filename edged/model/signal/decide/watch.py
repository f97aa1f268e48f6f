"""Hysteresis with N of M: when the watched label, or an anomaly, begins and ends."""

from __future__ import annotations

from collections import deque

import numpy as np

from edged.formats.spec import Decide


def as_score(bound: float) -> float:
    """Return a bound as a score would have it: float32 has no 0.7, and the score that is meant by it lies below."""
    with np.errstate(over="ignore"):
        return float(np.float32(bound))


class Watch:
    """On after N of the last M scores were at or above ``enter``, off after N of them were below ``leave``.

    M goes back to the last change at most.

    :ivar active: whether it is on; it begins off.
    """

    def __init__(self, decide: Decide) -> None:
        self._enter = as_score(decide.level)
        self._leave = self._enter if decide.leave is None else as_score(decide.leave)
        self._n = decide.needed.n
        self._last: deque[bool] = deque(maxlen=decide.needed.of)
        self.active = False

    def step(self, score: float) -> bool:
        """Take a window's score and return whether it is on."""
        self._last.append(score < self._leave if self.active else score >= self._enter)
        if sum(self._last) >= self._n:
            self.active = not self.active
            self._last.clear()
        return self.active
