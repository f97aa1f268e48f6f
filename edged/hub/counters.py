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

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(one + more for one, more in zip(vars(self).values(), vars(other).values(), strict=True)))

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
    :ivar boards: counts by board that is or was enrolled.
    :ivar strangers: boards that announce and are not enrolled, with the time of their last announcement.
    """

    def __init__(self) -> None:
        self.published = self.dropped = 0
        self.boards: dict[str, Counts] = {}
        self.lately: deque[Refusal] = deque(maxlen=_LATELY)
        self.strangers: dict[str, float] = {}
        self._strangers = Counts()
        self._limited = RateLimited(_LOG)

    def of(self, device: str) -> Counts:
        """Return the counts of an enrolled board."""
        return self.boards.setdefault(device, Counts())

    @property
    def all(self) -> Counts:
        """The counts of all boards, and of strangers' announcements."""
        return sum(self.boards.values(), self._strangers)

    def refuse(self, topic: str, device: str, error: EdgedError) -> None:
        """Count a refusal of a message of an enrolled board."""
        kind = type(error).__name__
        self.of(device).refused[kind] += 1
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
        self._strangers.heard += 1
        self._strangers.refused["UnknownSignerError"] += 1
