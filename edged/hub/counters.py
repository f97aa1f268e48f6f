"""Counts of opened, repeated and refused messages: in all and by board; and the last refusals by name."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from edged.base.errors import EdgedError
from edged.base.events import Event, event_of
from edged.base.log import RateLimited

_LOG = logging.getLogger(__name__)
_LATELY = 50
_MOST_STRANGERS = 100


@dataclass
class Counts:
    """Results opened, results that came twice, and what was refused, by the error's name."""

    opened: int = 0
    repeated: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Refusal(NamedTuple):
    """One message that was refused. ``time`` is Unix seconds."""

    time: float
    topic: str
    kind: str
    message: str


class HubCounters:
    """Counters of one hub process.

    :ivar published: messages that the local broker has taken; ``dropped``: those that it never gets.
    :ivar boards: counts by board.
    :ivar strangers: boards that announce and are not enrolled, with the time of their last announcement.
    """

    def __init__(self) -> None:
        self.all = Counts()
        self.published = self.dropped = 0
        self.boards: dict[str, Counts] = {}
        self.lately: deque[Refusal] = deque(maxlen=_LATELY)
        self.strangers: dict[str, float] = {}
        self._limited = RateLimited(_LOG)

    def _of(self, device: str) -> Counts:
        return self.boards.setdefault(device, Counts())

    def opened(self, device: str) -> None:
        """Count a result."""
        self.all.opened += 1
        self._of(device).opened += 1

    def repeated(self, device: str) -> None:
        """Count a result that had arrived before, redelivered through nobody's fault."""
        self.all.repeated += 1
        self._of(device).repeated += 1

    def refuse(self, topic: str, device: str, error: EdgedError) -> None:
        """Count a refusal of a message of an enrolled board."""
        kind = type(error).__name__
        self.all.refused[kind] += 1
        self._of(device).refused[kind] += 1
        self.lately.append(Refusal(time.time(), topic, kind, error.message))
        event = event_of(error, Event.RESULT_REFUSED)
        message = f"{topic}: {kind}: {error.message}"
        self._limited.warning(f"{device} {kind}", message, event, device=device, topic=topic, error=kind)

    def stranger(self, device: str) -> None:
        """Note a board that announces and is not enrolled."""
        if device not in self.strangers and len(self.strangers) >= _MOST_STRANGERS:
            self.strangers.pop(next(iter(self.strangers)))
        if device not in self.strangers:
            message = f"{device} announces results, and is not enrolled here"
            self._limited.warning("stranger", message, Event.STRANGER, device=device)
        self.strangers[device] = time.time()
        self.all.refused["UnknownSignerError"] += 1

    def forget(self, device: str) -> None:
        """Forget a board that is no longer enrolled."""
        self.boards.pop(device, None)
