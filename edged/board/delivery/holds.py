"""Acknowledgements that wait until nothing needs their message any longer, and messages that wait for room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from edged.board.pipeline import Message, Reading
from edged.formats.channel.result import Sealed

WindowKey = tuple[str, str, bytes | Sealed]
"""The identity of a reading for one model: channel, topic, and the name of the reading."""


class Hold(Protocol):
    """A reading that waits until its results are safe."""

    def hold(self) -> None:
        """Wait for one more step."""

    def step_done(self) -> None:
        """End a step that :meth:`hold` began."""


class MessageAck:
    """A message's acknowledgement.

    :ivar can_wait: True if the broker waits for it: not with QoS 0.
    """

    __slots__ = ("_acknowledge", "_holders", "can_wait")

    def __init__(self, acknowledge: Callable[[], None], *, can_wait: bool = True) -> None:
        self._acknowledge = acknowledge
        self._holders = 1
        self.can_wait = can_wait

    def hold(self) -> None:
        """Delay the acknowledgement by one more holder."""
        self._holders += 1

    def release(self) -> None:
        """End one hold; the last one acknowledges the message."""
        self._holders -= 1
        if not self._holders:
            self._acknowledge()


class PendingReading:
    """A reading of one model that is not settled yet.

    :ivar key: its identity if it is a whole window; None for rows, which are settled once they are in their window.
    :ivar acks: the acknowledgements of the message, and of each copy that the broker redelivers meanwhile.
    """

    __slots__ = ("_done", "_holders", "acks", "key", "name", "reading")

    def __init__(
        self,
        key: WindowKey | None,
        name: WindowKey,
        reading: Reading,
        ack: MessageAck,
        done: Callable[[PendingReading], None],
    ) -> None:
        self.key = key
        self.name = name
        self.reading = reading
        self.acks = [ack]
        self._done = done
        self._holders = 1
        ack.hold()

    def hold(self) -> None:
        """Wait for one more step: a place in a queue, the way of a result to the broker, or the row log."""
        self._holders += 1

    def release(self) -> None:
        """End a step; the last one settles the reading. Each call pairs with :meth:`hold` or the constructor."""
        self._holders -= 1
        if not self._holders:
            self._done(self)
            for ack in self.acks:
                ack.release()

    def step_done(self) -> None:
        """End a step that :meth:`hold` began."""
        self.release()


_MOST = 2000
"""Messages: twice the number that a broker may deliver ahead of their acknowledgement."""


class Waiting(NamedTuple):
    """A message for one model.

    :ivar channel: the model's.
    :ivar acks: the acknowledgement of each copy.
    :ivar attempt: the number of the next attempt.
    """

    channel: str
    message: Message
    acks: list[MessageAck]
    attempt: int

    def release(self) -> None:
        """Release the acknowledgement of every copy."""
        for ack in self.acks:
            ack.release()


class Postponed:
    """Messages that wait for room, in order, ahead of later ones of their topic: counts of sealed readings grow."""

    def __init__(self) -> None:
        self._topics: dict[str, OrderedDict[tuple[str, bytes], Waiting]] = {}

    def holds(self, topic: str) -> bool:
        """Return True if messages of a topic wait."""
        return topic in self._topics

    def add(self, channel: str, message: Message, ack: MessageAck, attempt: int = 1) -> bool:
        """Queue a message; a copy of a queued message joins it. Return False if there is no room."""
        key = channel, message.digest
        waiting = self._topics.get(message.topic)
        there = None if waiting is None else waiting.get(key)
        if there is None:
            if sum(map(len, self._topics.values())) >= _MOST:
                return False
            there = Waiting(channel, message, [], attempt)
            self._topics.setdefault(message.topic, OrderedDict())[key] = there
        ack.hold()
        there.acks.append(ack)
        return True

    def due(self, has_room: Callable[[str], bool]) -> Iterator[Waiting]:
        """Yield and remove the messages that may be served now.

        :param has_room: returns True if one more window of a topic may wait for its result.
        """
        for topic in list(self._topics):
            waiting = self._topics[topic]
            while waiting and has_room(topic):
                yield waiting.popitem(last=False)[1]
            if not waiting:
                del self._topics[topic]
