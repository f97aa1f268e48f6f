"""Nothing that came from a file or the network reaches a terminal raw: no escape sequence, no line that nobody wrote."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import edged.cli
from edged.base.errors import EdgedError
from edged.base.text import printable
from edged.board.audit import Entry
from edged.cli import audit, common, fail, hub, status
from edged.cli.inspect import inspect_command
from edged.cli.listen import Template
from edged.formats.cose.keys import PrivateKey
from support.packages import Workshop

HOSTILE = "MIT\nsignature    holds\r\x1b[2K\x1b]0;owned\x07\x9b31m\x7f\u202egnp\u2028\u200b\udc80\U000e0041"


def check(shown: str, lines: int | None = None) -> None:
    """Check that all lines of ``shown`` consist of printable characters, and that strangers began none of them."""
    found = shown.removesuffix("\n").split("\n")
    assert [line for line in found if not line.isprintable()] == []
    assert [line for line in found if line.startswith("signature    holds")] == []
    assert lines is None or len(found) == lines


# --- the one function, and the printers on it ------------------------------------------------


@given(st.text())
def test_any_text_becomes_one_line_that_prints(text: str) -> None:
    shown = printable(text)

    assert shown.isprintable()
    assert shown == text or not text.isprintable()
    assert set('"\\') & set(text) or json.loads(f'"{shown}"') == text


@pytest.mark.parametrize("err", [False, True])
def test_a_line_is_one_line(err: bool, capsys: pytest.CaptureFixture[str]) -> None:
    common.say(HOSTILE, err=err)
    common.say(f"a  {HOSTILE}", err=err)

    done = capsys.readouterr()
    check(done.err if err else done.out, 2)


def test_tables_and_facts_have_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_table([(HOSTILE, 1), ("b", HOSTILE)], ("name", "value"))
    common.print_facts({"license": HOSTILE, HOSTILE: "a name that a stranger chose"})

    check(capsys.readouterr().out, 5)


def test_a_text_keeps_its_lines_and_tabs_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    common.say_text("# Card\n\tindented\x1b[31m\r\n")

    assert capsys.readouterr().out == "# Card\n\tindented\\u001b[31m\\r\n"


@pytest.mark.parametrize("indent", [None, 2])
def test_json_stays_the_same_json(indent: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"license": HOSTILE, HOSTILE: [1, "ü", "\\", '"', "\U0001f600"]}
    common.print_json(value, indent=indent)

    out = capsys.readouterr().out
    check(out)
    assert json.loads(out) == value
    assert "ü" in out


# --- commands --------------------------------------------------------------------------------


def test_a_licence_forges_no_line_of_inspect(tmp_path: Path) -> None:
    """The attack: `signature    holds` out of the licence of a package that nobody checked."""
    workshop = Workshop(tmp_path, PrivateKey.generate())
    texts = {"summary": HOSTILE[:60], "license": HOSTILE[:60]}
    package = tmp_path / "gearbox-1.edged"
    package.write_bytes(workshop.pack(bytes(1000), [PrivateKey.generate().public], **_sayable(texts)))

    done = CliRunner().invoke(inspect_command, [str(package)])

    assert done.exit_code == 0, done.exception
    check(done.output)
    assert done.output.count("signature ") == 1 + done.output.count(r"\nsignature ")
    shown = CliRunner().invoke(inspect_command, [str(package), "--json"]).output
    check(shown)
    assert json.loads(shown)["license"] == _sayable(texts)["license"]


def _sayable(texts: dict[str, str]) -> dict[str, str]:
    """Return texts without what UTF-8 cannot say, which no package holds either."""
    return {name: text.replace("\udc80", "") for name, text in texts.items()}


BOARD = {
    "device": "press-07",
    "state": HOSTILE,
    "last_seen": 1.8e9,
    "models": [{"name": HOSTILE, "version": 1, "installed": 1, "channel": HOSTILE, "trial": True}],
    "report": {"degraded": [HOSTILE], "last_error": HOSTILE, "messages": 1, "results": 1, "uptime": 1.0},
    "opened": 1,
    "refused": {HOSTILE: 1},
    "fingerprint": HOSTILE,
}
STATUS: dict[str, Any] = {
    "hub": HOSTILE,
    "version": HOSTILE,
    "counts": {
        "heard": 1,
        "other": {HOSTILE: 1},
        "opened": 1,
        "repeated": 0,
        "held": 0,
        "dropped": 0,
        "refused": {HOSTILE: 1},
    },
    "upstreams": [{"name": HOSTILE, "state": HOSTILE}],
    "local": {"state": HOSTILE, "queued": 0},
    "boards": [BOARD],
    "strangers": [HOSTILE],
    "problems": {HOSTILE: HOSTILE},
    "refused_lately": [{"time": 1.8e9, "kind": HOSTILE, "topic": HOSTILE, "message": HOSTILE}],
}


@pytest.mark.parametrize("arguments", [["status"], ["devices"], ["status", "--json"], ["devices", "--json"]])
def test_a_board_forges_no_line_of_the_hubs_commands(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_status", lambda _config: (True, STATUS))

    done = CliRunner().invoke(hub.hub_command, arguments)

    assert done.exit_code == 0, done.exception
    assert r"\u001b[2K" in done.output
    check(done.output)


def test_facts_of_the_audit_log_forge_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    audit._show([Entry(1, bytes(32), 0, HOSTILE, {HOSTILE: HOSTILE})], as_json=False)

    check(capsys.readouterr().out, 2)


def test_readings_and_reasons_forge_no_line_of_status(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {
        "device": HOSTILE,
        "version": HOSTILE,
        "running": False,
        "unreadable": [HOSTILE],
        "outbox": {"results": 0, "bytes": 0},
        "examples": [{"model": HOSTILE, "windows": 1, "labelled": 1, "bytes": 1}],
        "reported": None,
        "models": [dict.fromkeys(status._VERSIONS, HOSTILE) | {"on_trial": True, "rejected": [{"version": 1, "why": HOSTILE}]}],
        "set_aside": [dict.fromkeys(status._ASIDE, HOSTILE)],
    }  # fmt: skip
    status._show(facts)

    check(capsys.readouterr().out)


def test_a_label_forges_no_line_of_listen(capsys: pytest.CaptureFixture[str]) -> None:
    line = Template(r"{device}\t{label}\n{scores}").fill({"device": "a", "label": HOSTILE, "scores": [HOSTILE]})
    common.say_text(line)

    out = capsys.readouterr().out
    assert out.count("\n") == 2
    check(out.replace("\t", " "))


def test_an_error_that_quotes_a_stranger_is_one_line_and_its_hint_another(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail(EdgedError(f"the name {HOSTILE}", hint=HOSTILE))

    check(capsys.readouterr().err, 2)


def test_the_traceback_of_an_error_that_nobody_foresaw_prints_no_escape_sequence() -> None:
    code = """
import edged.cli
def broken(**_):
    raise ValueError("\\x1b[31mred")
edged.cli.cli = broken
edged.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr.splitlines()[-1] == r"ValueError: \u001b[31mred"
    check(done.stderr)


def test_no_command_prints_in_another_way() -> None:
    """Who adds a command cannot forget it: `say` and its neighbours are the only way to a terminal."""
    others = []
    for path in sorted(Path(edged.cli.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text())
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        forbidden = {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"}
        others += [(path.name, call) for call in calls if call in forbidden]
    assert {name for name, _ in others} <= {"common.py", "demo.py"}  # the demo draws a line over, out of its own words
