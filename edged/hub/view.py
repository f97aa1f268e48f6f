"""What is known of each board at this moment, to be shown."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edged.formats.channel.inventory import Inventory, ServedModel
from edged.formats.channel.report import Report
from edged.formats.identity import Record

_HEARTBEAT = 30.0
"""Seconds from one report to the next of a board that has not said otherwise yet."""
_PATIENCE = 3.5
"""Heartbeats after which a board that says nothing is silent."""

State = Literal["online", "offline", "silent", "unknown"]


@dataclass
class BoardView:
    """One board.

    :ivar status: what stands on its status topic, which anybody can write: whether it is connected.
    :ivar report: what it said last of itself; ``heard``: when (monotonic seconds; at first when this hub began).
    :ivar inventory: what it said last that it serves.
    :ivar last: the newest result of each channel.
    :ivar last_seen: when anything of it opened, Unix seconds.
    """

    record: Record
    status: bool | None = None
    report: Report | None = None
    heard: float = field(default_factory=time.monotonic)
    inventory: Inventory | None = None
    last: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    last_seen: float | None = None

    @property
    def heartbeat(self) -> float:
        """Seconds from one report to the next."""
        return _HEARTBEAT if self.inventory is None else self.inventory.heartbeat

    def state(self, now: float) -> State:
        """Return how it is: connected by its status, and alive by what it seals.

        :param now: monotonic seconds.
        """
        if self.status is None:
            return "unknown"
        if not self.status:
            return "offline"
        return "online" if now - self.heard <= _PATIENCE * self.heartbeat else "silent"

    def note_report(self, report: Report) -> None:
        """Take what it says of itself."""
        self.report = report
        self.note_life()

    def note_life(self) -> None:
        """Note that something sealed by it, just now, has opened."""
        self.heard = time.monotonic()
        self.last_seen = time.time()

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """What it serves."""
        return () if self.inventory is None else self.inventory.models

    def to_json(self, now: float) -> dict[str, Any]:
        """Return what people and scripts read, but for counts."""
        return {
            "device": self.record.id,
            "fingerprint": self.record.fingerprint,
            "state": self.state(now),
            "last_seen": self.last_seen,
            "edged": None if self.inventory is None else self.inventory.edged,
            "report": None if self.report is None else asdict(self.report),
            "models": [_model(model, self.last.get(model.channel)) for model in self.models],
        }


def _model(model: ServedModel, last: Mapping[str, Any] | None) -> dict[str, Any]:
    names = ("channel", "model", "version", "kind", "unit", "installed", "trial")
    shown = {name: getattr(model, name) for name in names}
    return {**shown, "labels": list(model.labels), "name": model.name or model.model, "last": last}
