"""From lists, typed arrays and raw bytes to float32."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import msgspec
import numpy as np
import numpy.typing as npt

from edged.base.errors import FormatError, ReadingFormatError, ReadingShapeError
from edged.formats.cose import cbor

Floats = npt.NDArray[np.float32]

_TYPED = {85: "<f4", 81: ">f4", 86: "<f8", 82: ">f8"}  # RFC 8746, section 2.1
_F32LE_HEAD = b"\xd8\x55"
_ITEMS = 300_000
"""A million empty arrays fit into a megabyte, and would take a second and 160 MB; more numbers than this come typed."""


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
