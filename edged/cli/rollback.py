"""``edged rollback``: go back to the version of a model that was good before the newest one."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import click

from edged.base.errors import MissingFileError, UsageError
from edged.base.events import Event
from edged.base.log import set_up_events
from edged.board.installation import Board
from edged.board.pipeline import check_binding, check_state
from edged.board.state import State
from edged.cli.common import config_option, json_option, print_json, say
from edged.config.load import load_board
from edged.keystore.packages import Installed

_LOG = logging.getLogger(__name__)


@click.command("rollback")
@click.argument("name")
@click.option("--why", metavar="TEXT", required=True, help="The reason: for `edged status` and the audit log.")
@click.option("--version", type=click.IntRange(1), help="What to take back.  [default: the newest that is installed]")
@config_option
@json_option
def rollback_command(name: str, why: str, version: int | None, config: Path, *, as_json: bool) -> None:
    """Take a version back that serves, and serve the good one before it; a running daemon does so by itself.

    What was taken back is not loaded again, and not installed again; higher versions are. Where it was rejected
    already, by its trial or by this command, nothing changes.

    \b
    Example: edged rollback gearbox --why "sees faults that are none"
    """
    set_up_events()
    board = Board(load_board(config))
    if not State.exists(board.directory):
        raise MissingFileError(f"{board.directory} holds no state.db", hint="run `edged init` first")
    with board.as_owner(), closing(State(board.directory)) as state:
        bad = _find(board, name, version)
        known = {one.version: one.why for one in state.rejected(name)}
        now = board.in_use(name, state)
        changes = bad.version not in known
        if changes:
            now = _roll_back(board, state, bad, now, why)
    if as_json:
        print_json({"model": name, "before": bad.version, "version": now and now.version, "changed": changes})
    elif changes and now is not None:
        say(f"rolled back {name} {bad.version} to {now.version}")
    else:
        answer = f"{now.version} is used" if now is not None else "none is used"
        say(f"{name} {bad.version} was rejected before ({known[bad.version]}); {answer}")


def _find(board: Board, name: str, version: int | None) -> Installed:
    found = board.packages.newest(name) if version is None else board.packages.find(name, version)
    if found is None:
        what = f"no package of model {name!r}" if version is None else f"no {name} {version}"
        raise MissingFileError(f"{what} is installed", hint="`edged models` lists what is")
    return found


def _roll_back(board: Board, state: State, bad: Installed, now: Installed | None, why: str) -> Installed:
    """Reject a version, once it is clear that the one before it can be used; return that.

    :raises EdgedError: why nothing was changed.
    """
    if bad != now and now is not None:
        raise UsageError(f"{bad.name} {now.version} is in use, not {bad.version}", hint="`edged models` says so")
    before = board.before(bad, state)
    if before is None:
        raise MissingFileError(
            f"no version of {bad.name} below {bad.version} that got through its trial is installed here",
            hint="`edged pack --from` an older package under a higher version, and install that",
        )
    log = board.audit(state, board.keystore())
    _try(board, state, before)
    board.reject(bad, why, state)
    log.add("rollback", model=bad.name, version=before.version, before=bad.version, why=why)
    log.sign()
    said = Event.ROLLED_BACK.about(model=bad.name, version=bad.version)
    _LOG.warning("model %s goes back from %d to %d: %s", bad.name, bad.version, before.version, why, extra=said)
    return before


def _try(board: Board, state: State, package: Installed) -> None:
    """Load a package as the daemon will, for each table that names its model.

    :raises EdgedError: why it cannot be used.
    """
    for table in board.config.model:
        if table.name == package.name:
            model = board.load(package, board.keystore(), state, board.engine(), table.delegate)
            try:
                check_binding(table, model.manifest)
                check_state(table, keeps_state=model.keeps_state)
            finally:
                model.close()
