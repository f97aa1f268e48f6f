"""One counter for every "when all have let go": of a message, of a reading's count, of the rows of a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self


class Hold:
    """Calls back once all its holders have let go. Its maker is the first of them.

    :param released: called once, by the last :meth:`release`.
    """

    __slots__ = ("_holders", "_released")

    def __init__(self, released: Callable[[], None]) -> None:
        self._released = released
        self._holders = 1

    def hold(self) -> Self:
        """Add a holder; each ends with one :meth:`release`."""
        self._holders += 1
        return self

    def release(self) -> None:
        """Let go."""
        self._holders -= 1
        if not self._holders:
            self._released()
