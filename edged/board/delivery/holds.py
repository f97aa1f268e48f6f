"""Who still needs a message: its acknowledgement waits for all of them, and so do messages that have no room yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from edged.board.pipeline import Message, Reading
from edged.formats.channel.result import Sealed

WindowKey = tuple[str, str, bytes | Sealed]
"""What a reading of one model is known by: channel, topic, and its name."""


class Hold(Protocol):
    """What waits until a result is safe."""

    def hold(self) -> None:
        """Wait for one more."""

    def step_done(self) -> None:
        """End what :meth:`hold` began."""


class MessageAck:
    """A message's acknowledgement.

    :ivar can_wait: whether the broker waits for it: not with QoS 0.
    """

    __slots__ = ("_acknowledge", "_holders", "can_wait")

    def __init__(self, acknowledge: Callable[[], None], *, can_wait: bool = True) -> None:
        self._acknowledge = acknowledge
        self._holders = 1
        self.can_wait = can_wait

    def hold(self) -> None:
        """Let the acknowledgement wait for one more."""
        self._holders += 1

    def release(self) -> None:
        """Need the message no longer; the last one to say so acknowledges it."""
        self._holders -= 1
        if not self._holders:
            self._acknowledge()


class PendingReading:
    """A reading of one model, until that model is done with it.

    :ivar key: its name if it is a whole window; None of rows, which are done with once they are in their window.
    :ivar acks: of the message, and of each further copy of it that the broker hands out meanwhile.
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
        """Let it wait for one more step: a place in a queue, its result's way to the broker, or the journal."""
        self._holders += 1

    def release(self) -> None:
        """End a step; the last one ends it all. Each call follows :meth:`hold`, or ends what was begun with it."""
        self._holders -= 1
        if not self._holders:
            self._done(self)
            for ack in self.acks:
                ack.release()

    def step_done(self) -> None:
        """End a step that :meth:`hold` began."""
        self.release()


_MOST = 2000
"""Messages: twice what a broker may hand out ahead of their acknowledgement. A broker keeps to that."""


class Waiting(NamedTuple):
    """A message for one model.

    :ivar channel: the model's.
    :ivar acks: the acknowledgement of each copy.
    :ivar attempt: which one it will be.
    """

    channel: str
    message: Message
    acks: list[MessageAck]
    attempt: int

    def release(self) -> None:
        """Need no copy of it any longer."""
        for ack in self.acks:
            ack.release()


class Postponed:
    """Served in their order, before anything of their topic that comes later: counts of sealed readings grow."""

    def __init__(self) -> None:
        self._topics: dict[str, OrderedDict[tuple[str, bytes], Waiting]] = {}

    def holds(self, topic: str) -> bool:
        """Tell whether messages of a topic wait."""
        return topic in self._topics

    def add(self, channel: str, message: Message, ack: MessageAck, attempt: int = 1) -> bool:
        """Have a message wait; a copy of one that does, waits with it. Return whether there is room."""
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
        """Yield and forget what may be served now.

        :param has_room: whether one more window of a topic may wait for its result.
        """
        for topic in list(self._topics):
            waiting = self._topics[topic]
            while waiting and has_room(topic):
                yield waiting.popitem(last=False)[1]
            if not waiting:
                del self._topics[topic]
