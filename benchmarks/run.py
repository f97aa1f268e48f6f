"""`make bench`: all measurements, a table with bars and verdicts, and results.json beside this file.

Example: run.py --quick --only throughput --only envelope
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import envelope
import footprint
import load_peak
import throughput
from report import Row, machine, print_table, write_json

_RESULTS = Path(__file__).with_name("results.json")

MEASUREMENTS: dict[str, Callable[[Path, bool], list[Row]]] = {
    "throughput": lambda directory, quick: throughput.measure(directory, quick=quick),
    "envelope": lambda _, quick: envelope.measure(quick=quick),
    "load-peak": lambda directory, quick: load_peak.measure(directory, quick=quick),
    "footprint": lambda directory, quick: footprint.measure(directory, quick=quick),
}


def main() -> None:
    """Measure, print, and write the results of a full run."""
    parser = argparse.ArgumentParser(description="Measure edged against the script that one would write by hand.")
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, help="measure this alone; repeat")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: shows that it works, not how fast")
    args = parser.parse_args()
    chosen = args.only or list(MEASUREMENTS)
    print(machine())
    rows: list[Row] = []
    for name in chosen:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="edged-bench-") as directory:
            rows += MEASUREMENTS[name](Path(directory), args.quick)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    print()
    print_table(rows)
    if not args.quick and not args.only:
        write_json(rows, _RESULTS)
        print(f"\nwritten to {_RESULTS}")


if __name__ == "__main__":
    main()
