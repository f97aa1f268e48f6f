"""A second of work, by a machine whose speed changes from minute to minute: a bound in CPU time that is no luck."""

from __future__ import annotations

import time

_NUMBERS = ",".join(["0.12345"] * 130_000)
_TIMES = 70
"""How often a quiet machine of 2024 reads the numbers of a megabyte of text in a second, in plain Python."""


def second() -> float:
    """Return the seconds of CPU that this machine needs now for what takes a quiet one a second; never below one."""
    times = []
    for _ in range(5):
        before = time.process_time()
        list(map(float, _NUMBERS.split(",")))
        times.append(time.process_time() - before)
    return max(1.0, _TIMES * sorted(times)[2])
