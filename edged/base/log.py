"""Logging to the journal, with fields, or to standard error, as the journal or a person reads it."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

from edged.base.events import Event, Facts
from edged.base.text import printable

_LOG = logging.getLogger(__name__)
_EVERY = 60.0
MOST_SUBJECTS = 20
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7
_SOCKET = Path("/run/systemd/journal/socket")
_Send = Callable[..., object]


def set_up_logging(level: str) -> None:
    """Log messages of ``level`` (``debug`` to ``critical``) and above to where standard error leads, and only there."""
    handler: logging.Handler = logging.StreamHandler()
    if not leads_to_journal():
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    elif (send := _sender()) is None:
        handler.setFormatter(_StreamFormatter())
    else:
        handler = _JournalHandler(send)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    if leads_to_journal():
        sys.excepthook = _log_uncaught


def set_up_events() -> None:
    """Send a command's log records to the journal only; the terminal gets the command's own output."""
    send = _sender()
    handler = logging.NullHandler() if send is None else _JournalHandler(send)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


def leads_to_journal() -> bool:
    """Return whether standard error leads to the journal, by the rule of systemd.exec(5)."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or no file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _sender() -> _Send | None:
    """Return sd_journal_sendv(3), where systemd-python is installed and somebody listens."""
    try:
        from systemd.journal import sendv  # noqa: PLC0415  an extra
    except ImportError:
        return None
    send: _Send = sendv
    return send if _SOCKET.exists() else None  # it says nothing where nobody does


def log_failure(message: str, kind: str, hint: str | None) -> None:
    """Log why a command, or a service, comes to its end.

    :param kind: the error's class.
    """
    set_up_logging("info")
    hinted = f" (hint: {hint})" if hint else ""
    _LOG.error("%s%s", message, hinted, extra=Event.FAILED.about(error=kind))


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _LOG.critical("ends: nobody foresaw %s", kind.__name__, exc_info=(kind, error, trace), extra=Event.CRASHED.about())


def _priority(record: logging.LogRecord) -> int:
    return next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)


class _Formatter(logging.Formatter):
    """Writes one line a message: strangers choose topics, and a line break in a topic must not forge a line of the log.

    The lines of a traceback are set in: what an exception says can hold anything.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802  as above
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {printable(line)}" for line in lines)


class _StreamFormatter(_Formatter):
    """Puts sd-daemon(3) priorities before each line, also of a traceback. The journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(f"<{_priority(record)}>{line}" for line in super().format(record).splitlines())


class _JournalHandler(logging.Handler):
    """Gives each record to the journal whole: a traceback stays with its message, and fields say what it is about.

    The fields are those that ``Event.about`` put into the record, and no others: nothing else that a record holds,
    such as the arguments of its message, was made to be read there.
    """

    def __init__(self, send: _Send) -> None:
        super().__init__()
        self._send = send
        self.setFormatter(_Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            about: Mapping[str, str] = getattr(record, "fields", {})
            self._send(
                f"MESSAGE={self.format(record)}",
                f"PRIORITY={_priority(record)}",
                "SYSLOG_IDENTIFIER=edged",
                f"LOGGER={record.name}",
                f"CODE_FILE={record.pathname}",
                f"CODE_LINE={record.lineno}",
                f"CODE_FUNC={record.funcName}",
                *(f"{name}={printable(value)}" for name, value in about.items()),
            )
        except Exception:  # noqa: BLE001  as logging's own handlers do: a message that cannot be written stops nothing
            self.handleError(record)


class RateLimited:
    """Lets one message of each kind, subject and minute through to ``logger``, and says how many it left out.

    Strangers choose topics: of one kind at most :data:`MOST_SUBJECTS` messages pass in a minute. Kinds are few.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._passed: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._left_out: Counter[str] = Counter()

    def warning(self, kind: str, message: str, event: Event, **facts: Unpack[Facts]) -> None:
        """Log a warning, unless one of its kind and subject was logged within the last minute.

        The subject is what ``facts`` name, such as the topic; without any the message itself.
        """
        now = time.monotonic()
        subject = " ".join(str(fact) for name, fact in facts.items() if name != "error") or message
        passed = self._passed[kind]
        for old in [one for one, at in passed.items() if now - at >= _EVERY]:
            del passed[old]
        if subject in passed or len(passed) >= MOST_SUBJECTS:
            self._left_out[kind] += 1
            return
        passed[subject] = now
        if left_out := self._left_out.pop(kind, 0):
            message = f"{message} (and {left_out} more of this kind before)"
        self._logger.warning("%s", message, extra=event.about(**facts))
