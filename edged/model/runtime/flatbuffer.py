"""A model's file, read by hand as a FlatBuffer (flatbuffers.dev/internals): the base install has no library for that.

Data outside the buffer are refused, however the file points at them; data inside may still be nonsense. The numbers of
fields, operators and types are those of the TFLite schema (tensorflow/lite/schema/schema.fbs).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import TypeAlias

Buffer: TypeAlias = "mmap.mmap | bytes"


class FlatTable:
    """A table: fields by their number in the schema, each left out where it has its default.

    :raises struct.error: a field stands outside the buffer, which comes of damage alone; so does IndexError.
    """

    __slots__ = ("_at", "_data", "_fields")

    def __init__(self, data: Buffer, at: int) -> None:
        self._data = data
        self._at = at
        self._fields: int = at - struct.unpack_from("<i", data, at)[0]

    @classmethod
    def root(cls, data: Buffer) -> FlatTable:
        """Return the table that a buffer begins with."""
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _slot(self, field: int) -> int:
        """Return the place of a field; 0 if it is left out."""
        at = 4 + 2 * field
        if at >= struct.unpack_from("<H", self._data, self._fields)[0]:
            return 0
        offset: int = struct.unpack_from("<H", self._data, self._fields + at)[0]
        return self._at + offset if offset else 0

    def byte(self, field: int) -> int:
        """Return an unsigned byte: a flag, or a member of a small enumeration."""
        at = self._slot(field)
        return self._data[at] if at else 0

    def int32(self, field: int) -> int:
        """Return an int32; of what the schemas have as uint32, none is that large."""
        at = self._slot(field)
        return int(struct.unpack_from("<i", self._data, at)[0]) if at else 0

    def uint64(self, field: int) -> int:
        """Return a uint64."""
        at = self._slot(field)
        return int(struct.unpack_from("<Q", self._data, at)[0]) if at else 0

    def text(self, field: int) -> str:
        """Return a string, what is no UTF-8 in it replaced."""
        return self.blob(field).decode(errors="replace")

    def blob(self, field: int) -> bytes:
        """Return a copy of a vector of bytes."""
        place = self.place(field)
        return bytes(self._data[place.start : place.stop])

    def place(self, field: int) -> range:
        """Return the place of a vector of bytes in the buffer."""
        start, size = self._vector(field)
        if start + size > len(self._data):
            raise struct.error
        return range(start, start + size)

    def size(self, field: int) -> int:
        """Return how many elements a vector has."""
        return self._vector(field)[1]

    def ints(self, field: int) -> tuple[int, ...]:
        """Return a vector of int32."""
        return tuple(map(int, self._numbers(field, "i", 4)))

    def longs(self, field: int) -> tuple[int, ...]:
        """Return a vector of int64."""
        return tuple(map(int, self._numbers(field, "q", 8)))

    def floats(self, field: int) -> tuple[float, ...]:
        """Return a vector of float32."""
        return self._numbers(field, "f", 4)

    def table(self, field: int) -> FlatTable | None:
        """Return a table that this one points to."""
        at = self._slot(field)
        return self._follow(at) if at else None

    def tables(self, field: int) -> Iterator[FlatTable]:
        """Return a vector of tables."""
        start, size = self._vector(field)
        return (self._follow(at) for at in range(start, start + 4 * size, 4))

    def _vector(self, field: int) -> tuple[int, int]:
        at = self._slot(field)
        if not at:
            return 0, 0
        start = at + struct.unpack_from("<I", self._data, at)[0]
        return start + 4, struct.unpack_from("<I", self._data, start)[0]

    def _numbers(self, field: int, kind: str, width: int) -> tuple[float, ...]:
        start, size = self._vector(field)
        if start + size * width > len(self._data):
            raise struct.error
        return struct.unpack_from(f"<{size}{kind}", self._data, start)

    def _follow(self, at: int) -> FlatTable:
        return FlatTable(self._data, at + struct.unpack_from("<I", self._data, at)[0])


_Kind: TypeAlias = "int | Fields | list[Fields]"
Fields: TypeAlias = dict[int, _Kind]
"""The fields of a table that point somewhere: at a vector of scalars of so many bytes, a table, a vector of tables.

