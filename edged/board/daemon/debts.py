"""What a message is owed: its acknowledgement, once everybody who still needs the message has let go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edged.board.pipeline import Reading
from edged.formats.channel.result import Sealed

WindowKey = tuple[str, str, bytes | Sealed]
"""What a reading of one model is known by: channel, topic, and its name."""


class Waiter(Protocol):
    """What waits until a result is safe."""

    def hold(self) -> None:
        """Wait for one more."""

    def step_done(self) -> None:
        """End what :meth:`hold` began."""


class Debt:
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


class Owed:
    """A reading of one model, until that model is done with it.

    :ivar key: its name if it is a whole window; None of rows, which are done with once they are in their window.
    :ivar debts: of the message, and of each further copy of it that the broker hands out meanwhile.
    """

    __slots__ = ("_done", "_holders", "debts", "key", "name", "reading")

    def __init__(
        self, key: WindowKey | None, name: WindowKey, reading: Reading, debt: Debt, done: Callable[[Owed], None]
    ) -> None:
        self.key = key
        self.name = name
        self.reading = reading
        self.debts = [debt]
        self._done = done
        self._holders = 1
        debt.hold()

    def hold(self) -> None:
        """Let it wait for one more step: a place in a queue, its result's way to the broker, or the journal."""
        self._holders += 1

    def release(self) -> None:
        """End a step; the last one ends it all. Each call follows :meth:`hold`, or ends what was begun with it."""
        self._holders -= 1
        if not self._holders:
            self._done(self)
            for debt in self.debts:
                debt.release()

    def step_done(self) -> None:
        """End a step that :meth:`hold` began."""
        self.release()
