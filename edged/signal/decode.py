"""From a message's bytes to rows: float32 [n, channels], calibrated, in range, finite.

Which format a message has is configured, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cbor2
import msgspec
import numpy as np
import numpy.typing as npt

from edged.config.board import Calibration, Each
from edged.cose import cbor
from edged.errors import FormatError, ReadingFormatError, ReadingShapeError, ReadingValueError
from edged.signal.pointer import compile_pointer
from edged.signal.spec import Input

Floats = npt.NDArray[np.float32]

_TYPED = {85: "<f4", 81: ">f4", 86: "<f8", 82: ">f8"}  # RFC 8746, section 2.1
_F32LE_HEAD = b"\xd8\x55"
_ITEMS = 1_000_000
_JSON_NUMBERS = msgspec.json.Decoder(list[float])
_JSON_ROWS = msgspec.json.Decoder(list[list[float]])


class Decoder:
    """Decodes the messages of one topic.

    :param format_: json, text, csv, cbor or f32le.
    :param each: what one message holds: a row, several rows, or a whole window.
    :param size: rows of a window.
    :param fields: JSON pointer of each channel, where JSON carries objects.
    :raises ConfigError: a JSON pointer is none.
    """

    def __init__(
        self,
        format_: str,
        each: Each,
        source: Input,
        *,
        size: int,
        fields: Mapping[str, str],
        calibrate: Mapping[str, Calibration],
        limit: int,
    ) -> None:
        self._channels = len(source.channels)
        self._each = each
        self._size = size
        self._limit = limit
        self._input = source
        self._names = source.channels
        self._fields = [compile_pointer(fields.get(name, f"/{name}")) for name in source.channels]
        self._objects = bool(fields)
        self._held: list[float | None] = [None] * self._channels
        self._parse: Callable[[bytes], Floats] = {
            "json": self._json,
            "text": self._text,
            "csv": self._csv,
            "cbor": self._cbor,
            "f32le": _f32le,
        }[format_]
        self._calibration = _calibration(source.channels, calibrate) if calibrate else None

    def __call__(self, payload: bytes) -> Floats:
        """Return float32 [n, channels]; n is 1 for a row, the window's size for a window.

        :raises ReadingFormatError: not the configured format.
        :raises ReadingShapeError: too few or too many values.
        :raises ReadingValueError: a value is missing, not finite, or out of range.
        """
        rows = self._shaped(self._parse(payload))
        if self._calibration is not None:
            scale, offset = self._calibration
            rows = rows * scale + offset
        return self._checked(rows)

    def _shaped(self, values: Floats) -> Floats:
        channels = self._channels
        if values.ndim > 1 and values.shape[-1] != channels:
            raise ReadingShapeError(
                f"a reading has rows of {values.shape[-1]} values, the model has {channels} channels"
            )
        if not values.size or values.size % channels:
            raise ReadingShapeError(f"a reading has {values.size} values, which is no number of rows of {channels}")
        rows = values.reshape(-1, channels)
        if self._each == "window" and len(rows) != self._size:
            raise ReadingShapeError(f"a window has {len(rows)} rows, the model wants {self._size}")
        if self._each == "row" and len(rows) != 1:
            raise ReadingShapeError(f"a reading has {len(rows)} rows, and `each` says that it has one")
        return rows

    def _checked(self, rows: Floats) -> Floats:
        if not np.isfinite(rows.sum()) and not np.isfinite(rows).all():
            if self._input.nan == "refuse":
                raise ReadingValueError("a reading holds a value that is not finite")
            rows = np.where(np.isfinite(rows), rows, np.float32(self._input.nan))
        bounds = self._input.range
        if bounds is not None and (rows.min() < bounds[0] or rows.max() > bounds[1]):
            raise ReadingValueError(f"a reading holds a value outside input.range, {bounds[0]} to {bounds[1]}")
        return rows

    def _json(self, payload: bytes) -> Floats:
        try:
            if self._each != "row":
                return self._json_rows(payload)
            if not self._objects and payload.lstrip()[:1] == b"[":
                return np.array(_JSON_NUMBERS.decode(payload), np.float32)
            return np.array([self._row(msgspec.json.decode(payload))], np.float32)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            raise ReadingFormatError("a reading is not the JSON that is configured") from error

    def _json_rows(self, payload: bytes) -> Floats:
        if not self._objects:
            try:
                return _array(_JSON_ROWS.decode(payload))
            except msgspec.ValidationError:
                pass  # an array of objects, or an object of arrays
        value = msgspec.json.decode(payload)
        if isinstance(value, list):
            return np.array([self._row(row) for row in value], np.float32)
        return self._columns(value)

    def _row(self, value: object) -> list[float]:
        row: list[float] = []
        for at, find in enumerate(self._fields):
            found = find(value)
            row.append(found if isinstance(found, float) else self._number(at, found))
        if self._input.missing == "hold":
            self._held[:] = row
        return row

    def _number(self, at: int, found: object) -> float:
        """Return an integer as it is, and what stands for channel number ``at`` where a row lacks it or has null."""
        if type(found) is int:
            return found
        if found is not None:
            raise ReadingFormatError(f"a reading holds something else than a number for {self._names[at]}")
        rule = self._input.missing
        held = self._held[at] if rule == "hold" else rule
        if held is None or isinstance(held, str):
            raise ReadingValueError(f"a reading lacks {self._names[at]}")
        return held

    def _columns(self, value: object) -> Floats:
        """Return rows from an object that holds one array a channel."""
        columns = [field(value) for field in self._fields]
        try:
            return np.array(msgspec.convert(columns, list[list[float]]), np.float32).T
        except (msgspec.ValidationError, ValueError) as error:
            raise ReadingFormatError(
                "a reading is not an object with one array of numbers, all equally long, a channel"
            ) from error

    def _text(self, payload: bytes) -> Floats:
        separated = payload.translate(_SEPARATORS).split()
        if len(separated) > _ITEMS:
            raise ReadingShapeError(f"a reading has more than {_ITEMS} values")
        try:
            return np.array(separated, np.float32)
        except ValueError as error:
            raise ReadingFormatError("a reading is not numbers separated by spaces, commas or semicolons") from error

    def _csv(self, payload: bytes) -> Floats:
        first, _, rest = payload.partition(b"\n")
        names = tuple(name.strip() for name in first.decode(errors="replace").split(","))
        if set(names) != set(self._names):
            return self._text(payload)
        values = self._text(rest)
        if values.size % self._channels:
            raise ReadingShapeError(f"a reading has {values.size} values below {self._channels} columns")
        return values.reshape(-1, self._channels)[:, [names.index(name) for name in self._names]]

    def _cbor(self, payload: bytes) -> Floats:
        if payload[:2] == _F32LE_HEAD:  # the whole message is one typed array: no decoder needed
            major, length, start = cbor.read_head(payload, 2)
            if major == 2 and start + length == len(payload):  # noqa: PLR2004  a byte string
                return _f32le(payload[start:])
        try:
            value = cbor.decode(payload, cbor.Limits(self._limit, 8, _ITEMS))
        except FormatError as error:
            raise ReadingFormatError(f"a reading is not the CBOR that edged takes: {error.message}") from error
        if isinstance(value, cbor2.CBORTag):
            return _typed(value)
        if isinstance(value, dict):
            return np.array([self._row(value)], np.float32) if self._each == "row" else self._columns(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return np.array([self._row(row) for row in value], np.float32)
        return _array(value)


_SEPARATORS = bytes.maketrans(b",;", b"  ")


def _array(value: object) -> Floats:
    """Return a list of numbers or of equally long lists of numbers as an array."""
    try:
        array = np.array(value, np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise ReadingFormatError("a reading is not an array of numbers, or its rows differ in length") from error
    if array.ndim not in (1, 2):
        raise ReadingShapeError(f"a reading has {array.ndim} dimensions")
    return array


def _f32le(payload: bytes) -> Floats:
    if len(payload) % 4:
        raise ReadingFormatError("a reading is not a number of 4-byte floats")
    return np.frombuffer(payload, "<f4")


def _typed(value: cbor2.CBORTag) -> Floats:
    """Return a typed array (RFC 8746), also inside tag 40 with its dimensions."""
    if value.tag == cbor.TAG_MULTI_DIMENSIONAL:
        content = value.value
        if not isinstance(content, list) or len(content) != 2 or not isinstance(content[1], cbor2.CBORTag):  # noqa: PLR2004
            raise ReadingFormatError("a reading has a tag 40 without dimensions and a typed array")
        try:
            return _typed(content[1]).reshape(msgspec.convert(content[0], tuple[int, ...]))
        except (msgspec.ValidationError, ValueError, RecursionError) as error:
            raise ReadingShapeError("the dimensions of a reading do not fit its values") from error
    dtype = _TYPED.get(value.tag)
    if dtype is None or not isinstance(value.value, bytes):
        raise ReadingFormatError(f"a reading has CBOR tag {value.tag}, not an array of floats")
    if len(value.value) % np.dtype(dtype).itemsize:
        raise ReadingFormatError("the bytes of a typed array are not a number of its elements")
    return np.frombuffer(value.value, dtype).astype(np.float32, copy=False)


def _calibration(channels: Sequence[str], calibrate: Mapping[str, Calibration]) -> tuple[Floats, Floats]:
    each: list[Any] = [calibrate.get(name, Calibration()) for name in channels]
    return np.array([one.scale for one in each], np.float32), np.array([one.offset for one in each], np.float32)
