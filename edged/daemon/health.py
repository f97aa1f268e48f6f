"""What the daemon counts, and the one line that it says of itself."""

from __future__ import annotations

import logging
import time
from collections import Counter

from edged.errors import EdgedError
from edged.log import RateLimited

_LOG = logging.getLogger(__name__)


class Health:
    """Counts since the start, and a rate over the time between two status lines."""

    def __init__(self) -> None:
        self.messages = 0
        self.results = 0
        self.dropped = 0
        self.refused: Counter[str] = Counter()
        self.last_error = ""
        self._limited = RateLimited(_LOG)
        self._since = (time.monotonic(), 0)

    def refuse(self, error: EdgedError, topic: str) -> None:
        """Count a message that cannot be used; say so once per kind and minute, without its content."""
        kind = type(error).__name__
        self.refused[kind] += 1
        self.trouble(f"{topic}: {kind}: {error.message}", kind)

    def drop(self, why: str) -> None:
        """Count a result that nobody will get."""
        self.dropped += 1
        self.trouble(f"result dropped: {why}", "dropped")

    def trouble(self, message: str, kind: str) -> None:
        """Log something that the daemon lives with, once per kind and minute, and keep it for the status line."""
        self.last_error = message
        self._limited.warning(kind, message)

    def line(self) -> str:
        """Return the status line."""
        now, (then, before) = time.monotonic(), self._since
        rate = (self.messages - before) / max(now - then, 1e-3)
        self._since = (now, self.messages)
        refused = f", {self.refused.total()} refused" if self.refused else ""
        dropped = f", {self.dropped} dropped" if self.dropped else ""
        error = f"; last error: {self.last_error}" if self.last_error else ""
        return f"{self.messages} messages, {self.results} results, {rate:.1f}/s{refused}{dropped}{error}"
