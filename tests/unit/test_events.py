"""Every kind of event is used, explained in the catalog, and listed in the documentation."""

from __future__ import annotations

import ast
import logging
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import edged
from edged.base.errors import BrokerError, DuplicateDeviceError, ReplayError, TakeoverError
from edged.base.events import Event, Facts, event_of

_PROJECT = Path(__file__).resolve().parents[2]
_CATALOG = _PROJECT / "systemd" / "edged.catalog"
_DOCUMENTATION = (_PROJECT / "docs" / "journal.md").read_text()


def test_each_id_is_an_id_of_its_own() -> None:
    assert len(Event.__members__) == len(list(Event)), "an id that is used twice makes an alias"
    assert all(re.fullmatch("[0-9a-f]{32}", event.value) for event in Event)


def test_each_event_is_logged_somewhere() -> None:
    package = Path(edged.__file__).parent
    used = {
        node.attr
        for path in package.rglob("*.py")
        if path.name != "events.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Event"
    }
    by_error = {event_of(error(""), Event.FAILED).name for error in (BrokerError, DuplicateDeviceError)}
    assert used | by_error | {"BROKER_REFUSED"} == set(Event.__members__)


def test_the_catalog_has_one_entry_for_each_event() -> None:
    """Each says what happened, of whom, what it means and what to do."""
    entries = re.split(r"^-- ", _CATALOG.read_text(), flags=re.MULTILINE)[1:]
    assert [entry[:32] for entry in entries] == [event.value for event in Event]
    fields = {f"EDGED_{name.upper()}" for name in Facts.__annotations__}
    for entry in entries:
        head, _, body = entry.partition("\n\n")
        assert re.fullmatch(r"[0-9a-f]{32}\nSubject: .+\nDefined-By: edged", head)
        assert "\n\nWhat to do: " in body
        assert set(re.findall("@(.*?)@", body)) <= fields


def test_the_documentation_lists_each_event_and_field() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| `([0-9a-f]{32})` \|$", _DOCUMENTATION, re.MULTILINE)
    assert rows == [(event.label, event.value) for event in Event]
    subjects = dict(re.findall(r"^-- (\S+)\nSubject: (.*)$", _CATALOG.read_text(), re.MULTILINE))
    for event in Event:
        assert f"| {subjects[event.value]} |" in _DOCUMENTATION
    for name in Facts.__annotations__:
        assert f"`EDGED_{name.upper()}`" in _DOCUMENTATION
    labels = {event.label for event in Event}
    assert set(re.findall(r"EDGED_EVENT=([a-z-]+)", _DOCUMENTATION)) <= labels


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="this machine has no journalctl")
def test_systemd_takes_the_catalog(tmp_path: Path) -> None:
    sources = tmp_path / "usr/lib/systemd/catalog"
    sources.mkdir(parents=True)
    shutil.copy(_CATALOG, sources)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    subprocess.run(["journalctl", f"--root={tmp_path}", "--update-catalog"], check=True, capture_output=True)
    command = ["journalctl", f"--root={tmp_path}", "--list-catalog"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert {line[:32] for line in listed.splitlines()} == {event.value for event in Event}


def test_an_event_says_what_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    about = Event.ROLLED_BACK.about(model="gearbox", version=3)
    logging.getLogger("edged.test").error("back", extra=about)
    assert caplog.records[0].__dict__["fields"] == {
        "MESSAGE_ID": Event.ROLLED_BACK.value,
        "EDGED_EVENT": "rolled-back",
        "EDGED_MODEL": "gearbox",
        "EDGED_VERSION": "3",
    }


def test_some_errors_are_events_of_their_own() -> None:
    assert event_of(TakeoverError(""), Event.BROKER_DOWN) is Event.DUPLICATE_DEVICE
    assert event_of(BrokerError(""), Event.INTERNAL_ERROR) is Event.BROKER_DOWN
    assert event_of(ReplayError(""), Event.READING_REFUSED) is Event.READING_REFUSED
    assert event_of(ZeroDivisionError(), Event.INTERNAL_ERROR) is Event.INTERNAL_ERROR
