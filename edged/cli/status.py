"""``edged status``: how this board is, as far as it can be told on the board itself."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from edged import __version__
from edged.base.errors import EdgedError, MissingFileError, UsageError, advice
from edged.base.files import write_atomically
from edged.base.owner import acting_as_owner
from edged.board.state import OutboxStore, Quarantined, QuarantineStore, State
from edged.board.status_file import is_running, read_status
from edged.cli.common import config_option, json_option, path_type, print_facts, print_json, print_table, say
from edged.config.board import BoardConfig
from edged.config.load import load_board
from edged.config.model import ModelConfig
from edged.keystore.packages import Installed, installed_packages

_T = TypeVar("_T")
_EXPORT_MODE = 0o644
_EXAMPLES = "examples.db"
_VERSIONS = ("channel", "name", "serving", "newest", "good", "rejected")
_ASIDE = ("number", "at", "topic", "bytes", "why")


@click.command("status")
@click.option("--export", "number", type=int, help="Write a message that was set aside, as it was sealed to the hubs.")
@click.option("-o", "--output", type=path_type, help="Where --export writes.")
@config_option
@json_option
def status_command(config: Path, number: int | None, output: Path | None, *, as_json: bool) -> None:
    """Show whether the daemon runs, what it last said of itself, what it serves, what waits, and what was set aside.

    \b
    Example: edged status
    """
    board = load_board(config)
    directory = Path(board.device.state)
    reported = read_status(directory)  # a directory that became somebody else's must not hide what the daemon says
    with acting_as_owner(directory, partial(_import_examples, directory)):
        if number is not None:
            with closing(State(directory, create=False)) as state:
                _export(QuarantineStore(state).all(), number, output)
            return
        facts = _facts(board, directory, reported)
    if as_json:
        print_json(facts)
    else:
        _show(facts)


def _facts(board: BoardConfig, directory: Path, reported: dict[str, Any] | None) -> dict[str, Any]:
    """Return how the board is; while the daemon runs, whatever has become of its files.

    :param reported: what the daemon last said of itself, as far as the caller can read it.
    :raises EdgedError: the daemon does not run, and a file cannot be read.
    """
    reported = read_status(directory) or reported
    running = is_running(directory, reported)
    if not running and not State.exists(directory):
        raise MissingFileError(
            f"{directory} holds no state.db",
            hint="`edged init`, then `edged install`: the first package makes it",
        )
    reader = _Reader(tolerant=running)
    told = (reported or {}) if running else {}
    packages, serving = installed_packages(directory), told.get("serving", {})
    stored: dict[str, Any] = {"outbox": {"results": told.get("waiting", 0), "bytes": told.get("stored", 0)}}
    good: dict[str, dict[str, Any]] = {}
    if (state := reader.read(lambda: State(directory, create=False))) is not None:
        with closing(state):
            stored |= reader.read(partial(_stored, state)) or {}
            good = reader.read(lambda: {table.name: _known(state, table.name) for table in board.model}) or {}
    newest = reader.read(lambda: {table.name: packages.newest(table.name) for table in board.model}) or {}
    return {
        "device": board.device.name,
        "version": __version__,
        "running": running,
        "degraded": told.get("degraded", []),
        "books": told.get("books", {}),
        "reported": reported,
        "examples": reader.read(lambda: _examples(directory)) or [],
        "models": [
            _model(table, serving.get(table.channel, {}), newest.get(table.name)) | good.get(table.name, {})
            for table in board.model
        ],
        "set_aside": [],
        **stored,
        "unreadable": reader.unreadable,
    }


class _Reader:
    """Reads files of the board.

    :param tolerant: go on without those that cannot be read.
    :ivar unreadable: why not.
    """

    def __init__(self, *, tolerant: bool) -> None:
        self.unreadable: list[str] = []
        self._tolerant = tolerant

    def read(self, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except (EdgedError, OSError) as error:
            if not self._tolerant:
                raise
            self.unreadable.append(advice(error))
            return None


def _stored(state: State) -> dict[str, Any]:
    """Return what waits for the broker, and what was set aside."""
    waiting, size = OutboxStore(state).totals()
    aside = [_aside(one) for one in QuarantineStore(state).all()]
    return {"outbox": {"results": waiting, "bytes": size}, "set_aside": aside}


def _import_examples(directory: Path) -> None:
    """Import the store of examples if there is one, as the caller: the owner may be unable to read Python's files."""
    if os.path.lexists(directory / _EXAMPLES):
        importlib.import_module("edged.board.examples")


