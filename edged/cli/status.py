"""``edged status``: how this board is, as far as it can be told on the board itself."""

from __future__ import annotations

import importlib
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from edged import __version__
from edged.base.errors import MissingFileError, StateLockedError, UsageError
from edged.base.files import write_atomically
from edged.base.lock import Lock
from edged.base.notify import runtime_directory
from edged.base.owner import acting_as_owner
from edged.board.state import OutboxStore, Quarantined, QuarantineStore, State
from edged.cli.common import config_option, json_option, path_type, print_facts, print_json, print_table, say
from edged.config.board import BoardConfig
from edged.config.load import load_board
from edged.config.model import ModelConfig
from edged.keystore.packages import PackageStore, installed_packages

_EXPORT_MODE = 0o644
_RUNTIME = Path("/run/edged")
_FILE, _EXAMPLES = "status.json", "examples.db"
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
    if not State.exists(directory):
        raise MissingFileError(
            f"{directory} holds no state.db",
            hint="`edged init`, then `edged install`: the first package makes it",
        )
    with acting_as_owner(directory, partial(_import_examples, directory)), closing(State(directory)) as state:
        if number is not None:
            _export(QuarantineStore(state).all(), number, output)
            return
        facts = _facts(board, directory, state)
    if as_json:
        print_json(facts)
    else:
        _show(facts)


def _facts(board: BoardConfig, directory: Path, state: State) -> dict[str, Any]:
    running, reported = _is_running(directory), _reported()
    packages = installed_packages(directory)
    waiting, size = OutboxStore(state).totals()
    serving = (reported or {}).get("serving", {}) if running else {}
    return {
        "device": board.device.name,
        "version": __version__,
        "running": running,
        "degraded": reported["degraded"] if running and reported is not None else [],
        "books": reported.get("books", {}) if running and reported is not None else {},
        "outbox": {"results": waiting, "bytes": size},
        "reported": reported,
        "examples": _examples(directory),
        "models": [_model(packages, state, table, serving.get(table.channel, {})) for table in board.model],
        "set_aside": [_aside(one) for one in QuarantineStore(state).all()],
    }


def _import_examples(directory: Path) -> None:
    """Import the store of examples if there is one, as the caller: the owner may be unable to read Python's files."""
    if (directory / _EXAMPLES).exists():
        importlib.import_module("edged.board.examples")


def _examples(directory: Path) -> list[dict[str, Any]]:
    """Return how many windows are kept to train each model with."""
    if not (directory / _EXAMPLES).exists():
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


def _model(packages: PackageStore, state: State, table: ModelConfig, serving: dict[str, Any]) -> dict[str, Any]:
    """Return a model's versions.

    :param serving: what the daemon says of its channel.
    """
    newest = packages.newest(table.name)
    return {
        "channel": table.channel,
        "name": table.name,
        "serving": serving.get("version"),
        "on_trial": serving.get("on_trial", False),
        "newest": None if newest is None else newest.version,
        "good": next((good.version for good in state.good(table.name)), None),
        "rejected": [{"version": one.version, "why": one.why} for one in state.rejected(table.name)],
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


def _is_running(directory: Path) -> bool:
    try:
        Lock(directory).close()
    except StateLockedError:
        return True
    return False


def _reported() -> dict[str, Any] | None:
    """Return what the daemon last said of itself, where systemd gave it a directory in RAM."""
    with suppress(OSError, ValueError):
        reported: dict[str, Any] = msgspec.json.decode(
            ((runtime_directory() or _RUNTIME) / _FILE).read_bytes(), type=dict
        )
        return reported
    return None


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
