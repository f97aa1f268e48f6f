"""Options that several commands share, and the only way to a person's terminal: nothing reaches it raw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from edged.base.text import printable

_Function = TypeVar("_Function", bound=Callable[..., Any])

DEFAULT_CONFIG = Path("/etc/edged/edged.toml")

path_type = click.Path(path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def _config_of(owner: str, default: Path, envvar: str) -> Callable[[_Function], _Function]:
    """Return the option ``--config`` of commands that read this configuration."""
    return click.option(
        "-c",
        "--config",
        type=path_type,
        default=default,
        show_default=True,
        envvar=envvar,
        help=f"The {owner}'s configuration.",
    )


config_option = _config_of("board", DEFAULT_CONFIG, "EDGED_CONFIG")
hub_option = _config_of("hub", Path("/etc/edged/hub.toml"), "EDGED_HUB_CONFIG")
aggregator_option = _config_of("aggregator", Path("/etc/edged/aggregator.toml"), "EDGED_AGGREGATOR_CONFIG")


def say(line: object = "", *, err: bool = False, dim: bool = False) -> None:
    """Print one line. Whatever stands in it, only printable characters reach the terminal.

    :param err: on standard error.
    """
    shown = printable(str(line))
    click.echo(click.style(shown, dim=True) if dim else shown, err=err)


def say_text(text: str, *, err: bool = False) -> None:
    """Print a text of several lines, with its tabs: one that is shown by itself, and not among lines of ours."""
    for line in text.removesuffix("\n").split("\n"):
        click.echo("\t".join(map(printable, line.split("\t"))), err=err)


def print_json(value: object, *, indent: int | None = 2, file: IO[str] | None = None) -> None:
    """Print ``value`` as one JSON document, in one line if ``indent`` is None."""
    import json  # noqa: PLC0415  not for tables

    lines = json.dumps(value, indent=indent, ensure_ascii=False).split("\n")
    click.echo("\n".join(map(printable, lines)), file=file)


def print_table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> None:
    """Print ``rows`` under ``header`` in columns as wide as they need to be."""
    cells = [list(header), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values, one a line."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        say(f"{name.ljust(width)}  {value}")


_LAST_DATE = 253_402_300_799
"""The end of the year 9999, the last that Python writes."""


def iso_date(seconds: int | None) -> str:
    """Return a date as people write it, or nothing for none."""
    return "" if seconds is None else datetime.fromtimestamp(min(seconds, _LAST_DATE), UTC).date().isoformat()
