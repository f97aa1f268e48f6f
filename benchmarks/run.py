"""`make bench`: all measurements, a table with bars and verdicts, and results.json beside this file.

Example: run.py --quick --only throughput --only envelope
         run.py --against ../before
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from against import MEASUREMENTS, compare
from report import Row, machine, print_table, write_json

_RESULTS = Path(__file__).with_name("results.json")
_MEASUREMENTS = (
    "throughput",
    "durability",
    "hub",
    "own",
    "beside",
    "learning",
    "envelope",
    "load_time",
    "swap_gap",
    "load_peak",
    "footprint",
    "start",
)


def measure(name: str, directory: Path, *, quick: bool) -> list[Row]:
    """Take one measurement, which is a module of that name."""
    rows: list[Row] = importlib.import_module(name).measure(directory, quick=quick)
    return rows


def main() -> None:
    """Measure, print, and write the results of a full run."""
    parser = argparse.ArgumentParser(description="Measure edged against the script that one would write by hand.")
    parser.add_argument("--only", action="append", choices=_MEASUREMENTS, help="measure this alone; repeat")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: shows that it works, not how fast")
    parser.add_argument(
        "--against", type=Path, metavar="DIRECTORY", help="an older checkout: what costs more than there?"
    )
    args = parser.parse_args()
    print(machine())
    if args.against is not None:
        sys.exit(0 if compare(args.against.resolve(), args.only or MEASUREMENTS, quick=args.quick) else 1)
    chosen = args.only or _MEASUREMENTS
    rows: list[Row] = []
    for name in chosen:
        started = time.perf_counter()
        with (
            tempfile.TemporaryDirectory(prefix="edged-bench-") as directory,
            ProcessPoolExecutor(1, get_context("spawn")) as pool,  # none finds what another has left in memory
        ):
            rows += pool.submit(measure, name, Path(directory), quick=args.quick).result()
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    print()
    print_table(rows)
    if not args.quick and not args.only:
        write_json(rows, _RESULTS)
        print(f"\nwritten to {_RESULTS}")


if __name__ == "__main__":
    main()
