"""From a message's bytes to rows: float32 [n, channels], calibrated, in range, finite.

Which format a message has is configured, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import cbor2
import msgspec
import numpy as np
import numpy.typing as npt

from edged.config.board import Calibration, Each
from edged.cose import cbor
from edged.errors import FormatError, ReadingFormatError, ReadingShapeError, ReadingValueError
from edged.signal.pointer import compile_pointers, pointer_to
from edged.signal.spec import Input

Floats = npt.NDArray[np.float32]

_TYPED = {85: "<f4", 81: ">f4", 86: "<f8", 82: ">f8"}  # RFC 8746, section 2.1
_F32LE_HEAD = b"\xd8\x55"
_ITEMS = 1_000_000
_JSON_NUMBERS = msgspec.json.Decoder(list[float])
_JSON_ROWS = msgspec.json.Decoder(list[list[float]])
_NUMBERS = frozenset({float, int})  # no bool


class Decoder:
    """Decodes the messages of one topic; ``input.missing = "hold"`` remembers what that topic sent last.

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
        self._find = compile_pointers([fields.get(name, pointer_to(name)) for name in source.channels])
        self._objects = bool(fields)
        self._held: Sequence[object] = [None] * self._channels
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
        raw = rows = self._shaped(self._parse(payload))
        if self._calibration is not None:
            scale, offset = self._calibration
            with np.errstate(over="ignore", invalid="ignore"):  # judged below
                rows = rows * scale + offset
        rows = self._checked(rows)
        if self._input.missing == "hold":
            self._held = raw[-1].tolist()
        return rows

    def _shaped(self, values: Floats) -> Floats:
        channels = self._channels
        if values.ndim > 1 and values.shape[-1] != channels:
            raise ReadingShapeError(f"a reading has rows of {values.shape[-1]} values, not of {channels}")
        if not values.size or values.size % channels:
            raise ReadingShapeError(f"a reading has {values.size} values, which is no number of rows of {channels}")
        rows = values.reshape(-1, channels)
        if self._each == "window" and len(rows) != self._size:
            raise ReadingShapeError(f"a window has {len(rows)} rows, the model wants {self._size}")
        if self._each == "row" and len(rows) != 1:
            raise ReadingShapeError(f"a reading has {len(rows)} rows, and `each` says that it has one")
        return rows

    def _checked(self, rows: Floats) -> Floats:
        low, high = rows.min(), rows.max()  # NaN if any value is
        if not (math.isfinite(low) and math.isfinite(high)):
            if self._input.nan == "refuse":
                raise ReadingValueError("a reading holds a value that is not finite")
            rows = np.where(np.isfinite(rows), rows, np.float32(self._input.nan))
            low, high = rows.min(), rows.max()
        bounds = self._input.range
        if bounds is not None and (low < bounds[0] or high > bounds[1]):
            raise ReadingValueError(f"a reading holds a value outside input.range, {bounds[0]} to {bounds[1]}")
        return rows

    def _json(self, payload: bytes) -> Floats:
        try:
            if self._each != "row":
                return self._json_rows(payload)
            if not self._objects and payload.lstrip()[:1] == b"[":
                return _floats(_JSON_NUMBERS.decode(payload))
            return self._rows([msgspec.json.decode(payload)])
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
            raise ReadingFormatError("a reading is not the JSON that is configured") from error

    def _json_rows(self, payload: bytes) -> Floats:
        if not self._objects:
            try:
                return _array(_JSON_ROWS.decode(payload))
            except msgspec.ValidationError:
                pass  # an array of objects, or an object of arrays
        value = msgspec.json.decode(payload)
        if isinstance(value, list):
            return self._rows(value)
        return self._columns(value)

    def _rows(self, objects: Iterable[object]) -> Floats:
        """Return a row for each of ``objects``; what one lacks may be held from the one before."""
        rows: list[Sequence[object]] = []
        held = self._held
        for one in objects:
            row = self._find(one)
            if not _NUMBERS.issuperset(map(type, row)):
                row = self._completed(row, held)
            rows.append(row)
            held = row
        return _floats(rows)

    def _completed(self, row: Sequence[object], held: Sequence[object]) -> list[object]:
        """Return ``row`` with what it lacks filled in by the manifest's rule; null counts as lacking."""
        rule = self._input.missing
        if all(found is None for found in row):
            raise ReadingValueError("a reading holds none of the model's channels")
        completed: list[object] = []
        for name, found, last in zip(self._names, row, held, strict=True):
            value = (last if rule == "hold" else rule) if found is None else found
            if value is None or value == "refuse":
                raise ReadingValueError(f"a reading lacks {name}")
            if type(value) not in _NUMBERS:
                raise ReadingFormatError(f"a reading holds something else than a number for {name}")
            completed.append(value)
        return completed

    def _columns(self, value: object) -> Floats:
        """Return rows from an object that holds one array a channel."""
        try:
            return _floats(msgspec.convert(self._find(value), list[list[float]])).T
        except (msgspec.ValidationError, ValueError) as error:
            raise ReadingFormatError(
                "a reading is not an object with an equally long array for each channel"
            ) from error

    def _text(self, payload: bytes) -> Floats:
        bare = payload.translate(_TO_COMMA, b" \t\r\n")
        if b",," in bare or bare.startswith(b",") or bare.endswith(b","):
            raise ReadingValueError("a reading lacks a number between two separators")
        try:
            return _floats(payload.translate(_TO_SPACE).split())
        except ValueError as error:
            raise ReadingFormatError("a reading is not numbers separated by spaces, commas or semicolons") from error

    def _csv(self, payload: bytes) -> Floats:
        table = [line.split(b",") for line in payload.translate(_TO_COMMA).splitlines() if line.strip()]
        header = [cell.strip(b' \t"').decode(errors="replace") for cell in table[0]] if table else []
        named = set(self._names).issubset(header)
        if named and len(set(header)) != len(header):
            raise ReadingFormatError("a reading has a header that names a column twice")
        rows, width = (table[1:], len(header)) if named else (table, self._channels)
        if any(len(cells) != width for cells in rows):
            raise ReadingShapeError(f"a reading has a line that does not hold {width} values")
        if named:
            columns = [header.index(name) for name in self._names]
            rows = [[cells[column] for column in columns] for cells in rows]
        try:
            if b"_" in payload and any(b"_" in cell for cells in rows for cell in cells):
                raise ValueError  # noqa: TRY301  numpy would read 1_0 as 10
            return _floats(rows)
        except ValueError as error:
            raise ReadingFormatError("a reading is not lines of numbers separated by commas or semicolons") from error

    def _cbor(self, payload: bytes) -> Floats:
        try:
            if payload[:2] == _F32LE_HEAD:  # the whole message is one typed array: no decoder needed
                major, length, start = cbor.read_head(payload, 2)
                if major == 2 and start + length == len(payload):  # noqa: PLR2004  a byte string
                    return _f32le(payload[start:])
            value = cbor.decode(payload, cbor.Limits(self._limit, 8, _ITEMS))
        except FormatError as error:
            raise ReadingFormatError(f"a reading is not the CBOR that edged takes: {error.message}") from error
        if isinstance(value, cbor2.CBORTag):
            return _typed(value)
        if isinstance(value, dict):
            return self._rows([value]) if self._each == "row" else self._columns(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return self._rows(value)
        nested = isinstance(value, list) and value and isinstance(value[0], list)
        try:
            return _array(msgspec.convert(value, list[list[float]] if nested else list[float]))
        except msgspec.ValidationError as error:
            raise ReadingFormatError("a reading is not an array of numbers, or of rows of numbers") from error


_TO_COMMA = bytes.maketrans(b";\0", b",x")  # numpy would overlook NUL behind a number ...
_TO_SPACE = bytes.maketrans(b",;\0_", b"  xx")  # ... and read 1_0 as 10


def _floats(values: object) -> Floats:
    """Return float32; a number beyond its range becomes infinite, which ``input.nan`` judges."""
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)


