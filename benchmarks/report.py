"""What is measured, the table that people read, and the JSON that scripts read."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One figure.

    :ivar bar: what it is held to; None for a figure that only explains others.
    :ivar direction: which side of the bar is good: at least it (``min``) or at most it (``max``).
    """

    name: str
    value: float
    unit: str
    bar: float | None = None
    direction: Literal["min", "max"] = "max"

    @property
    def holds(self) -> bool:
        """Whether the figure is on the good side of its bar, if it has one."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.direction == "min" else self.value <= self.bar


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: what disturbs a round disturbs both sides of it."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def print_table(rows: Iterable[Row]) -> None:
    """Print rows with their bars and verdicts."""
    cells = [("measured", "value", "", "bar", "verdict")]
    for row in rows:
        bar = "" if row.bar is None else f"{'>=' if row.direction == 'min' else '<='} {row.bar:g}"
        verdict = "" if row.bar is None else "holds" if row.holds else "FALLS SHORT"
        cells.append((row.name, f"{row.value:.2f}" if row.value < 100 else f"{row.value:.0f}", row.unit, bar, verdict))  # noqa: PLR2004
    print_columns(cells, right=(1,))


def print_columns(cells: Sequence[Sequence[str]], right: Collection[int]) -> None:
    """Print a table whose columns ``right`` hold numbers."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = (
            text.rjust(width) if at in right else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(line).rstrip())


def write_json(rows: Iterable[Row], path: Path) -> None:
    """Write the rows that have a bar."""
    kept = [
        {"name": row.name, "value": round(row.value, 3), "unit": row.unit, "bar": row.bar, "direction": row.direction}
        for row in rows
        if row.bar is not None
    ]
    path.write_text(json.dumps(kept, indent=2) + "\n")


def machine() -> str:
    """Say in a line what this was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = f"{len(names)} x {names[0]}" if names else platform.machine()
    return f"{cpu}, {platform.system()} {platform.release()}, Python {platform.python_version()}"
