"""Timers of a main loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


class Timer:
    """Calls ``action`` every ``interval`` seconds."""

    def __init__(self, interval: float, action: Callable[[], None]) -> None:
        self.at = time.monotonic() + interval
        self._interval = interval
        self._action = action

    def run_if_due(self, now: float) -> None:
        """Call the action if it is due."""
        if now >= self.at:
            self.at = now + self._interval
            self._action()


class Timers:
    """Several timers.

    :ivar at: when the next one is due, monotonic seconds.
    """

    def __init__(self, timers: Sequence[Timer]) -> None:
        self._timers = timers
        self.at = min(timer.at for timer in timers)

    def run_due(self, now: float) -> None:
        """Call all actions that are due."""
        if now >= self.at:
            for timer in self._timers:
                timer.run_if_due(now)
            self.at = min(timer.at for timer in self._timers)
