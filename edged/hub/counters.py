"""The books of a hub: each message of an enrolled board ends in one count; and the last refusals by name."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edged.base.errors import EdgedError
from edged.base.events import Event, event_of
from edged.base.log import RateLimited

_LOG = logging.getLogger(__name__)
_LATELY = 50
_MOST_STRANGERS = 100


@dataclass
class Counts:
    """Messages of boards, and how they ended: ``heard`` is the sum of the others and of the messages that still wait.

    :ivar opened: results that were accepted.
    :ivar repeated: messages that came again through nobody's fault.
    :ivar refused: by the error's name.
    :ivar other: by the last level of their topics: announcements, inventories, statuses, reports, questions.
    """

    heard: int = 0
    opened: int = 0
    repeated: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    other: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        return {**vars(self), "refused": dict(self.refused), "other": dict(self.other)}


class Refusal(NamedTuple):
    """One message that was refused. ``time`` is Unix seconds."""

    time: float
    topic: str
    kind: str
    message: str


class HubCounters:
    """Counters of one hub process.

    :ivar published: messages that the local broker has taken; ``dropped``: those that it never gets.
    :ivar all: of all boards, and of strangers' announcements.
    :ivar boards: by board that is or was enrolled.
    :ivar strangers: boards that announce and are not enrolled, with the time of their last announcement.
    """

    def __init__(self) -> None:
        self.all = Counts()
        self.published = self.dropped = 0
        self.boards: dict[str, Counts] = {}
        self.lately: deque[Refusal] = deque(maxlen=_LATELY)
        self.strangers: dict[str, float] = {}
        self._limited = RateLimited(_LOG)

    def _both(self, device: str) -> tuple[Counts, Counts]:
        return self.all, self.boards.setdefault(device, Counts())

    def heard(self, device: str) -> None:
        """Count a message that has arrived."""
        for counts in self._both(device):
            counts.heard += 1

    def opened(self, device: str) -> None:
        """Count a result."""
        for counts in self._both(device):
            counts.opened += 1

    def repeated(self, device: str) -> None:
        """Count a message that had arrived before, redelivered through nobody's fault."""
        for counts in self._both(device):
            counts.repeated += 1

    def other(self, device: str, level: str) -> None:
        """Count a message that is no result and was not refused."""
        for counts in self._both(device):
            counts.other[level] += 1

    def refuse(self, topic: str, device: str, error: EdgedError) -> None:
        """Count a refusal of a message of an enrolled board."""
        kind = type(error).__name__
        for counts in self._both(device):
            counts.refused[kind] += 1
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
        self.all.heard += 1
        self.all.refused["UnknownSignerError"] += 1
