from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged.base.events import Event
from edged.base.log import MOST_SUBJECTS, RateLimited

_SCRIPT = """
import logging
from edged.base.log import set_up_logging

set_up_logging({level!r})
log = logging.getLogger("edged.test")
log.debug("d")
log.info("i")
log.warning("w\\n2026-01-01 ERROR forged \\x1b[31m")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("e")
log.critical("c")
"""


def _log(tmp_path: Path, level: str, *, journal: bool) -> list[str]:
    """Run a process that logs to a file; ``journal`` has the environment say that the file is the journal."""
    with (tmp_path / "log").open("w+") as file:
        found = os.fstat(file.fileno())
        stream = f"{found.st_dev}:{found.st_ino if journal else 0}"
        subprocess.run(
            [sys.executable, "-c", _SCRIPT.format(level=level)],
            stderr=file,
            check=True,
            timeout=30,
            env={**os.environ, "JOURNAL_STREAM": stream},
        )
        file.seek(0)
        return file.read().splitlines()


def test_journal_gets_a_priority_before_each_line(tmp_path: Path) -> None:
    lines = _log(tmp_path, "debug", journal=True)
    assert lines[:5] == [
        "<7>d",
        "<6>i",
        r"<4>w\n2026-01-01 ERROR forged \u001b[31m",
        "<3>e",
        "<3>    Traceback (most recent call last):",
    ]
    assert lines[-2:] == ["<3>    ZeroDivisionError: division by zero", "<2>c"]
    assert all(line.startswith("<3>") for line in lines[3:-1])


def test_person_gets_time_and_level(tmp_path: Path) -> None:
    """Another file's JOURNAL_STREAM, as inherited from a terminal under systemd, does not count."""
    lines = _log(tmp_path, "warning", journal=False)
    assert lines[0].endswith(r" WARNING w\n2026-01-01 ERROR forged \u001b[31m")
    assert lines[0].startswith("20")
    assert lines[-1].endswith(" CRITICAL c")


def test_one_message_of_a_kind_and_minute_passes_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr("edged.base.log.time.monotonic", lambda: now)
    limited = RateLimited(logging.getLogger("edged.test"))
    for kind in ("a", "a", "b", "a"):
        limited.warning(kind, f"100% {kind}", Event.STATE_TROUBLE)
    assert caplog.messages == ["100% a", "100% b"]
    now += 61
    for kind in ("a", "b", "b"):
        limited.warning(kind, kind, Event.STATE_TROUBLE)
    assert caplog.messages[2:] == ["a (and 2 more of this kind before)", "b"]
    now += 61
    limited.warning("a", "a", Event.STATE_TROUBLE)
    assert caplog.messages[4:] == ["a"]


def test_different_subjects_of_a_kind_pass_beside_each_other_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A subject is a topic, a model, ..., or what is said of none; strangers choose topics."""
    now = 1000.0
    monkeypatch.setattr("edged.base.log.time.monotonic", lambda: now)
    limited = RateLimited(logging.getLogger("edged.test"))
    for topic in ("a", "b", "a"):
        limited.warning("shape", f"of {topic}", Event.READING_REFUSED, topic=topic, error="ReadingShapeError")
    for path in ("/a", "/b", "/a"):
        limited.warning("state", f"{path} is full", Event.STATE_TROUBLE)
    assert caplog.messages == ["of a", "of b", "/a is full", "/b is full"]
    for number in range(1000):
        limited.warning("shape", f"of {number}", Event.READING_REFUSED, topic=f"t/{number}")
    assert len(caplog.messages) == 4 + MOST_SUBJECTS - 2
    now += 61
    limited.warning("shape", "again", Event.READING_REFUSED, topic="a")
    assert caplog.messages[-1] == f"again (and {1000 - MOST_SUBJECTS + 2} more of this kind before)"
