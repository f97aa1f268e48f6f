"""From a message's bytes to rows: float32 [n, channels], calibrated, with their times where they bring any.

Which format a message has is configured, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from edged.base.errors import ConfigError, ReadingFormatError, ReadingShapeError
from edged.config.model import PICTURES, Calibration
from edged.model.signal.decode.layout import Layout
from edged.model.signal.decode.numbers import Floats, array, f32le, floats, parse_cbor
from edged.model.signal.decode.objects import Objects
from edged.model.signal.decode.picture import PictureDecoder
from edged.model.signal.decode.text import csv_numbers, parse_csv, parse_text
from edged.model.signal.decode.times import Doubles, parse_times

_JSON_NUMBERS = msgspec.json.Decoder(list[float])
_JSON_ROWS = msgspec.json.Decoder(list[list[float]])
_JSON_NUMBER = msgspec.json.Decoder(float)
_NAMED = frozenset({"json", "cbor"})
"""Formats whose readings may lack a channel."""


class Decoded(NamedTuple):
    """What a message holds.

    :ivar rows: float32 [n, channels], calibrated.
    :ivar times: float64 [n], seconds of the sensor's clock; None where the site names no field for it.
    """

    rows: Floats
    times: Doubles | None


_Parsed = tuple[Floats, Doubles | None]


class Decoder:
    """Decodes the messages of one topic; ``input.missing = "hold"`` remembers what that topic sent last.

    :raises ConfigError: a field is no JSON pointer, or a library is missing.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._channels = len(layout.channels)
        self._named = bool(layout.fields) or layout.time is not None
        self._parse = self._parser(layout)
        self._scale, self._offset = _calibration(layout)
        self._calibrated = bool(layout.calibrate)
        self._holds = layout.missing == "hold" and layout.format in _NAMED
        self._newest: Floats | None = None

    def _parser(self, layout: Layout) -> Callable[[bytes], _Parsed]:
        if layout.format in PICTURES:
            if layout.picture is None:
                raise ConfigError(f"format = {layout.format!r}: the model takes no pictures: it has no input.image")
            decode = PictureDecoder(layout.format, layout.channels, layout.picture, layout.raw)
            return lambda payload: (decode(payload), None)
        if layout.format == "csv":
            fields = dict(layout.fields)
            self._columns = [fields.get(name, name) for name in layout.channels]
            if layout.time is not None:
                self._columns.append(layout.time.at)
        else:
            self._objects = Objects(layout)
        parsers: dict[str, Callable[[bytes], _Parsed]] = {
            "json": self._json,
            "text": lambda payload: (parse_text(payload), None),
            "csv": self._csv,
            "cbor": self._cbor,
            "f32le": lambda payload: (f32le(payload), None),
        }
        return parsers[layout.format]

    def __call__(self, payload: bytes) -> Decoded:
        """Return the rows of a message; one where it holds a row.

        :raises ReadingFormatError: not the configured format.
        :raises ReadingShapeError: no number of rows.
        :raises ReadingValueError: a value is missing.
        """
        values, times = self._parse(payload)
        rows = self._shaped(values)
        if self._holds:
            self._newest = rows[-1]
        if self._calibrated:
            with np.errstate(over="ignore", invalid="ignore"):  # judged by input.nan
                rows = rows * self._scale + self._offset
        return Decoded(rows, times)

    def keep(self) -> None:
        """Hold the newest row, as it came, for what later readings lack: it turned out to be good."""
        if self._newest is not None:
            self._objects.hold(self._newest.tolist())

    def _shaped(self, values: Floats) -> Floats:
        channels = self._channels
        if values.ndim > 1 and values.shape[-1] != channels:
            raise ReadingShapeError(f"a reading has rows of {values.shape[-1]} values, not of {channels}")
        if not values.size or values.size % channels:
            raise ReadingShapeError(f"a reading has {values.size} values, which is no number of rows of {channels}")
        rows = values.reshape(-1, channels)
        if self.layout.each == "row" and len(rows) != 1:
            raise ReadingShapeError(f"a reading has {len(rows)} rows, and `each` says that it has one")
        return rows

    def _json(self, payload: bytes) -> _Parsed:
        try:
            if self.layout.each != "row":
                return self._json_rows(payload)
            if not self._named:
                start = payload.lstrip()[:1]
                if start == b"[":
                    return floats(_JSON_NUMBERS.decode(payload)), None
                if start != b"{":
                    return floats([_JSON_NUMBER.decode(payload)]), None
            return self._objects.rows([msgspec.json.decode(payload)])
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
            raise ReadingFormatError("a reading is not the JSON that is configured") from error

    def _json_rows(self, payload: bytes) -> _Parsed:
        if not self._named:
            try:
                return array(_JSON_ROWS.decode(payload)), None
            except msgspec.ValidationError:
                pass  # an array of objects, or an object of arrays
        value = msgspec.json.decode(payload)
        return self._objects.rows(value) if isinstance(value, list) else self._objects.columns(value)

    def _csv(self, payload: bytes) -> _Parsed:
        cells = parse_csv(payload, self._columns)
        if self.layout.time is None:
            return csv_numbers(cells), None
        times = parse_times((row.pop() for row in cells), self.layout.time.unit)
        return csv_numbers(cells), times

    def _cbor(self, payload: bytes) -> _Parsed:
        value = parse_cbor(payload, self.layout.limit)
        if isinstance(value, np.ndarray):
            if self.layout.time is not None:
                raise ReadingFormatError("a reading is an array of numbers, in which model.time.at is nowhere")
            return value, None
        if isinstance(value, dict):
            return self._objects.rows([value]) if self.layout.each == "row" else self._objects.columns(value)
        return self._objects.rows(value)


def _calibration(layout: Layout) -> tuple[Floats, Floats]:
    calibrate = dict(layout.calibrate)
    each = [calibrate.get(name, Calibration()) for name in layout.channels]
    return np.array([one.scale for one in each], np.float32), np.array([one.offset for one in each], np.float32)