The fields' numbers of a model are those of the TFLite schema (tensorflow/lite/schema/schema.fbs).
"""

_BYTE, _UINT16, _UINT32, _INT32 = map(struct.Struct, ("B", "<H", "<I", "<i"))
_STRING = _BYTES = 1
_INTS = _FLOATS = 4
_LONGS = 8
_QUANTIZATION: Fields = {0: _FLOATS, 1: _FLOATS, 2: _FLOATS, 3: _LONGS}
_TENSOR: Fields = {0: _INTS, 3: _STRING, 4: _QUANTIZATION, 7: _INTS}
_OPERATOR: Fields = {1: _INTS, 2: _INTS, 4: {}, 5: _BYTES, 8: _INTS}
_SUBGRAPH: Fields = {0: [_TENSOR], 1: _INTS, 2: _INTS, 3: [_OPERATOR], 4: _STRING}
_TENSOR_MAP: Fields = {0: _STRING}
_SIGNATURE: Fields = {0: [_TENSOR_MAP], 1: [_TENSOR_MAP], 2: _STRING}
_MODEL: Fields = {
    1: [{1: _STRING}],  # operator codes
    2: [_SUBGRAPH],
    3: _STRING,
    4: [{0: _BYTES}],  # buffers: the weights
    5: _INTS,
    6: [{0: _STRING}],  # metadata
    7: [_SIGNATURE],
}


_MOST_PARTS = 1_000_000
"""Tables and vectors of a model, at most: a second or two to look at."""


def is_complete(data: Buffer, fields: Fields | None = None) -> bool:
    """Return True if every table and vector ends inside ``data``, which says as much as it holds.

    tflite-runtime does not check, and crashes where a file is cut off. A part that others share is read once for each:
    a file of kilobytes could say gigabytes, and take days. Reads no weights.

    :param fields: of its root; default: a model's.
    """
    try:
        _Check(data).check(_follow(data, 0), fields or _MODEL)
    except struct.error:
        return False
    return True


class _Check:
    """Reads the last byte of each part of a file, and counts the parts and their bytes (flatbuffers.dev/internals).

    Each part has an offset of its own that leads to it, of four bytes; strings and numbers may be shared twice over.
    """

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._parts = min(len(data) // 4, _MOST_PARTS)
        self._bytes = 2 * len(data)

    def check(self, at: int, kind: _Kind) -> None:
        """Check what starts at ``at``, and all that it points to.

        :raises struct.error: a part ends outside the file, or there are more than it has room for.
        """
        data = self._data
        self._parts -= 1
        if isinstance(kind, dict):
            fields = at - _read(data, _INT32, at)
            _read(data, _BYTE, at + _read(data, _UINT16, fields + 2) - 1)
            for number, of in kind.items():
                slot = 4 + 2 * number
                offset = _read(data, _UINT16, fields + slot) if slot < _read(data, _UINT16, fields) else 0
                if offset:
                    self.check(_follow(data, at + offset), of)
        elif isinstance(kind, list):
            for element in range(at + 4, at + 4 + 4 * _read(data, _UINT32, at), 4):
                self.check(_follow(data, element), kind[0])
        else:
            size = kind * _read(data, _UINT32, at)
            _read(data, _BYTE, at + 4 + size - 1)
            self._bytes -= size
        if self._parts < 0 or self._bytes < 0:
            raise struct.error


def _follow(data: Buffer, at: int) -> int:
    return at + _read(data, _UINT32, at)


def _read(data: Buffer, number: struct.Struct, at: int) -> int:
    if at < 0:  # which would count from the end
        raise struct.error
    value: int
    (value,) = number.unpack_from(data, at)
    return value


_OPERATORS = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
    FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
    LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH
    SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
    BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
    BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
    ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE
    TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK
    LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL
    FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL
    REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND
    HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM
    BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
    HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE
    ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU
    DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2
    UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE
    STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
    STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE
    STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG
    STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT
    STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT
    STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL
    STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE
    STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
""".split()  # noqa: SIM905  a list would have a line for each
_TYPES = """
    float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 resource variant
    uint32 uint16 int4 bfloat16 int2 uint4 float8_e4m3fn float8_e5m2
""".split()  # noqa: SIM905  a list would have a line for each

CUSTOM = 32
"""Stands for an operator that has a name of its own."""


def operator_name(code: int) -> str:
    """Return the name of a built-in operator; of one that is newer than this list, its number."""
    return _OPERATORS[code] if code < len(_OPERATORS) else f"operator {code}"


def type_name(code: int) -> str:
    """Return the name of a tensor type, likewise."""
    return _TYPES[code] if code < len(_TYPES) else f"type {code}"
