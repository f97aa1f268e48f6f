"""Numbers as Prometheus reads them: text format 0.0.4."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from edged import __version__

TYPE = "text/plain; version=0.0.4"


@dataclass(frozen=True)
class Family:
    """A metric: what it is called, what kind it is, and which labels tell its values apart."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


Values: TypeAlias = Mapping[tuple[str, ...], float]
"""Numbers by the values of their labels."""

_COMPONENT = ("component",)
"""A board and a hub may share a machine, and a file of node_exporter's: no name may be there twice."""
BUILD = Family("edged_build_info", "gauge", "1, with the release that runs.", ("component", "version"))
START = Family("edged_start_time_seconds", "gauge", "When the process started, Unix seconds.", _COMPONENT)
CPU = Family("edged_cpu_seconds_total", "counter", "CPU time that the process used.", _COMPONENT)
MEMORY = Family("edged_resident_memory_bytes", "gauge", "Memory of the process that is in RAM.", _COMPONENT)
PROCESS = (BUILD, START, CPU, MEMORY)

_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_STARTED = time.time()


def one(value: float) -> Values:
    """Return the value of a family without labels."""
    return {(): value}


def process_values(component: Literal["board", "hub"]) -> dict[Family, Values]:
    """Return what this process is, and what the kernel tells of it."""
    name = (component,)
    values: dict[Family, Values] = {
        BUILD: {(component, __version__): 1},
        START: {name: _STARTED},
        CPU: {name: time.process_time()},
    }
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        values[MEMORY] = {name: pages * os.sysconf("SC_PAGE_SIZE")}
    return values


def render(families: Mapping[Family, Values]) -> bytes:
    """Return numbers as text. A family without values is left out."""
    return "".join(line for family, values in families.items() for line in _lines(family, values)).encode()


def _lines(family: Family, values: Values) -> Iterable[str]:
    if values:
        yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
    for labels, value in values.items():
        pairs = (f'{name}="{text.translate(_ESCAPED)}"' for name, text in zip(family.labels, labels, strict=True))
        shown = f"{{{','.join(pairs)}}}" if labels else ""
        yield f"{family.name}{shown} {float(value)!r}\n"
