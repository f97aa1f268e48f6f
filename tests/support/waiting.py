"""The one way to wait: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

PATIENCE = 90.0
"""Seconds after which a test gives up. Far more than anything takes, so that a busy machine breaks no test."""


def wait_until(
    holds: Callable[[], _T],
    timeout: float = PATIENCE,
    *,
    every: float = 0.02,
    told: Callable[[], object] = lambda: "it did not happen",
) -> _T:
    """Return the first true result of ``holds``, which is called every few milliseconds.

    :param every: seconds between two calls.
    :param told: what the failure shows: a log, say.
    :raises AssertionError: no true result within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {told()}")
        time.sleep(every)
    return found
