"""The books of a board: each reading and each result since the start, in exactly one counter."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass
class Books:
    """Counters since the start of the process.

    A message that two models read is two readings. Two equations hold at any time, with what waits at that moment:

    * readings = accepted + repeated + refused + set_aside + waiting
    * results + restored = delivered + dropped + stored + in_flight

    and each window of a model ends as a result, silent or failed.

    :ivar accepted: readings that went into a window.
    :ivar repeated: readings that the broker delivered again, after they were dealt with.
    :ivar refused: readings that cannot be used, by the error's name.
    :ivar set_aside: readings in quarantine.
    :ivar silent: windows whose answer the manifest or the site does not publish.
    :ivar failed: windows that the model did not answer, by the error's name.
    :ivar restored: results of earlier runs that waited at the start.
    :ivar delivered: results that the broker has.
    :ivar dropped: results that nobody will get, by the reason.
    """

    readings: int = 0
    accepted: int = 0
    repeated: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    set_aside: int = 0
    windows: int = 0
    silent: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    results: int = 0
    restored: int = 0
    delivered: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def entries(self, *, waiting: int, stored: int, in_flight: int) -> dict[str, int | dict[str, int]]:
        """Return all entries by name, with what waits now: readings, and results in the outbox and on their way."""
        entries: dict[str, int | dict[str, int]] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            entries[one.name] = dict(value) if isinstance(value, Counter) else value
        return entries | {"waiting": waiting, "stored": stored, "in_flight": in_flight}
