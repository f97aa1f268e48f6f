"""The common ground of all formats: the layout of a topic's messages, and arrays of the numbers and times in them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edged.base.errors import ReadingFormatError, ReadingShapeError, ReadingValueError
from edged.config.model import Calibration, Each, ModelConfig, RawImage, TimeField, TimeUnit
from edged.formats.readings import Format
from edged.formats.spec import Image, Input

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Parsed: TypeAlias = tuple[Floats, Doubles | None]
"""Values of any shape, and the time of each row in seconds where the site names a field for it."""

_FURTHEST = float(1 << 33)
"""Seconds from zero, 272 years, below which a float64 tells microseconds apart; windows by time count on it."""

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Layout:
    """The site's and the manifest's words about a topic; two models with the same layout share decoded messages.

    :ivar channels: the values of a row, in their order.
    :ivar fields: channel and JSON pointer, or column of a CSV, where the site names one.
    :ivar calibrate: channel, scale and offset, where the site calibrates.
    :ivar picture: size that a picture is brought to.
    :ivar limit: bytes of the longest accepted message.
    """

    format: Format
    each: Each
    channels: tuple[str, ...]
    limit: int
    missing: Literal["refuse", "hold"] | float = "refuse"
    fields: tuple[tuple[str, str], ...] = ()
    calibrate: tuple[tuple[str, Calibration], ...] = ()
    time: TimeField | None = None
    raw: RawImage | None = None
    picture: Image | None = None

    @classmethod
    def of(cls, config: ModelConfig, source: Input, channels: Sequence[str], limit: int) -> Layout:
        """Return the layout of a topic that carries ``channels``."""
        return cls(
            config.format,
            config.each,
            tuple(channels),
            limit,
            source.missing,
            tuple((name, at) for name, at in config.fields.items() if name in channels),
            tuple((name, one) for name, one in config.calibrate.items() if name in channels),
            config.time,
            config.image,
            source.image,
        )


class Parser(ABC):
    """Parses the messages of one topic in one format.

    :raises ConfigError: a field is no JSON pointer, or a library is missing.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @abstractmethod
    def parse(self, payload: bytes) -> Parsed:
        """Return the values of a message as they are, before calibration.

        :raises ReadingError: the message is not what the layout says.
        """


def floats(values: object) -> Floats:
    """Return float32; a number beyond its range becomes infinite, which ``input.nan`` judges."""
    with np.errstate(over="ignore", invalid="ignore"):  # invalid: a signalling NaN
        return np.array(values, np.float32)


def array(rows: list[Any]) -> Floats:
    """Return a list of numbers, or of equally long lists of numbers, as an array.

    :raises ReadingShapeError: they are not equally long.
    """
    try:
        return floats(rows)
    except ValueError as error:
        raise ReadingShapeError("the rows of a reading differ in length") from error


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
