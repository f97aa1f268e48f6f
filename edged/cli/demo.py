"""``edged demo``: the whole loop on one machine, for people to watch."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from edged.base.errors import EdgedError
from edged.base.nothing import nothing
from edged.cli.common import json_option, print_json, say
from edged.demo.run import Demo, Seen, Summary

_BAR = 20
_COLOURS = {"healthy": "green", "imbalance": "yellow", "bearing": "red"}


@click.command("demo")
@click.option("--windows", type=click.IntRange(10, 10_000), default=150, show_default=True, help="Windows to play.")
@click.option("--rate", type=click.FloatRange(1, 500), default=15.0, show_default=True, help="Windows a second.")
@json_option
def demo_command(*, windows: int, rate: float, as_json: bool) -> None:
    """Run everything once on this machine: broker, keys, package, daemon, a simulated pump, a hub. Needs mosquitto.

    \b
    Example: edged demo --windows 300 --rate 50
    """
    with tempfile.TemporaryDirectory(prefix="edged-demo-") as directory:
        say = nothing if as_json else _say
        demo = Demo(Path(directory), say, _Screen(windows, quiet=as_json).show)
        summary = demo.run(windows, rate)
    if as_json:
        print_json(_facts(summary))
    else:
        _print_summary(summary)
    if len(summary.answered) < windows or (summary.search and not summary.search.clean):
        raise EdgedError("the demo did not end as it should", hint="the summary says what is missing")


def _say(line: str) -> None:
    say(line, dim=line.startswith("$"))


class _Screen:
    """Shows each result: on a terminal a live line that keeps a row for each change, elsewhere a row now and then."""

    def __init__(self, windows: int, *, quiet: bool) -> None:
        self._windows = windows
        self._quiet = quiet
        self._shown = 0
        self._last = ""
        self._live = sys.stdout.isatty()

    def show(self, seen: Seen) -> None:
        self._shown += 1
        if self._quiet:
            return
        if self._shown == 1:
            say()
            say(f"{'what the broker carries':<46}  what the hub reads")
        changed = seen.label != self._last
        self._last = seen.label
        end = self._shown == self._windows
        if self._live:
            click.echo(
                ("\r" if self._shown > 1 and not changed else "\n" if self._shown > 1 else "") + _line(seen), nl=end
            )
        elif changed or end or self._shown % 25 == 0:
            click.echo(_line(seen))


def _line(seen: Seen) -> str:
    bar = "█" * round(seen.score * _BAR)
    label = click.style(f"{seen.label:<10}", fg=_COLOURS.get(seen.label))
    carried = f"{seen.ciphertext[-16:].hex()}  {len(seen.ciphertext)} bytes"
    return f"…{carried:<45}  {label} {seen.score:6.1%} {bar:<{_BAR}}"


def _facts(summary: Summary) -> dict[str, object]:
    search = summary.search
    return {
        "windows": len(summary.windows),
        "results": len(summary.answered),
        "right": summary.right,
        "latency_ms": {"p50": summary.latency(0.5) * 1e3, "p99": summary.latency(0.99) * 1e3},
        "search": search
        and {
            "files": search.files,
            "found": [path.name for path in search.found],
            "core_limit": search.core_limit,
            "swapped": search.swapped,
            "locked": search.locked,
        },
    }


def _print_summary(summary: Summary) -> None:
    results = len(summary.answered)
    say()
    say(f"{results} of {len(summary.windows)} windows answered, {summary.right} as the simulated pump was")
    say(f"from sensor to hub: p50 {summary.latency(0.5) * 1e3:.1f} ms, p99 {summary.latency(0.99) * 1e3:.1f} ms")
    search = summary.search
    if search is None:
        return
    found = ", ".join(path.name for path in search.found) or "nowhere"
    say(f"the model in plain, in {search.files} files: {found}")
    dumps = "none possible" if not search.core_limit else f"up to {search.core_limit} bytes"
    locked = "yes" if search.locked else "NO: see LimitMEMLOCK in systemd/edged.service"
    say(f"core dumps: {dumps}; in swap: {search.swapped} bytes; all memory locked: {locked}")
