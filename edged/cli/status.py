"""``edged status``: how this board is, as far as it can be told on the board itself."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from edged.board import Board
from edged.cli.common import config_option, json_option, path_type, print_facts, print_json, print_table
from edged.config.load import load_board
from edged.errors import MissingFileError, StateLockedError, UsageError
from edged.files import write_atomically
from edged.state import Lock, OutboxStore, SetAside, State, SuspectStore

_EXPORT_MODE = 0o644
_RUNTIME = Path("/run/edged/status.json")


@click.command("status", short_help="Show how this board is, and what was set aside.")
@click.option("--export", "number", type=int, help="Write a message that was set aside, as it was sealed to the hubs.")
@click.option("-o", "--output", type=path_type, help="Where --export writes.")
@config_option
@json_option
def status_command(config: Path, number: int | None, output: Path | None, *, as_json: bool) -> None:
    """Show whether the daemon runs, what it last said of itself, what waits, and what was set aside.

    \b
    Example: edged status
    """
    board = Board(load_board(config))
    if not State.exists(board.directory):
        raise MissingFileError(f"{board.directory} holds no state.db", hint="run `edged init` first")
    with board.as_owner(), closing(State(board.directory)) as state:
        aside = SuspectStore(state).all()
        waiting, size = OutboxStore(state).totals()
    if number is not None:
        _export(aside, number, output)
        return
    facts: dict[str, Any] = {
        "device": board.config.device.name,
        "running": _is_running(board.directory),
        "outbox": {"results": waiting, "bytes": size},
        "reported": _reported(),
        "set_aside": [_shown(one) for one in aside],
    }
    if as_json:
        print_json(facts)
        return
    print_facts(
        {
            "device": facts["device"],
            "daemon": "runs" if facts["running"] else "does not run",
            "outbox": f"{waiting} results, {size} bytes",
            **_lines(facts["reported"]),
        }
    )
    if aside:
        click.echo("\nset aside (`--export NUMBER -o FILE` writes one, sealed to the hubs):")
        print_table([tuple(_shown(one).values())[:5] for one in aside], ("number", "at", "topic", "bytes", "why"))


def _is_running(directory: Path) -> bool:
    try:
        Lock(directory).close()
    except StateLockedError:
        return True
    return False


def _reported() -> dict[str, Any] | None:
    """Return what the daemon last said of itself, where systemd gave it a directory in RAM."""
    with suppress(OSError, ValueError):
        reported: dict[str, Any] = json.loads(_RUNTIME.read_text())
        return reported
    return None


def _lines(reported: dict[str, Any] | None) -> dict[str, str]:
    if reported is None:
        return {}
    return {
        "broker": reported["links"],
        "messages": f"{reported['messages']}, {reported['rate']:.1f}/s, {reported['refused']} refused",
        "results": f"{reported['results']}, {reported['dropped']} dropped",
        "degraded": "; ".join(reported["degraded"]) or "no",
        "last error": reported["error"] or "none",
    }


def _shown(one: SetAside) -> dict[str, Any]:
    at = datetime.fromtimestamp(one.at, UTC).isoformat(timespec="seconds")
    return {
        "number": one.number,
        "at": at,
        "topic": one.topic,
        "bytes": one.size,
        "why": one.why,
        "digest": one.digest.hex(),
    }


def _export(aside: list[SetAside], number: int, output: Path | None) -> None:
    if output is None:
        raise UsageError("--export needs -o FILE")
    found = next((one for one in aside if one.number == number), None)
    if found is None:
        raise UsageError(f"nothing of number {number} was set aside", hint="`edged status` lists what was")
    write_atomically(output, [found.sealed], mode=_EXPORT_MODE, replace=False)
    click.echo(f"{output}  {len(found.sealed)} bytes, sealed to the hubs")
