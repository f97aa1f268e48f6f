"""When a row was measured, in seconds; only differences count, so any clock does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from edged.base.errors import ReadingFormatError, ReadingValueError
from edged.config.model import TimeUnit

Doubles = npt.NDArray[np.float64]

_FURTHEST = float(1 << 33)
"""Seconds from zero, 272 years, below which a float64 tells microseconds apart; windows by time count on it."""

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def parse_times(values: Iterable[object], unit: TimeUnit) -> Doubles:
    """Return float64 seconds.

    :raises ReadingValueError: a time is missing, or not finite.
    :raises ReadingFormatError: one is not what ``model.time.unit`` says, or too far from zero for it.
    """
    return np.array([_seconds(value, unit) for value in values], np.float64)


def _seconds(value: object, unit: TimeUnit) -> float:
    if value is None:
        raise ReadingValueError("a reading lacks its time")
    try:
        if isinstance(value, bytes):  # a CSV's cell
            value = value.decode().strip(' \t"') if unit == "iso" else float(value)
        seconds = _moment(value) if unit == "iso" else _number(value) * _UNITS[unit]
    except (ValueError, TypeError, OverflowError) as error:
        raise ReadingFormatError(f"a reading's time is not what model.time.unit = {unit!r} says") from error
    if not math.isfinite(seconds):
        raise ReadingValueError("a reading's time is not finite")
    if abs(seconds) > _FURTHEST:
        raise ReadingFormatError(f"a reading's time is centuries away: is model.time.unit = {unit!r} right?")
    return seconds


def _moment(value: object) -> float:
    if not isinstance(value, str):
        raise TypeError
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value
