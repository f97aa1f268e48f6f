"""What is logged arrives in a real journal with its fields, and nothing that a stranger chose can pass for one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.base.events import Event
from edged.broker import Broker
from support.journal import Journal, cannot_journal, systemd_python
from support.process import DaemonProcess
from support.site import Site

_LOGS = """
import logging, sys
from edged.base.events import Event
from edged.base.log import set_up_logging

set_up_logging("debug")
log = logging.getLogger("edged.test")
"""
HOSTILE = "a\nMESSAGE_ID=0\n\x1b[31m\0\x00PRIORITY=0\n<0>b\u2028\udc80"
ESCAPED = r"a\nMESSAGE_ID=0\n\u001b[31m\u0000\u0000PRIORITY=0\n<0>b\u2028\udc80"


@pytest.fixture(scope="module")
def journal() -> Iterator[Journal]:
    if why := cannot_journal():
        pytest.skip(why)
    with Journal() as journal:
        yield journal


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python finds systemd-python."""
    (tmp_path / "systemd-python").mkdir()
    path = systemd_python(tmp_path / "systemd-python")
    if path is None:
        pytest.skip("no systemd-python for this Python: apt's python3-systemd, or edged[systemd]")
    return {"PYTHONPATH": path}


def python(journal: Journal, code: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Run lines of Python as a service; return what they logged."""
    before = len(journal.entries())
    done = journal.run(sys.executable, "-c", _LOGS + code, environment=environment)
    assert not done.stderr, done.stderr
    return journal.entries()[before:]


def test_a_record_has_its_priority_its_place_and_the_fields_of_its_event(
    journal: Journal, environment: dict[str, str]
) -> None:
    code = 'log.warning("w %d", 1, extra=Event.ROLLED_BACK.about(model="gearbox", version=3, channel="c1"))'
    [entry] = python(journal, code, environment)
    assert entry["_TRANSPORT"] == "journal"
    assert {name: fact for name, fact in entry.items() if not name.startswith("_")} == {
        "MESSAGE": "w 1",
        "PRIORITY": "4",
        "MESSAGE_ID": Event.ROLLED_BACK.value,
        "EDGED_EVENT": "rolled-back",
        "EDGED_MODEL": "gearbox",
        "EDGED_VERSION": "3",
        "EDGED_CHANNEL": "c1",
        "LOGGER": "edged.test",
        "SYSLOG_IDENTIFIER": "edged",
        "CODE_FILE": "<string>",
        "CODE_LINE": "8",
        "CODE_FUNC": "<module>",
    }


def test_levels_become_priorities(journal: Journal, environment: dict[str, str]) -> None:
    code = "for level in (10, 20, 30, 40, 50): log.log(level, 'm')"
    assert [entry["PRIORITY"] for entry in python(journal, code, environment)] == ["7", "6", "4", "3", "2"]


def test_a_traceback_is_one_entry_of_its_messages_priority(journal: Journal, environment: dict[str, str]) -> None:
    code = """
try:
    raise ValueError("one\\n<0>two\\x1b[31m")
except ValueError:
    log.exception("failed")
"""
    [entry] = python(journal, code, environment)
    assert entry["PRIORITY"] == "3"
    lines = entry["MESSAGE"].split("\n")
    assert lines[:2] == ["failed", "    Traceback (most recent call last):"]
    assert lines[-2:] == ["    ValueError: one", r"    <0>two\u001b[31m"]


@pytest.mark.parametrize("installed", [True, False], ids=["systemd-python", "stream"])
def test_what_a_stranger_chose_forges_neither_a_field_nor_a_line(
    journal: Journal, environment: dict[str, str], installed: bool
) -> None:
    """With systemd-python and without, where the journal reads lines with priorities."""
    if not installed:
        environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    absent = "" if installed else "sys.modules['systemd'] = None; set_up_logging('debug');"
    code = f"{absent}log.warning('%s', {HOSTILE!a}, extra=Event.READING_REFUSED.about(topic={HOSTILE!a}))"
    [entry] = python(journal, code, environment)
    assert (entry["MESSAGE"], entry["PRIORITY"]) == (ESCAPED, "4")
    assert entry["_TRANSPORT"] == ("journal" if installed else "stdout")
    if installed:
        assert entry["EDGED_TOPIC"] == ESCAPED
        assert entry["MESSAGE_ID"] == Event.READING_REFUSED.value


def test_what_nobody_foresaw_is_one_entry_too(journal: Journal, environment: dict[str, str]) -> None:
    [entry] = python(journal, "1 / 0", environment)
    assert (entry["PRIORITY"], entry["EDGED_EVENT"]) == ("2", "crashed")
    assert "ZeroDivisionError: division by zero" in entry["MESSAGE"]


def test_a_service_that_cannot_start_says_why_as_an_error(journal: Journal, tmp_path: Path) -> None:
    """Also without systemd-python; a person gets the two lines that commands end with."""
    before = len(journal.entries())
    done = journal.run(sys.executable, "-m", "edged", "run", "-c", str(tmp_path / "none.toml"))
    assert done.returncode == 66
    [entry] = journal.entries()[before:]
    assert entry["PRIORITY"] == "3"
    assert "none.toml" in entry["MESSAGE"]
    assert "(hint: " in entry["MESSAGE"]


@pytest.mark.broker
def test_the_life_of_a_board_can_be_read_by_event_model_and_version(
    site: Site, journal: Journal, environment: dict[str, str]
) -> None:
    config = site.configure('format = "json"\neach = "row"')
    site.init()
    package = site.pack()
    before = len(journal.entries())
    journal.run(sys.executable, "-m", "edged", "install", str(package), "-c", str(config), environment=environment)
    daemon = DaemonProcess(site.path, prefix=journal.prefix, environment=environment)
    try:
        daemon.wait_ready()
        stranger = Broker(site.options())
        stranger.connect()
        stranger.publish(site.topic, b"no JSON", qos=1)
        while not stranger.stats.delivered:
            stranger.run_once(0.1)
        stranger.close()
        daemon.wait_for("1 refused")
    finally:
        code = daemon.stop()
    assert code == 0
    entries = journal.entries()[before:]
    events = [entry["EDGED_EVENT"] for entry in entries if "EDGED_EVENT" in entry]
    for wanted in ("model-installed", "started", "epoch-begun", "model-serving", "broker-up", "ready", "stopped"):
        assert wanted in events, events
    [refused] = journal.entries("EDGED_EVENT=reading-refused", f"EDGED_TOPIC={site.topic}")
    assert (refused["EDGED_ERROR"], refused["PRIORITY"]) == ("ReadingFormatError", "4")
    assert "no JSON" not in str(entries)
    of_model = journal.entries("EDGED_MODEL=gearbox", "EDGED_VERSION=1")
    assert {"model-installed", "model-serving"} <= {entry["EDGED_EVENT"] for entry in of_model}
