"""CBOR: typed arrays of floats (RFC 8746), arrays of numbers, maps by channel; and raw float32 without any frame."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import msgspec
import numpy as np

from edged.base.errors import FormatError, ReadingFormatError, ReadingShapeError
from edged.formats.cose import cbor
from edged.model.reading.layout import Floats, Parsed, array
from edged.model.reading.objects import ObjectParser, UnnamedParser

_FLOAT32_LE = 85
_TYPED = {_FLOAT32_LE: "<f4", 81: ">f4", 86: "<f8", 82: ">f8"}  # RFC 8746, section 2.1
_F32LE_HEAD = b"\xd8\x55"
_ITEMS = 300_000
"""A million empty arrays fit into a megabyte, and would take a second and 160 MB; more numbers than this come typed."""


class CborParser(ObjectParser):
    """``format = "cbor"``."""

    def parse(self, payload: bytes) -> Parsed:
        """See :meth:`Parser.parse`."""
        value = parse_cbor(payload, self.layout.limit)
        if isinstance(value, np.ndarray):
            if self.layout.time is not None:
                raise ReadingFormatError("a reading is an array of numbers, in which model.time.at is nowhere")
            return value, None
        if isinstance(value, dict):
            return self.rows([value]) if self.layout.each == "row" else self.columns(value)
        return self.rows(value)


class F32leParser(UnnamedParser):
    """``format = "f32le"``."""

    def parse(self, payload: bytes) -> Parsed:
        """See :meth:`Parser.parse`."""
        return f32le(payload), None


def encode_cbor(values: Floats, _names: tuple[str, ...] | None) -> bytes:
    """Encode one row or several as a typed array."""
    return cbor2.dumps(cbor2.CBORTag(_FLOAT32_LE, values.astype("<f4").tobytes()))


def encode_f32le(values: Floats, _names: tuple[str, ...] | None) -> bytes:
    """Encode one row or several as raw little-endian float32."""
    return values.astype("<f4").tobytes()


def f32le(payload: bytes) -> Floats:
    """Return raw little-endian float32 as they are.

    :raises ReadingFormatError: a byte is left over.
    """
    if len(payload) % 4:
        raise ReadingFormatError("a reading is not a number of 4-byte floats")
    return np.frombuffer(payload, "<f4")


def parse_cbor(payload: bytes, limit: int) -> Floats | dict[str, Any] | list[Any]:
    """Return a float32 array where the message is one of numbers, else its maps.

    :raises ReadingFormatError: it is not the CBOR that edged takes, or holds something else.
    :raises ReadingShapeError: its dimensions do not fit.
    """
    try:
        if payload[:2] == _F32LE_HEAD:  # the whole message is one typed array: no decoder needed
            major, length, start = cbor.read_head(payload, 2)
            if major == 2 and start + length == len(payload):  # noqa: PLR2004  a byte string
                return f32le(payload[start:])
        value = cbor.decode(payload, cbor.Limits(limit, 8, _ITEMS))
    except FormatError as error:
        raise ReadingFormatError(f"a reading is not the CBOR that edged takes: {error.message}") from error
    if isinstance(value, cbor2.CBORTag):
        return _typed(value)
    if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return array([value])
    nested = isinstance(value, list) and value and isinstance(value[0], list)
    try:
        return array(msgspec.convert(value, list[list[float]] if nested else list[float]))
    except msgspec.ValidationError as error:
        raise ReadingFormatError("a reading is not an array of numbers, or of rows of numbers") from error


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
    with np.errstate(over="ignore", invalid="ignore"):
        return np.frombuffer(value.value, dtype).astype(np.float32, copy=False)
