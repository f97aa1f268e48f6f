"""Whether a model's file holds all that it points to: tflite-runtime does not check, and crashes where it does not."""

from __future__ import annotations

import struct
from typing import TypeAlias

from edged.model.runtime.flatbuffer import Buffer

_Kind: TypeAlias = "int | _Table | list[_Table]"
_Table: TypeAlias = dict[int, _Kind]
"""The fields of a table that point somewhere: at a vector of scalars of so many bytes, a table, a vector of tables.

The fields' numbers are those of the TFLite schema (tensorflow/lite/schema/schema.fbs).
"""

_STRING = _BYTES = 1
_INTS = _FLOATS = 4
_LONGS = 8
_QUANTIZATION: _Table = {0: _FLOATS, 1: _FLOATS, 2: _FLOATS, 3: _LONGS}
_TENSOR: _Table = {0: _INTS, 3: _STRING, 4: _QUANTIZATION, 7: _INTS}
_OPERATOR: _Table = {1: _INTS, 2: _INTS, 4: {}, 5: _BYTES, 8: _INTS}
_SUBGRAPH: _Table = {0: [_TENSOR], 1: _INTS, 2: _INTS, 3: [_OPERATOR], 4: _STRING}
_TENSOR_MAP: _Table = {0: _STRING}
_SIGNATURE: _Table = {0: [_TENSOR_MAP], 1: [_TENSOR_MAP], 2: _STRING}
_MODEL: _Table = {
    1: [{1: _STRING}],  # operator codes
    2: [_SUBGRAPH],
    3: _STRING,
    4: [{0: _BYTES}],  # buffers: the weights
    5: _INTS,
    6: [{0: _STRING}],  # metadata
    7: [_SIGNATURE],
}


def is_whole(data: Buffer) -> bool:
    """Tell whether every table and vector ends inside ``data``, a FlatBuffer of a model. Reads no weights."""
    try:
        _check(data, _follow(data, 0), _MODEL)
    except struct.error:
        return False
    return True


def _check(data: Buffer, at: int, kind: _Kind) -> None:
    """Read the last byte of what starts at ``at``, and of all that it points to (flatbuffers.dev/internals)."""
    if isinstance(kind, dict):
        fields = at - _read(data, "<i", at)
        _read(data, "B", at + _read(data, "<H", fields + 2) - 1)
        for number, of in kind.items():
            slot = 4 + 2 * number
            offset = _read(data, "<H", fields + slot) if slot < _read(data, "<H", fields) else 0
            if offset:
                _check(data, _follow(data, at + offset), of)
    elif isinstance(kind, list):
        for element in range(at + 4, at + 4 + 4 * _read(data, "<I", at), 4):
            _check(data, _follow(data, element), kind[0])
    else:
        _read(data, "B", at + 4 + kind * _read(data, "<I", at) - 1)


def _follow(data: Buffer, at: int) -> int:
    return at + _read(data, "<I", at)


def _read(data: Buffer, layout: str, at: int) -> int:
    if at < 0:  # which would count from the end
        raise struct.error
    return int(struct.unpack_from(layout, data, at)[0])
