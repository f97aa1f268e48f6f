"""When to try again, and when trying again is the trouble."""

from __future__ import annotations

import math
import random
from collections import deque

_FIRST, _LONGEST, _MOST_DOUBLINGS = 1.0, 15.0, 4
"""Seconds. What waits for a broker that is back should not wait a minute more for this."""
_STABLE = 5.0
_TAKEN_OVER = 142  # MQTT 5 reason code
_TAKEOVERS, _WITHIN = 3, 60.0


class Patience:
    """Jittered exponential backoff, set back by a connection that held; and a count of those that were taken over."""

    def __init__(self) -> None:
        self._failures = 0
        self._takeovers: deque[float] = deque(maxlen=_TAKEOVERS)

    def delay(self) -> float:
        """Return the seconds to wait after one more failure: 1 to 15, less up to half, out of step with others."""
        delay = min(math.ldexp(_FIRST, self._failures), _LONGEST)
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311  not for secrets

    def note_loss(self, now: float, held: float, code: int) -> None:
        """Note the end of a connection that stood for ``held`` seconds.

        :param code: the broker's reason, or 0: MQTT 3.1.1 gives none, and a takeover shows there by coming soon only.
        """
        if held >= _STABLE:
            self._failures = 0
        if code == _TAKEN_OVER or (not code and held < _STABLE):
            self._takeovers.append(now)

    def contested(self, now: float) -> bool:
        """Return whether another client seems to take each connection over: three within the last minute."""
        return len(self._takeovers) == _TAKEOVERS and now - self._takeovers[0] <= _WITHIN
