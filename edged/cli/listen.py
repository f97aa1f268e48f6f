"""``edged listen``: open sealed results with the hub's key."""

from __future__ import annotations

import string
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edged.base.errors import UsageError
from edged.base.log import set_up_logging
from edged.base.text import printable
from edged.cli.common import path_type, print_json, say_text
from edged.cli.mqtt import broker_options, connect, connection_options
from edged.cli.passphrase import open_personal_keys, passphrase_option
from edged.formats.channel.hub import Hub
from edged.formats.channel.receiver import Opened
from edged.formats.channel.report import Report
from edged.formats.identity import Role
from edged.hub.listen import Listener
from edged.keystore.records import read_record

KEYS = (
    *("device", "channel", "model", "version", "source", "time", "count", "label", "score", "value", "values"),
    *("counts", "boxes", "scores", "top", "late", "redelivered", "digest", "input", "tune", "kid", "signed"),
)
_ABSENT = "-"
_TIMED_OUT = 27  # as mosquitto_sub -W


class Template:
    """Fills in a result's keys, by the rules of Python's ``str.format``; what a result does not have is ``-``.

    :raises click.BadParameter: it has a key that no result has, or cannot be read.
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace(r"\t", "\t").replace(r"\n", "\n")
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(self._text) if name is not None]
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}") from error
        for name in names:
            if name not in KEYS:
                raise click.BadParameter(f"{text!r}: {name!r} is none of {', '.join(KEYS)}")

    def fill(self, result: Mapping[str, object]) -> str:
        """Return the line of a result."""
        return string.Formatter().vformat(self._text, (), {key: _Value(result.get(key)) for key in KEYS})


class _Value:
    """A value that formats as itself, in one line, and as ``-`` where it is absent or its format does not fit it."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __format__(self, spec: str) -> str:
        if self._value is None:
            return _ABSENT
        try:
            return printable(format(self._value, spec))
        except (TypeError, ValueError):
            return printable(str(self._value))

    def __str__(self) -> str:
        return _ABSENT if self._value is None else printable(str(self._value))


@click.command("listen")
@click.option("--hub-key", type=path_type, required=True, help="The hub's private key.")
@click.option(
    "-b",
    "--board",
    "boards",
    type=path_type,
    multiple=True,
    required=True,
    help="Enrolment record of a board to believe, or a directory of them (*.enrol); repeat.",
)
@click.option("--prefix", default="edged", show_default=True, help="The boards' results.prefix.")
@click.option("--device", "devices", multiple=True, help="Only results of this board; repeat.")
@click.option("--model", "models", multiple=True, help="Only results of this model; repeat.")
@click.option("-F", "--format", "template", metavar="TEMPLATE", help="A line such as '{device} {label} {score:.1%}'.")
@click.option("-C", "--count", type=int, help="Leave after so many results.")
@click.option("-W", "--timeout", type=float, help="Leave after so many seconds, with exit code 27.")
@click.option("--health", is_flag=True, help="Also print what boards say of themselves.")
@click.option("-d", "--debug", is_flag=True, help="Also say who announces what.")
@connection_options
@passphrase_option
def listen_command(
    hub_key: Path,
    boards: tuple[Path, ...],
    prefix: str,
    devices: tuple[str, ...],
    models: tuple[str, ...],
    template: str | None,
    count: int | None,
    timeout: float | None,
    *,
    health: bool,
    debug: bool,
    passphrase_file: str | None,
    **connection: Any,
) -> int:
    """Open sealed results and print them, one JSON object a line, or as a template says.

    \b
    Example: edged listen -h broker.local --cafile ca.crt --hub-key home.key --board press-07.enrol
             edged listen ... --device press-07 -F '{time:.0f}\\t{label}\\t{score:.1%}'
    """
    set_up_logging("info" if debug else "warning")
    line = None if template is None else Template(template)
    keys = open_personal_keys(hub_key, passphrase_file)
    records = [read_record(path, Role.DEVICE) for path in _records(boards)]
    keys.need_agreement(hub_key)
    hub = Hub(keys, records, prefix=prefix)
    broker = connect(broker_options(**connection))
    printed = 0

    def show(opened: Opened) -> None:
        nonlocal printed
        shown = opened.to_json()
        if (devices and opened.device not in devices) or (models and opened.result.model not in models):
            return
        if count is None or printed < count:
            printed += 1
            if line is None:
                print_json(shown, indent=None)
            else:
                say_text(line.fill(shown))

    def show_report(device: str, report: Report) -> None:
        if health and (not devices or device in devices):
            print_json({"device": device, "health": asdict(report)}, indent=None)

    listener = Listener(broker, hub, show, show_report)
    listener.subscribe()
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        while count is None or printed < count:
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if left <= 0:
                return _TIMED_OUT
            broker.run_once(left)
    finally:
        broker.close()
    return 0


def _records(boards: tuple[Path, ...]) -> list[Path]:
    paths = [path for board in boards for path in (sorted(board.glob("*.enrol")) if board.is_dir() else [board])]
    if not paths:
        raise UsageError("the directory given with --board holds no *.enrol file")
    return paths
