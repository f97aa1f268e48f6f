"""This checkout against another one: each runs its own measurements with its own wheel, in turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from report import print_columns

MEASUREMENTS = ("own", "throughput", "load_time", "start")
"""The measurements of what a change could make slower unnoticed."""

_HERE = Path(__file__).parents[1]
_PYTHON = Path(".venv/bench/bin/python")
_ROUNDS = 3
_SLOWER = 1.03
_COSTS, _RATE = ("us", "ms", "x"), "/s"
_MEASURE = """
import importlib, json, pathlib, sys
sys.path.insert(0, sys.argv[1])
rows = importlib.import_module(sys.argv[2]).measure(pathlib.Path(sys.argv[3]), quick=sys.argv[4] == "True")
print(json.dumps([(row.name, row.value, row.unit, row.direction) for row in rows]))
"""


class _Figure(NamedTuple):
    value: float
    unit: str
    direction: str


def compare(other: Path, measurements: Sequence[str], *, quick: bool) -> bool:
    """Print each figure that both have: the other's, ours, and how many times as much ours costs.

    :param other: a checkout with its ``.venv/bench``: `make .venv/bench/.installed`.
    :return: True if none costs over 3 % more.
    """
    table, holds = [("measured", "old", "new", "", "new costs", "verdict")], True
    for name in measurements:
        rounds = [
            (_figures(other, name, quick=quick), _figures(_HERE, name, quick=quick))
            for _ in range(1 if quick else _ROUNDS)
        ]
        for row, first in rounds[0][1].items():
            if first.unit not in (*_COSTS, _RATE) or any(row not in side for pair in rounds for side in pair):
                continue
            old, new = ([side[row].value for side in sides] for sides in zip(*rounds, strict=True))
            times = statistics.median(b / a for a, b in zip(old, new, strict=True))
            costs = 1 / times if first.unit == _RATE or first.direction == "min" else times
            slower = costs > _SLOWER and not row.startswith(" ")  # those only explain others
            holds = holds and not slower
            cells = (f"{statistics.median(old):.2f}", f"{statistics.median(new):.2f}", first.unit, f"{costs:.3f} x")
            table.append((row, *cells, "SLOWER" if slower else ""))
        print(f"{name}: measured", flush=True)
    print()
    print_columns(table, right=(1, 2, 4))
    return holds


def _figures(checkout: Path, name: str, *, quick: bool) -> Mapping[str, _Figure]:
    """Take one measurement of a checkout in a process of its own."""
    python = checkout / _PYTHON
    if not python.exists():
        sys.exit(f"{python} is absent: `make .venv/bench/.installed` in {checkout} makes it")
    with tempfile.TemporaryDirectory(prefix="edged-bench-") as directory:
        command = [python, "-c", _MEASURE, checkout / "benchmarks", name, directory, str(quick)]
        done = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    return {row: _Figure(*figure) for row, *figure in json.loads(done.stdout.splitlines()[-1])}
