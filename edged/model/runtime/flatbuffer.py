"""Reading FlatBuffers by hand (flatbuffers.dev/internals): the base install has no library for them.

What stands outside the buffer is refused, however the file says so; what stands inside may still be nonsense.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import TypeAlias

Buffer: TypeAlias = "mmap.mmap | bytes"


class Table:
    """A table: fields by their number in the schema, each left out where it has its default.

    :raises struct.error: a field stands outside the buffer, which comes of damage alone; so does IndexError.
    """

    __slots__ = ("_at", "_data", "_fields")

    def __init__(self, data: Buffer, at: int) -> None:
        self._data = data
        self._at = at
        self._fields: int = at - struct.unpack_from("<i", data, at)[0]

    @classmethod
    def root(cls, data: Buffer) -> Table:
        """Return the table that a buffer begins with."""
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _slot(self, field: int) -> int:
        """Return where a field stands; 0 where it is left out."""
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
        """Return where in the buffer a vector of bytes stands."""
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

    def table(self, field: int) -> Table | None:
        """Return a table that this one points to."""
        at = self._slot(field)
        return self._follow(at) if at else None

    def tables(self, field: int) -> Iterator[Table]:
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

    def _follow(self, at: int) -> Table:
        return Table(self._data, at + struct.unpack_from("<I", self._data, at)[0])
