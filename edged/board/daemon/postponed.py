"""Messages that wait, unacknowledged, until fewer windows of their topic wait for their results."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from edged.board.daemon.debts import Debt
from edged.board.pipeline import Message

_MOST = 2000
"""Messages: twice what a broker may hand out ahead of their acknowledgement. A broker keeps to that."""


class Waiting(NamedTuple):
    """A message for one model.

    :ivar channel: the model's.
    :ivar debts: the acknowledgement of each copy.
    :ivar attempt: which one it will be.
    """

    channel: str
    message: Message
    debts: list[Debt]
    attempt: int

    def release(self) -> None:
        """Need no copy of it any longer."""
        for debt in self.debts:
            debt.release()


class Postponed:
    """Served in their order, before anything of their topic that comes later: counts of sealed readings grow."""

    def __init__(self) -> None:
        self._topics: dict[str, OrderedDict[tuple[str, bytes], Waiting]] = {}

    def holds(self, topic: str) -> bool:
        """Tell whether messages of a topic wait."""
        return topic in self._topics

    def add(self, channel: str, message: Message, debt: Debt, attempt: int = 1) -> bool:
        """Have a message wait; a copy of one that does, waits with it. Return whether there is room."""
        key = channel, message.digest
        waiting = self._topics.get(message.topic)
        there = None if waiting is None else waiting.get(key)
        if there is None:
            if sum(map(len, self._topics.values())) >= _MOST:
                return False
            there = Waiting(channel, message, [], attempt)
            self._topics.setdefault(message.topic, OrderedDict())[key] = there
        debt.hold()
        there.debts.append(debt)
        return True

    def due(self, has_room: Callable[[str], bool]) -> Iterator[Waiting]:
        """Yield and forget what may be served now.

        :param has_room: whether one more window of a topic may wait for its result.
        """
        for topic in list(self._topics):
            waiting = self._topics[topic]
            while waiting and has_room(topic):
                yield waiting.popitem(last=False)[1]
            if not waiting:
                del self._topics[topic]
