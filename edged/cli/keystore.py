"""``edged keystore``: try a board's keys, give it new ones elsewhere, forget the old, destroy all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
import msgspec

from edged.base.errors import StateLockedError, UsageError
from edged.base.files import read_bounded, write_atomically
from edged.base.lock import Lock
from edged.board.installation import Board
from edged.board.keyring import RECORD_MODE
from edged.board.state import State
from edged.cli.common import config_option, json_option, path_type, print_facts, print_json, say
from edged.config.board import KeystoreTable
from edged.config.load import load_board
from edged.keystore import exercise

_LIMIT = 4096


pin_option = click.option(
    "--pin-file", metavar="FILE", help="File that holds the PIN (mode 0600), or credential:NAME; as keystore.pin."
)


def key_table(configured: KeystoreTable, uri: str | None, pin_file: str | None) -> KeystoreTable:
    """Return the ``[keystore]`` table that the command line asks for.

    :raises ConfigError: its parts do not fit together.
    """
    if uri is None and pin_file is None:
        return configured
    uri = uri or configured.uri
    same_kind = uri.partition(":")[0] == configured.uri.partition(":")[0]
    return KeystoreTable(
        uri=uri,
        wrap=configured.wrap if same_kind else None,
        pin=_absolute(pin_file) if pin_file is not None else configured.pin if same_kind else None,
    )


def show_table(table: KeystoreTable) -> str:
    """Return ``table`` as it stands in a configuration."""
    keys = ((name, getattr(table, name)) for name in table.__struct_fields__)
    return "\n".join(["[keystore]", *(f'{name} = "{value}"' for name, value in keys if value is not None)])


def _absolute(reference: str) -> str:
    return reference if reference.startswith("credential:") else str(Path(reference).absolute())


@click.group("keystore")
def keystore_command() -> None:
    """Try this board's keys, give it new ones elsewhere, forget the old, and destroy all.

    \b
    Example: edged keystore check
    """


@keystore_command.command("check")
@config_option
@json_option
def check_command(config: Path, *, as_json: bool) -> None:
    """Make both operations, time them, and say what hardware protects and what passes through RAM.

    \b
    Example: edged keystore check --json
    """
    board = Board(load_board(config))
    with board.as_owner():
        keystore = board.keystore()
        record = board.keys.opened_record(keystore)
        times = exercise(keystore.signer, keystore.agreement)
        protection = keystore.protection()
    if as_json:
        seconds = {"sign": times.sign, "ecdh": times.ecdh}
        print_json(
            {"uri": board.config.keystore.uri, "fingerprint": record.fingerprint, "seconds": seconds}
            | msgspec.to_builtins(protection)
        )
        return
    print_facts(
        {
            "keys": protection.store,
            "fingerprint": record.fingerprint,
            "hardware": "yes" if protection.hardware else "NO: nothing apart from this computer guards them",
            "sign": f"{times.sign * 1000:.2f} ms, right",
            "ECDH": f"{times.ecdh * 1000:.2f} ms, right",
        }
    )
    for head, lines in (("protected", protection.protected or ("nothing",)), ("in RAM", protection.ram)):
        for number, line in enumerate(lines):
            say(f"{head if number == 0 else '':<11}  {line}")


@keystore_command.command("migrate")
@click.option("--to", "uri", metavar="URI", required=True, help="Where to make the new keys: file:, pkcs11:..., tpm2:.")
@pin_option
@click.option("--wrap", metavar="FILE", help="What new file: keys are encrypted under, as keystore.wrap.")
@click.option("-o", "--output", type=path_type, help="Also write the new enrolment record here.")
@config_option
def migrate_command(uri: str, pin_file: str | None, wrap: str | None, output: Path | None, config: Path) -> None:
    """Make new keys elsewhere, and an enrolment record that the old key endorses.

    The board goes on with its old keys until keystore.uri names the new ones; from then on the old keys only open what
    was sealed to them, until `edged keystore forget-old`.

    \b
    Example: edged keystore migrate --to tpm2: -o press-07.enrol
    """
    board = Board(load_board(config))
    table = KeystoreTable(
        uri=uri,
        wrap=None if wrap is None else _absolute(wrap),
        pin=None if pin_file is None else _absolute(pin_file),
    )
    board.keys.secrets.of(table)
    with board.as_owner(), closing(State(board.directory)) as state:
        record = board.keys.migrate(table)
        log = board.audit(state, board.keystore())
        log.add("key", what="migrate", to=table.uri, fingerprint=record.fingerprint)
        log.sign()
        encoded = read_bounded(board.keys.following_path, _LIMIT)
    if output is not None:
        write_atomically(output, [encoded], mode=RECORD_MODE, replace=True)
    print_facts({"fingerprint": record.fingerprint, "record": str(output or board.keys.following_path)})
    say()
    say(
        "Take the record to the publisher and the hubs: it is signed by the old key, and replaces the old record.\n"
        f"Then say so in {config}, and restart edged:\n\n{show_table(table)}"
    )


@keystore_command.command("forget-old")
@config_option
def forget_command(config: Path) -> None:
    """Remove the private keys that this board had before a migration.

    Installed packages that only they open are sealed to the present keys first. What is sealed to them later does not
    open any more: the publisher and the operator need the new record by then.

    \b
    Example: edged keystore forget-old
    """
    board = Board(load_board(config))
    with board.as_owner(), closing(State(board.directory)) as state:
        forgotten = board.keys.forget_former(
            board.packages, lambda one: say(f"sealed {one.name} {one.version} to the present keys")
        )
        log = board.audit(state, board.keystore())
        for former in forgotten:
            log.add("key", what="forget", uri=former.table.uri, sign=former.sign)
            say(f"removed the keys at {former.table.uri}")
        log.sign()
    if not forgotten:
        say("there are no old keys")


@keystore_command.command("destroy")
@click.option("--device", metavar="NAME", required=True, help="The board's name, to be sure that it is this one.")
@config_option
def destroy_command(device: str, config: Path) -> None:
    """Destroy all private keys of this board, those of former times too, and its enrolment records.

    For a board that is given away. It opens no package any more, and nobody believes what it says. The audit log stays
    in state.db: export it before (`edged audit --export`), together with the record.

    \b
    Example: edged keystore destroy --device press-07
    """
    board = Board(load_board(config))
    name = board.config.device.name
    if device != name:
        raise UsageError(f"this board is {name}, not {device}", hint="--device names the board whose keys are to go")
    with board.as_owner(), _stopped(board), closing(State(board.directory)) as state:
        keystore = board.keystore()
        log = board.audit(state, keystore)
        log.add("key", what="destroy", device=name, sign=keystore.signer.public.thumbprint.hex())
        log.sign()
        for uri in board.keys.destroy():
            say(f"destroyed the keys at {uri}")


@contextmanager
def _stopped(board: Board) -> Iterator[None]:
    """Keep the daemon from running in the block.

    :raises StateLockedError: it runs.
    """
    try:
        lock = Lock(board.directory)
    except StateLockedError as error:
        raise StateLockedError(f"the daemon runs on {board.directory}", hint="systemctl stop edged") from error
    try:
        yield
    finally:
        lock.close()
