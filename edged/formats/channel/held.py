"""Messages that arrived ahead of the announcement of their key: they wait for it, within one budget."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from edged.formats.channel.reading import names_of

_BUDGET = 4 << 20
_EACH = 8192
"""Bytes that each message counts for beside its own: some 500 are held, fewer than brokers hand out ahead of their
acknowledgement where they speak MQTT 5."""
_SECONDS = 600.0


class Message(msgspec.Struct, kw_only=True, eq=False):
    """A message as it arrived.

    :ivar retained: True if the broker kept it.
    :ivar since: time of arrival, monotonic seconds.
    :ivar device: the board that its topic names.
    :ivar level: last level of its topic.
    """

    topic: str
    payload: bytes
    retained: bool
    since: float
    device: str = ""
    level: str = ""

    def __post_init__(self) -> None:
        self.device, self.level = names_of(self.topic)

    @property
    def cost(self) -> int:
        """Bytes of the budget that it takes."""
        return _EACH + len(self.payload)


M = TypeVar("M", bound=Message)


class HeldMessages(Generic[M]):
    """Messages that wait for an announcement, by board.

    Above the budget the board with the most bytes loses its oldest message: a board that floods loses its own.
    """

    def __init__(self) -> None:
        self._boards: dict[str, deque[M]] = {}
        self._cost = 0

    def __iter__(self) -> Iterator[M]:
        return itertools.chain(*self._boards.values())

    def copy(self) -> HeldMessages[M]:
        """Return the same messages, for a caller that may have to take back what it did since."""
        copy = HeldMessages[M]()
        copy._boards = {device: held.copy() for device, held in self._boards.items()}
        copy._cost = self._cost
        return copy

    def add(self, message: M) -> None:
        """Hold a message: :meth:`surplus` names those that it leaves no room for."""
        self._boards.setdefault(message.device, deque()).append(message)
        self._cost += message.cost

    def take(self, device: str) -> list[M]:
        """Remove and return all messages of a board, in the order in which they arrived."""
        self._cost -= self._cost_of(device)
        return list(self._boards.pop(device, ()))

    def surplus(self) -> list[M]:
        """Remove and return the messages above the budget."""
        gone = []
        while self._cost > _BUDGET:
            gone.append(self._pop(max(self._boards, key=self._cost_of)))
        return gone

    def expired(self, now: float) -> list[M]:
        """Remove and return the messages that have waited for more than ten minutes.

        :param now: monotonic seconds.
        """
        gone = []
        for device in list(self._boards):
            while (held := self._boards.get(device)) and now - held[0].since > _SECONDS:
                gone.append(self._pop(device))
        return gone

    def _cost_of(self, device: str) -> int:
        return sum(one.cost for one in self._boards.get(device, ()))

    def _pop(self, device: str) -> M:
        held = self._boards[device]
        oldest = held.popleft()
        self._cost -= oldest.cost
        if not held:
            del self._boards[device]
        return oldest
