"""``edged federate data``: the windows that this board keeps to train its models with. None of them ever leaves it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import click

from edged.base.errors import ConfigError, EdgedError, MissingFileError, UsageError
from edged.base.units import parse_duration
from edged.board.installation import Board
from edged.board.state import Class, ExampleEditor, Examples, Of, State, Which
from edged.cli.common import config_option, json_option, print_json, print_table, say
from edged.config.load import load_board
from edged.formats.package.manifest import Manifest
from edged.formats.spec import fingerprint

_COLUMNS = ("model", "label", "windows", "bytes", "first", "last", "note")
_OLD = "prepared by another signal chain: of no use any more"
_MICROSECONDS = 1_000_000


@click.group("data", short_help="List, label and erase the windows that are kept to train with.")
def data_group() -> None:
    """List, label and erase the windows that this board keeps, sealed, to train its models with (`model.collect`)."""


def _moment(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Return a moment in Unix microseconds: a date with or without a time, ``now``, or how long ago."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        try:
            at = time.time() - (0.0 if text == "now" else parse_duration(text))
        except ConfigError:
            raise click.BadParameter(
                f"{text!r} is no time: 2026-11-21T14:30, with or without a zone, now, or how long ago: 10 min"
            ) from None
    return round(at * _MICROSECONDS)


_model_option = click.option("--model", metavar="NAME", help="Of this model.")


@data_group.command("list", short_help="List what is kept.")
@_model_option
@config_option
@json_option
def list_command(model: str | None, config: Path, *, as_json: bool) -> None:
    """List the windows that are kept, by model and label.

    \b
    Example: edged federate data list
    """
    board = Board(load_board(config))
    rows: list[dict[str, object]] = []
    with board.as_owner():
        if Examples.exists(board.directory):
            with closing(board.examples(None)) as examples:
                classes = [one for one in examples.classes() if model in {None, one.model}]
            manifests = {name: _manifest_if_any(board, name) for name in {one.model for one in classes}}
            rows = [_describe(one, manifests[one.model]) for one in classes]
    if as_json:
        print_json(rows)
    elif rows:
        print_table([[row[column] or "-" for column in _COLUMNS] for row in rows], _COLUMNS)
    else:
        say("nothing is kept")


def _describe(one: Class, manifest: Manifest | None) -> dict[str, object]:
    usable = manifest is not None and fingerprint(manifest) == one.chain
    label: str | None = None if one.label is None else f"no. {one.label}"
    if usable and manifest is not None and one.label is not None and one.label < len(manifest.output.labels):
        label = manifest.output.labels[one.label]
    return {
        "model": one.model,
        "label": label,
        "windows": one.windows,
        "bytes": one.size,
        "first": _iso(one.first),
        "last": _iso(one.last),
        "note": "" if usable else _OLD if manifest is not None else "the model is not installed",
        "usable": usable,
    }


def _iso(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds // _MICROSECONDS, UTC).isoformat()


def _manifest(board: Board, name: str) -> Manifest:
    """Return the manifest of a model as it is used.

    :raises EdgedError: no package of it can be.
    """
    installed = None
    if State.exists(board.directory):
        with closing(State(board.directory)) as state:
            installed = board.in_use(name, state)
    if installed is None:
        raise MissingFileError(f"no package of model {name!r} can be used", hint="`edged models` lists what there is")
    return board.verify_installed(installed).manifest


def _manifest_if_any(board: Board, name: str) -> Manifest | None:
    with suppress(EdgedError):
        return _manifest(board, name)
    return None


@data_group.command("label", short_help="Say what windows of a time are.")
@click.option("--model", metavar="NAME", required=True, help="Of this model.")
@click.option("--from", "since", metavar="TIME", callback=_moment, required=True, help="The first window's time.")
@click.option(
    "--to", "until", metavar="TIME", callback=_moment, default="now", help="The last window's.  [default: now]"
)
@click.option("--clear", is_flag=True, help="Take their label away instead.")
@click.argument("label", required=False)
@config_option
def label_command(model: str, since: int, until: int, label: str | None, config: Path, *, clear: bool) -> None:
    """Give the windows of a time a label: one of the model's own.

    A time is as in 2026-11-21T14:30 (this machine's time zone, or with one), `now`, or how long ago, as in "10 min".

    \b
    Example: edged federate data label --model gearbox --from "10 min" broken
    """
    if clear == (label is not None):
        raise UsageError("one of them: a label, or --clear")
    if until < since:
        raise UsageError("--to lies before --from")
    board = Board(load_board(config))
    with _opened(board, with_keys=True) as examples:
        manifest = _manifest(board, model)
        number = None if label is None else _number(manifest, label)
        labelled, unreadable = ExampleEditor(examples).label(Of(model, fingerprint(manifest)), since, until, number)
    say(f"{labelled} windows of {model}: {'no label' if label is None else label}")
    if unreadable:
        say(f"edged: hint: {unreadable} more do not open: they were altered, or their key is gone", err=True)


def _number(manifest: Manifest, label: str) -> int:
    labels = manifest.output.labels
    if label not in labels:
        raise UsageError(f"{label!r} is no label of {manifest.name}", hint=f"it has {', '.join(labels) or 'none'}")
    return labels.index(label)


@data_group.command("erase", short_help="Erase windows for good.")
@_model_option
@click.option("--all", "everything", is_flag=True, help="Of every model.")
@click.option("--label", metavar="LABEL", help="With this label alone; goes with --model.")
@click.option("--before", metavar="TIME", callback=_moment, help="Older ones alone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def erase_command(
    model: str | None, label: str | None, before: int | None, config: Path, *, everything: bool, yes: bool
) -> None:
    """Erase windows, and the keys that they were sealed under. What is kept of them is sealed under new keys.

    A daemon that runs goes on collecting: take `collect` out of its configuration first to keep none.

    \b
    Example: edged federate data erase --model gearbox --before "30 d"
    """
    if everything == (model is not None):
        raise UsageError("one of them: --model NAME, or --all")
    if label is not None and model is None:
        raise UsageError("--label goes with --model")
    board = Board(load_board(config))
    if not yes:
        click.confirm("Erase them for good?", abort=True, err=True)
    which = Which(model, before=before)
    with _opened(board, with_keys=label is not None or before is not None) as examples:
        if label is not None and model is not None:
            manifest = _manifest(board, model)
            which = which._replace(chain=fingerprint(manifest), label=_number(manifest, label))
        gone = ExampleEditor(examples).erase(which)
    say(f"erased {gone} windows")


@contextmanager
def _opened(board: Board, *, with_keys: bool) -> Iterator[Examples]:
    """Open the store as the state's owner.

    :param with_keys: whether windows are to be opened or sealed.
    :raises MissingFileError: there is none.
    """
    with board.as_owner():
        if not Examples.exists(board.directory):
            raise MissingFileError(
                f"{board.directory} keeps no windows", hint="`model.collect` in the configuration makes it keep some"
            )
        with closing(board.examples(board.keystore() if with_keys else None)) as examples:
            yield examples