def _array(rows: list[Any]) -> Floats:
    """Return a list of numbers, or of equally long lists of numbers, as an array."""
    try:
        return _floats(rows)
    except ValueError as error:
        raise ReadingShapeError("the rows of a reading differ in length") from error


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
        dimensions, inner = content
        if inner.tag == cbor.TAG_MULTI_DIMENSIONAL:
            raise ReadingFormatError("a reading has a tag 40 inside another")
        flat = _typed(inner)
        try:
            extents = msgspec.convert(dimensions, tuple[int, ...])
            if math.prod(extents) == flat.size:  # and not -1, which numpy would take for "the rest"
                return flat.reshape(extents)
        except (msgspec.ValidationError, ValueError) as error:
            raise ReadingShapeError("the dimensions of a reading are not whole numbers above 0") from error
        raise ReadingShapeError("the dimensions of a reading do not fit its values")
    dtype = _TYPED.get(value.tag)
    if dtype is None or not isinstance(value.value, bytes):
        raise ReadingFormatError(f"a reading has CBOR tag {value.tag}, not an array of floats")
    if len(value.value) % np.dtype(dtype).itemsize:
        raise ReadingFormatError("the bytes of a typed array are not a number of its elements")
    with np.errstate(over="ignore"):
        return np.frombuffer(value.value, dtype).astype(np.float32, copy=False)


def _calibration(channels: Sequence[str], calibrate: Mapping[str, Calibration]) -> tuple[Floats, Floats]:
    each: list[Any] = [calibrate.get(name, Calibration()) for name in channels]
    return np.array([one.scale for one in each], np.float32), np.array([one.offset for one in each], np.float32)
