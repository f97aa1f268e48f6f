"""Logging to standard error, as the journal or a person reads it."""

from __future__ import annotations

import logging
import math
import os
import sys
import time

_EVERY = 60.0
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def set_up_logging(level: str) -> None:
    """Log messages of ``level`` (``debug`` to ``critical``) and above to standard error, and only there."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JournalFormatter() if _is_journal() else _Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def _is_journal() -> bool:
    """Return whether standard error leads to the journal, by the rule of systemd.exec(5)."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or no file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _Formatter(logging.Formatter):
    """One line a message: topics are chosen by strangers, and a line break in one must not forge a line of the log."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        if not record.message.isprintable():
            record.message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in record.message)
        return super().formatMessage(record)


class _JournalFormatter(_Formatter):
    """Puts sd-daemon(3) priorities before each line, also of a traceback. The journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class RateLimited:
    """Lets one message of each kind and minute through to ``logger``, and says how many it left out."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._kinds: dict[str, tuple[float, int]] = {}

    def warning(self, kind: str, message: str) -> None:
        """Log a warning, unless one of its kind was logged within the last minute. Kinds are few: they are kept."""
        now = time.monotonic()
        last, left_out = self._kinds.get(kind, (-math.inf, 0))
        if now - last < _EVERY:
            self._kinds[kind] = (last, left_out + 1)
            return
        self._kinds[kind] = (now, 0)
        if left_out:
            message = f"{message} (and {left_out} more of this kind before)"
        self._logger.warning("%s", message)
