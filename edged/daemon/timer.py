"""What the main loop does from time to time."""

from __future__ import annotations

import time
from collections.abc import Callable


class Timer:
    """Something to do every ``interval`` seconds."""

    def __init__(self, interval: float, action: Callable[[], None]) -> None:
        self.at = time.monotonic() + interval
        self._interval = interval
        self._action = action

    def run_if_due(self) -> None:
        """Do it, if it is time."""
        now = time.monotonic()
        if now >= self.at:
            self.at = now + self._interval
            self._action()
