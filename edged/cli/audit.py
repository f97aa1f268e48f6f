"""``edged audit``: what ran on this board when, and whether its record is whole."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from edged.base.errors import MismatchError, UsageError, error_context
from edged.base.files import read_bounded, write_atomically
from edged.base.nothing import nothing
from edged.base.owner import acting_as_owner
from edged.board.audit import Entry, Verdict, export, parse_export, verify
from edged.board.state import State
from edged.cli.common import config_option, json_option, path_type, print_json, print_table, say
from edged.config.load import load_board
from edged.formats.cose.keys import PublicKey
from edged.formats.identity import Role
from edged.keystore import DIRECTORY
from edged.keystore.records import read_own, read_record, read_signers

_EXPORT_MODE = 0o644
_MOST = 64 * 1024 * 1024


@click.command("audit")
@click.option("-n", "--last", type=click.IntRange(1), default=50, show_default=True, help="Entries to show.")
@click.option("--verify", "verifies", is_flag=True, help="Only say whether the log is whole.")
@click.option("--export", "output", type=path_type, help="Write the whole log with its signatures to this file.")
@click.option("--file", "source", type=path_type, help="Look at an exported log instead of this board's.")
@click.option(
    "--board",
    "records",
    type=path_type,
    multiple=True,
    help="Enrolment record of the board that an exported log is of; repeat for those it had before its keys changed.",
)
@config_option
@json_option
def audit_command(
    last: int,
    output: Path | None,
    source: Path | None,
    records: tuple[Path, ...],
    config: Path,
    *,
    verifies: bool,
    as_json: bool,
) -> None:
    """Show installs, refusals, swaps, roll-backs, key changes, starts and stops; say whether the record is whole.

    \b
    Example: edged audit --verify
    """
    entries, signatures, device, keys = _read(source, records, config)
    if output is not None:
        write_atomically(output, [export(entries, signatures)], mode=_EXPORT_MODE, replace=True)
        say(f"{output}  {len(entries)} entries, {len(signatures)} signatures")
        return
    verdict = verify(entries, signatures, device, *keys)
    if not verifies:
        _show(verdict.entries[-last:], as_json=as_json)
    elif as_json:
        print_json({"entries": len(verdict.entries), "signed": verdict.signed, "problems": verdict.problems})
    _judge(verdict, quiet=as_json or not verifies)


def _read(
    source: Path | None, records: tuple[Path, ...], config: Path
) -> tuple[list[bytes], list[bytes], str, list[PublicKey]]:
    if source is not None:
        if not records:
            raise UsageError("--file needs the record of the board that the log is of", hint="--board press-07.enrol")
        boards = [read_record(path, Role.DEVICE) for path in records]
        with error_context(source):
            return *parse_export(read_bounded(source, _MOST)), boards[0].id, [board.sign for board in boards]
    directory = Path(load_board(config).device.state)
    with acting_as_owner(directory, nothing), closing(State(directory)) as state:
        keys = directory / DIRECTORY
        return *state.audit(), read_own(keys).id, read_signers(keys)


def _show(entries: list[Entry], *, as_json: bool) -> None:
    if as_json:
        print_json([{**one.facts, "number": one.number, "time": one.time / 1e6, "kind": one.kind} for one in entries])
        return
    rows = [
        (one.number, _moment(one.time), one.kind, "  ".join(f"{name}={fact}" for name, fact in one.facts.items()))
        for one in entries
    ]
    print_table(rows, ("no.", "time (UTC)", "what", "facts"))


def _moment(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(sep=" ", timespec="seconds")[:19]


def _judge(verdict: Verdict, *, quiet: bool) -> None:
    """Say what is wrong with a log.

    :raises MismatchError: something is.
    """
    if verdict.problems:
        raise MismatchError(
            "; ".join(verdict.problems), hint="compare it with an earlier export (edged audit --export)"
        )
    if not quiet:
        newest = verdict.entries[-1].number if verdict.entries else 0
        say(f"whole: {len(verdict.entries)} entries, signed up to {verdict.signed} of {newest}")
