"""What a model keeps between calls, read from its file: the runtimes do not say."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

_ASSIGN_VARIABLE = 144
"""Number of the built-in operator (tensorflow/lite/schema/schema.fbs)."""


class Remembers(NamedTuple):
    """Where a model has state.

    :ivar variables: in variable tensors, which the runtime clears on demand.
    :ivar resources: in resource variables that it assigns, which no runtime clears.
    """

    variables: bool
    resources: bool


def remembers(data: mmap.mmap, signature: str | None) -> Remembers:
    """Tell where a model has state. The file was found whole (:func:`edged.runtime.whole.is_whole`).

    :param signature: the one that is used; default: the main subgraph.
    """
    model = _follow(data, 0)
    codes = [max(_byte(data, code, 0), _int(data, code, 3)) for code in _tables(data, model, 1)]
    graphs = list(_tables(data, model, 2))
    named = (one for one in _tables(data, model, 7) if _text(data, one, 2) == signature)
    number = next((_int(data, one, 4) for one in named), 0)
    graph = graphs[number if number < len(graphs) else 0]
    variables = any(_byte(data, tensor, 5) for tensor in _tables(data, graph, 0))
    used = {_int(data, operator, 0) for operator in _tables(data, graph, 3)}
    resources = any(codes[number] == _ASSIGN_VARIABLE for number in used if number < len(codes))
    return Remembers(variables, resources)


def _slot(data: mmap.mmap, table: int, field: int) -> int:
    """Return where a field of a table stands; 0 where it is left out (flatbuffers.dev/internals)."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    at = 4 + 2 * field
    offset = struct.unpack_from("<H", data, fields + at)[0] if at < struct.unpack_from("<H", data, fields)[0] else 0
    return table + int(offset) if offset else 0


def _byte(data: mmap.mmap, table: int, field: int) -> int:
    at = _slot(data, table, field)
    return data[at] if at else 0


def _int(data: mmap.mmap, table: int, field: int) -> int:
    at = _slot(data, table, field)
    return int(struct.unpack_from("<i", data, at)[0]) if at else 0


def _text(data: mmap.mmap, table: int, field: int) -> str:
    at = _slot(data, table, field)
    if not at:
        return ""
    start = _follow(data, at)
    (size,) = struct.unpack_from("<I", data, start)
    return data[start + 4 : start + 4 + size].decode(errors="replace")


def _tables(data: mmap.mmap, table: int, field: int) -> Iterator[int]:
    at = _slot(data, table, field)
    if not at:
        return
    vector = _follow(data, at)
    for element in range(vector + 4, vector + 4 + 4 * struct.unpack_from("<I", data, vector)[0], 4):
        yield _follow(data, element)


def _follow(data: mmap.mmap, at: int) -> int:
    return at + int(struct.unpack_from("<I", data, at)[0])