def _examples(directory: Path) -> list[dict[str, Any]]:
    """Return how many windows are kept to train each model with."""
    if not os.path.lexists(directory / _EXAMPLES):
        return []
    from edged.board.examples import Examples  # noqa: PLC0415  few boards keep any, and their keys need cryptography

    with closing(Examples(directory, None)) as examples:
        classes = examples.classes()
    kept: dict[str, dict[str, Any]] = {}
    for one in classes:
        of = kept.setdefault(one.model, {"model": one.model, "windows": 0, "labelled": 0, "bytes": 0})
        of["windows"] += one.windows
        of["labelled"] += 0 if one.label is None else one.windows
        of["bytes"] += one.size
    return list(kept.values())


def _model(table: ModelConfig, serving: dict[str, Any], newest: Installed | None) -> dict[str, Any]:
    """Return what the daemon says of a model's channel, and what is installed; :func:`_known` knows the rest."""
    return {
        "channel": table.channel,
        "name": table.name,
        "serving": serving.get("version"),
        "on_trial": serving.get("on_trial", False),
        "newest": None if newest is None else newest.version,
        "good": None,
        "rejected": [],
    }


def _known(state: State, name: str) -> dict[str, Any]:
    return {
        "good": next((good.version for good in state.good(name)), None),
        "rejected": [{"version": one.version, "why": one.why} for one in state.rejected(name)],
    }


def _show(facts: dict[str, Any]) -> None:
    outbox, aside = facts["outbox"], facts["set_aside"]
    print_facts(
        {
            "device": facts["device"],
            "version": facts["version"],
            "daemon": "runs" if facts["running"] else "does not run",
            "outbox": f"{outbox['results']} results, {outbox['bytes']} bytes",
            **{f"windows of {one['model']}": _kept(one) for one in facts["examples"]},
            **_lines(facts["reported"]),
            **({"unreadable": "; ".join(facts["unreadable"])} if facts["unreadable"] else {}),
        }
    )
    if facts["models"]:
        say()
        print_table([[_cell(model, column) for column in _VERSIONS] for model in facts["models"]], _VERSIONS)
    if aside:
        say()
        say("set aside (`--export NUMBER -o FILE` writes one, sealed to the hubs):")
        print_table([[one[column] for column in _ASIDE] for one in aside], _ASIDE)


def _kept(of: dict[str, Any]) -> str:
    return f"{of['windows']} kept to train with, {of['labelled']} labelled, {of['bytes']} bytes"


def _cell(model: dict[str, Any], column: str) -> str:
    if column == "serving" and model["on_trial"]:
        return f"{model['serving']} (on trial)"
    if column == "rejected":
        return "; ".join(f"{one['version']}: {one['why']}" for one in model["rejected"]) or "-"
    return str(model[column] or "-")


def _lines(reported: dict[str, Any] | None) -> dict[str, str]:
    if reported is None:
        return {}
    last = reported.get("last_result")
    newest = "" if last is None else f", the newest {max(0.0, time.time() - last):.0f} s ago"
    return {
        "broker": reported["links"],
        "messages": f"{reported['messages']}, {reported['rate']:.1f}/s, {reported['refused']} refused",
        "results": f"{reported['results']}{newest}, {reported['dropped']} dropped",
        "degraded": "; ".join(reported["degraded"]) or "no",
        "last error": reported["error"] or "none",
    }


def _aside(one: Quarantined) -> dict[str, Any]:
    at = datetime.fromtimestamp(one.at, UTC).isoformat(timespec="seconds")
    return {
        "number": one.number,
        "at": at,
        "topic": one.topic,
        "bytes": one.size,
        "why": one.why,
        "digest": one.digest.hex(),
    }


def _export(aside: list[Quarantined], number: int, output: Path | None) -> None:
    if output is None:
        raise UsageError("--export needs -o FILE")
    found = next((one for one in aside if one.number == number), None)
    if found is None:
        raise UsageError(f"nothing of number {number} was set aside", hint="`edged status` lists what was")
    write_atomically(output, [found.sealed], mode=_EXPORT_MODE, replace=False)
    say(f"{output}  {len(found.sealed)} bytes, sealed to the hubs")
