"""The board's commands: init, install, models, check, run."""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import click
import msgspec

from edged.base.errors import EdgedError, OutputError, UsageError
from edged.base.events import Event
from edged.base.files import make_private_directory, open_regular, read_bounded, write_atomically
from edged.base.log import set_up_events
from edged.board.check import check
from edged.board.installation import Board
from edged.board.keyring import RECORD_MODE
from edged.board.state import State
from edged.cli.common import (
    DEFAULT_CONFIG,
    config_option,
    iso_date,
    json_option,
    path_type,
    print_facts,
    print_json,
    print_table,
    say,
    say_text,
)
from edged.cli.keystore import key_table, pin_option, show_table
from edged.config.load import load_board
from edged.formats.cose.algorithms import Aead
from edged.keystore.packages import GRANT_LIMIT, Installed

_LOG = logging.getLogger(__name__)


@click.command("init")
@config_option
@click.option("-o", "--output", type=path_type, help="Also write the enrolment record here.")
@click.option(
    "--keystore", metavar="URI", help="Where to make the keys: file:, pkcs11:..., tpm2: (default: keystore.uri)."
)
@pin_option
@json_option
def init_command(
    config: Path, output: Path | None, keystore: str | None, pin_file: str | None, *, as_json: bool
) -> None:
    """Make this board's two keys, and print its enrolment record.

    \b
    Example: edged init -o press-07.enrol
    """
    configured = load_board(config)
    table = key_table(configured.keystore, keystore, pin_file)
    board = Board(msgspec.structs.replace(configured, keystore=table))
    _make_state_directory(board.directory)
    aead = _suitable_aead()
    if table != configured.keystore and board.keys.record_path.exists():
        raise OutputError(
            f"{board.keys.record_path} exists already: this board has keys",
            hint=f"edged keystore migrate --to {table.uri}",
        )
    with board.as_owner():
        record = board.keys.enrol(board.config.device.name, aead)
        encoded = board.keys.record_path.read_bytes()
    if output is not None:
        write_atomically(output, [encoded], mode=RECORD_MODE, replace=True)
    facts: dict[str, object] = {
        "id": record.id,
        "fingerprint": record.fingerprint,
        "record": str(output or board.keys.record_path),
        "signing key": record.sign.thumbprint.hex(),
        "ECDH key": record.sealing_key.thumbprint.hex(),
        "AEAD": aead.name,
    }
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)
        say()
        say("Take the record to the publisher and the hub, and compare the fingerprint there.")
    if table != configured.keystore:
        say(f"edged: hint: {config} must name these keys:", err=True)
        say_text(show_table(table), err=True)


def _suitable_aead() -> Aead:
    """Return the AEAD that this CPU is faster with: boards before the Raspberry Pi 5 have no AES instructions."""
    return Aead.A256GCM if "aes" in Path("/proc/cpuinfo").read_text().split() else Aead.CHACHA20_POLY1305


def _make_state_directory(directory: Path) -> None:
    """Make the state directory if it is absent; for the system user ``edged`` where root calls and there is one."""
    if directory.exists():
        return
    make_private_directory(directory)
    if os.geteuid() == 0:
        with suppress(KeyError):
            user = pwd.getpwnam("edged")
            os.chown(directory, user.pw_uid, user.pw_gid)


