"""Readings that wait until their model has room: unacknowledged, in order, one line a model."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from edged.board.delivery.hold import Hold
from edged.board.pipeline import Message


class InLine(NamedTuple):
    """A reading for one model.

    :ivar hold: a holder of its own, which lets go once the reading was taken.
    :ivar attempt: number of the next attempt.
    """

    channel: str
    message: Message
    hold: Hold
    attempt: int


class Lines:
    """The lines. How many messages may wait is bounded by the broker's client, which hands out no more."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[InLine]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def has(self, channel: str) -> bool:
        """Return True if readings wait for the model of a channel."""
        return channel in self._lines

    def add(self, one: InLine) -> None:
        """Let a reading wait."""
        self._lines.setdefault(one.channel, deque()).append(one)

    def is_due(self, has_room: Callable[[str], bool]) -> bool:
        """Return True if :meth:`take_due` has something."""
        return any(map(has_room, self._lines))

    def take_due(self, has_room: Callable[[str], bool], until: float) -> Iterator[InLine]:
        """Yield and remove readings while their models have room.

        :param until: monotonic seconds after which the rest waits for another turn.
        """
        for channel in list(self._lines):
            line = self._lines[channel]
            while line and time.monotonic() < until and has_room(channel):
                yield line.popleft()
            if not line:
                del self._lines[channel]
