"""What several commands share: tables and options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

DEFAULT_CONFIG = Path("/etc/edged/edged.toml")

path_type = click.Path(path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def config_option(function: _Function) -> _Function:
    """Add ``--config``."""
    return click.option(
        "-c",
        "--config",
        type=path_type,
        default=DEFAULT_CONFIG,
        show_default=True,
        envvar="EDGED_CONFIG",
        help="The board's configuration.",
    )(function)


def print_json(value: object) -> None:
    """Print ``value`` as one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> None:
    """Print ``rows`` under ``header`` in columns as wide as they need to be."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values, one a line."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name.ljust(width)}  {value}")


def iso_date(seconds: int | None) -> str:
    """Return a date as people write it, or nothing for none."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()
