"""``edged federate``: learn together with other boards, from what stays here."""

from __future__ import annotations

import json
import logging
import signal
import threading
from contextlib import closing, suppress
from pathlib import Path

import click

from edged.base.errors import ConfigError, StateLockedError
from edged.base.files import read_bounded, write_atomically
from edged.base.lock import Lock
from edged.base.log import set_up_logging
from edged.base.memory import harden
from edged.board.installation import Board
from edged.cli.common import config_option, json_option, path_type, print_facts, print_json, say
from edged.cli.data import data_group
from edged.config.federated import FederatedTable
from edged.config.load import load_board
from edged.federated.conditions import unreachable
from edged.federated.flower import prepare
from edged.federated.nodes import make_node_key, open_node_key, vouch
from edged.federated.order import Rounds
from edged.federated.privacy import Budget
from edged.formats.identity import Role
from edged.keystore.records import read_record

_LOG = logging.getLogger(__name__)
_LIMIT = 64 * 1024
_RECORD_MODE = 0o644


def _table(board: Board) -> FederatedTable:
    if board.config.federated is None:
        raise ConfigError(
            "the configuration has no [federated]", hint="docs/federated.md says what stands in it; aggregator first"
        )
    return board.config.federated


def _directory(board: Board) -> Path:
    return board.directory / "federated"


@click.group("federate")
def federate_command() -> None:
    """Learn together with other boards, from windows that stay here."""


federate_command.add_command(data_group)


@federate_command.command("init", short_help="Make this board's node key and its record.")
@config_option
@click.option("-o", "--output", type=path_type, help="Where to write the node record (default: NAME.node).")
@json_option
def init_command(config: Path, output: Path | None, *, as_json: bool) -> None:
    """Make the key that this board authenticates its connection with, and write its node record for the aggregator.

    The key is sealed to this board's own key. Where there is one, its record is written again.

    \b
    Example: edged federate init -o press-07.node
    """
    board = Board(load_board(config))
    _table(board)
    with board.as_owner():
        keystore = board.keystore()
        record = board.keys.opened_record(keystore)
        encoded = read_bounded(board.keys.record_path, _LIMIT)
        path = _directory(board) / "node.key"
        if path.exists():
            made = vouch(open_node_key(path, record, keystore).public, record, encoded, keystore)
        else:
            made = make_node_key(path, record, encoded, keystore)
    target = output or Path(f"{record.id}.node")
    write_atomically(target, [made], mode=_RECORD_MODE, replace=True)
    facts = {"id": record.id, "fingerprint": record.fingerprint, "node record": str(target)}
    if as_json:
        print_json(facts)
        return
    print_facts(facts)
    say()
    say(f"Take {target} to the aggregator (`edged aggregator allow`), and compare the fingerprint there.")


@federate_command.command("run", short_help="Take part in rounds.")
@config_option
def run_command(config: Path) -> None:
    """Take part in rounds, whenever [federated.when] allows (systemd does: `systemctl start edged-federated`).

    \b
    Example: edged federate run --config ./edged.toml
    """
    board = Board(load_board(config))
    table = _table(board)
    set_up_logging(board.config.log.level)
    prepare()
    from edged.federated.conditions import Conditions  # noqa: PLC0415  for this command alone
    from edged.federated.flower.board import BoardProcess  # noqa: PLC0415  as above
    from edged.federated.work import RoundWorker, opener  # noqa: PLC0415  as above

    for line in harden().describe():
        _LOG.info("%s", line)
    with board.as_owner(), closing(Lock(board.directory, "federated.lock")):
        directory = _directory(board)
        keystore = board.keystore()
        device = board.keys.opened_record(keystore)
        node = open_node_key(directory / "node.key", device, keystore)
        conditions, stop = Conditions(table.when), threading.Event()
        worker = RoundWorker(
            table,
            read_record(Path(table.record), Role.AGGREGATOR),
            device,
            keystore.signer,
            Rounds(directory / "rounds"),
            Budget(directory / "budget", table.privacy),
            opener(board, keystore),
            may_train=lambda: "it is being stopped" if stop.is_set() else conditions.in_the_way(),
        )
        process = BoardProcess(table, node, worker, directory, may_train=conditions.in_the_way, stop=stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        process.run()


@federate_command.command("status", short_help="Show how it goes, and what was given away.")
@config_option
@json_option
def status_command(config: Path, *, as_json: bool) -> None:
    """Show whether this board takes part, what it answered, and what it has given away of itself.

    \b
    Example: edged federate status
    """
    board = Board(load_board(config))
    table = _table(board)
    with board.as_owner():
        directory = _directory(board)
        status: dict[str, object] = {"state": "never ran", "answered": {}}
        with suppress(OSError, ValueError):
            status = json.loads((directory / "status.json").read_text())
        running = False
        try:
            Lock(board.directory, "federated.lock").close()
        except StateLockedError:
            running = True
        spent = Budget(directory / "budget", table.privacy).spent()
    in_the_way = unreachable(table.aggregator, table.ca)
    if as_json:
        epsilons = {model: {"epsilon": one.epsilon, "assumes": one.assumptions} for model, one in spent.items()}
        reached = {"address": table.aggregator, "answers": in_the_way is None, "error": in_the_way or ""}
        facts = {"running": running, **status, "aggregator": reached}
        print_json({**facts, "epsilon": epsilons, "delta": table.privacy.delta})
        return
    answered = status.get("answered")
    counts = answered.items() if isinstance(answered, dict) else ()
    allowed = "" if table.privacy.epsilon is None else f" of {table.privacy.epsilon:g}"
    told = (f"{model} {one.epsilon:.3g}{allowed}: {one.assumptions}" for model, one in spent.items())
    print_facts(
        {
            "process": "runs" if running else "does not run",
            "state": status["state"],
            "aggregator": f"{table.aggregator}, {'answers' if in_the_way is None else in_the_way}",
            "models": ", ".join(table.models),
            "updates": "masked alone" if table.secure else "masked, or sealed to the aggregator",
            "answered": ", ".join(f"{kind} {count}" for kind, count in counts) or "nothing",
            "epsilon": "; ".join(told) or "nothing counted: rounds without noise have none",
        }
    )