@click.command("install")
@click.argument("packages", nargs=-1, required=True, type=path_type, metavar="PACKAGE...")
@click.option("--grant", type=path_type, help="This board's own grant (`edged grant --alone`), for one package.")
@config_option
def install_command(packages: tuple[Path, ...], grant: Path | None, config: Path) -> None:
    """Verify packages and put them into this board's key store; a running daemon takes them over by itself.

    \b
    Example: edged install gearbox-3.edged
             edged install gearbox-3.edged --grant gearbox-3.press-07.grant
    """
    board = Board(load_board(config))
    set_up_events()
    if grant is not None and len(packages) != 1:
        raise UsageError("--grant is for one package", hint="install the others by themselves")
    own = None if grant is None else read_bounded(grant, GRANT_LIMIT)
    with ExitStack() as opened:
        files = [opened.enter_context(open_regular(path)) for path in packages]  # as whoever calls
        opened.enter_context(board.as_owner())
        state = opened.enter_context(closing(State(board.directory)))
        for path, file in zip(packages, files, strict=True):
            with _audited(board, state, path):
                manifest = board.install(file, path, state, own)
            about = Event.MODEL_INSTALLED.about(model=manifest.name, version=manifest.version)
            _LOG.info("installed %s %d", manifest.name, manifest.version, extra=about)
            say(f"installed {manifest.name} {manifest.version}")
            if manifest.name not in {model.name for model in board.config.model}:
                say(f"edged: hint: no [[model]] in {config} uses {manifest.name} yet", err=True)


@contextmanager
def _audited(board: Board, state: State, path: Path) -> Iterator[None]:
    """Write into the audit log that a package was installed, or refused and why."""
    log = board.audit(state, board.keystore())
    try:
        yield
    except EdgedError as error:
        kind = type(error).__name__
        log.add("refuse", file=path.name, why=kind, detail=error.message)
        _LOG.error("refused %s", error.message, extra=Event.PACKAGE_REFUSED.about(error=kind))
        raise
    finally:
        log.sign()


@click.command("models")
@config_option
@json_option
def models_command(config: Path, *, as_json: bool) -> None:
    """List the installed packages, and which the daemon uses.

    \b
    Example: edged models --json
    """
    board = Board(load_board(config))
    rows: list[dict[str, object]] = []
    with board.as_owner():
        if installed := board.packages.all():
            with closing(State(board.directory)) as state:
                rows = [_describe(board, state, one) for one in installed]
    if as_json:
        print_json(rows)
    else:
        columns = ("name", "version", "state", "size", "expires", "summary")
        print_table([[row.get(column) or "-" for column in columns] for row in rows], columns)


def _describe(board: Board, state: State, installed: Installed) -> dict[str, object]:
    row: dict[str, object] = {"name": installed.name, "version": installed.version}
    try:
        package = board.verify_installed(installed)
    except EdgedError as error:
        return {**row, "state": f"refused: {error.message}"}
    used = installed.name in {model.name for model in board.config.model}
    why = state.why_rejected(package.identity)
    kept = "in use" if used and installed == board.in_use(installed.name, state) else "kept"
    return {
        **row,
        "state": kept if why is None else f"rejected: {why}",
        "summary": package.manifest.summary,
        "size": package.manifest.weights.size,
        "identity": package.identity.hex(),
        "expires": iso_date(package.manifest.expires),
    }


@click.command("check")
@click.argument("config", type=path_type, default=DEFAULT_CONFIG)
@click.option("--offline", is_flag=True, help="Leave the broker out.")
@json_option
def check_command(config: Path, *, offline: bool, as_json: bool) -> int:
    """Validate everything that can be validated without starting: configuration, keys, packages, broker.

    \b
    Example: edged check /etc/edged/edged.toml
    """
    findings = list(check(config, offline=offline))
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            say(f"{'ok  ' if finding.error is None else 'FAIL'}  {finding.what}  {finding.detail}".rstrip())
            if finding.error is not None and finding.error.hint:
                say(f"      hint: {finding.error.hint}")
    return next((finding.error.exit_code for finding in findings if finding.error is not None), 0)


@click.command("run")
@config_option
def run_command(config: Path) -> None:
    """Run the daemon in the foreground (systemd does: `systemctl start edged`).

    \b
    Example: edged run --config ./edged.toml
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's thread pool: memory that a board has better use for
    from edged.board.daemon.process import Daemon  # noqa: PLC0415  numpy must not be imported before the line above

    Daemon(config).run()
