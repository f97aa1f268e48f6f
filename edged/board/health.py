"""The health of a board: counters, degraded parts, one status line, one report; the temperature of the board."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Unpack

from edged.base.errors import EdgedError
from edged.base.events import Event, Facts, event_of
from edged.base.log import RateLimited
from edged.board.books import Books
from edged.formats.channel.report import Report

_LOG = logging.getLogger(__name__)


class Health:
    """Counters since the start, the message rate between two status lines, and the degraded parts."""

    def __init__(self) -> None:
        self.books = Books()
        self.messages = 0
        self.lost = 0
        self.set_aside = 0
        self.refused: Counter[str] = Counter()
        self.last_error = ""
        self.last_result: float | None = None
        """Time of the last :meth:`measure` that found new results: Unix seconds."""
        self.rate = 0.0
        self._degraded: dict[str, str] = {}
        self._limited = RateLimited(_LOG)
        self._started = time.monotonic()
        self._since = (self._started, 0)
        self._results_before = 0

    def refuse(self, error: EdgedError, source: str, /, **facts: Unpack[Facts]) -> None:
        """Count a message that cannot be used; log it once per kind and minute, without its content.

        :param facts: the subject of the log event; default: ``source`` is its topic.
        """
        kind = type(error).__name__
        self.refused[kind] += 1
        facts = facts or {"topic": source}
        facts["error"] = kind
        self.trouble(f"{source}: {kind}: {error.message}", kind, event_of(error, Event.READING_REFUSED), **facts)

    def drop(self, why: str) -> None:
        """Count a result that nobody will receive."""
        self.books.dropped[why] += 1
        self.trouble(f"result dropped: {why}", "dropped", Event.RESULT_DROPPED)

    def trouble(self, message: str, kind: str, event: Event = Event.STATE_TROUBLE, **facts: Unpack[Facts]) -> None:
        """Log a failure that the daemon survives, once per kind and minute, and keep it for the status line."""
        self.last_error = message
        self._limited.warning(kind, message, event, **facts)

    def note_state(self, what: str, why: str) -> None:
        """Mark a part degraded, or recovered if ``why`` is empty."""
        before = self._degraded.get(what, "")
        if why and not before:
            self._degraded[what] = why
            self.last_error = f"{what}: {why}"
            _LOG.error("degraded: %s: %s", what, why, extra=Event.DEGRADED.about())
        elif before and not why:
            del self._degraded[what]
            _LOG.info("%s works again", what, extra=Event.RECOVERED.about())

    def note_all(self, kind: str, reasons: Mapping[str, str]) -> None:
        """Mark the parts of a kind degraded that ``reasons`` names, and all others of that kind recovered."""
        for what in [what for what in self._degraded if what.partition(" ")[0] == kind]:
            if what.removeprefix(f"{kind} ") not in reasons:
                self.note_state(what, "")
        for name, why in reasons.items():
            self.note_state(f"{kind} {name}", why)

    @property
    def faults(self) -> Mapping[str, str]:
        """Reason for each degraded part, by its name."""
        return self._degraded

    @property
    def degraded(self) -> list[str]:
        """Degraded parts, each with its reason."""
        return [f"{what}: {why}" for what, why in self._degraded.items()]

    def measure(self) -> None:
        """Update the rate since the last call, and the time of the last result."""
        now, (then, before) = time.monotonic(), self._since
        self.rate = (self.messages - before) / max(now - then, 1e-3)
        self._since = (now, self.messages)
        if self.books.results != self._results_before:
            self._results_before = self.books.results
            self.last_result = time.time()

    def line(self) -> str:
        """Return the status line."""
        refused = f", {self.refused.total()} refused" if self.refused else ""
        dropped = f", {self.books.dropped.total()} dropped" if self.books.dropped else ""
        error = f"; last error: {self.last_error}" if self.last_error else ""
        degraded = f"; DEGRADED: {'; '.join(self.degraded)}" if self._degraded else ""
        counts = f"{self.messages} messages, {self.books.results} results, {self.rate:.1f}/s"
        return f"{counts}{refused}{dropped}{degraded}{error}"

    def report(
        self,
        wall: float,
        models: Mapping[str, tuple[str, int]],
        books: Mapping[str, int | Mapping[str, int]],
        stored: int,
    ) -> Report:
        """Return the report.

        :param wall: Unix seconds.
        :param models: name and version by channel.
        :param books: entries of the books.
        :param stored: bytes of results in the outbox.
        """
        waiting = self.books.results + self.books.restored - self.books.delivered - self.books.dropped.total()
        return Report(
            time=wall,
            uptime=time.monotonic() - self._started,
            messages=self.messages,
            results=self.books.results,
            rate=self.rate,
            refused=self.refused.total(),
            repeated=self.books.repeated,
            dropped=self.books.dropped.total(),
            lost=self.lost,
            waiting=waiting,
            stored=stored,
            set_aside=self.set_aside,
            error=self.last_error,
            models=models,
            degraded=self.degraded,
            temperature=temperature(),
            throttled=throttled(),
            books=books,
        )


_TEMPERATURE = "class/thermal/thermal_zone0/temp"
_THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"
_REASONS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of the Raspberry Pi firmware's answer (vcgencmd get_throttled): the present state."""


def temperature(sys: Path = Path("/sys")) -> float | None:
    """Return the temperature of the first thermal zone in degrees Celsius, where there is one."""
    with suppress(OSError, ValueError):
        return int((sys / _TEMPERATURE).read_text()) / 1000
    return None


def throttled(sys: Path = Path("/sys")) -> list[str]:
    """Return the reasons why a Raspberry Pi runs slowly; none on other boards."""
    with suppress(OSError, ValueError):
        bits = int((sys / _THROTTLED).read_text(), 16)
        return [reason for bit, reason in _REASONS.items() if bits >> bit & 1]
    return []
