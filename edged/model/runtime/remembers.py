"""What a model keeps between calls, and of which subgraph its signatures are: the runtimes do not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edged.model.runtime.flatbuffer import Buffer, Table

_ASSIGN_VARIABLE = 144
"""Number of the built-in operator (tensorflow/lite/schema/schema.fbs)."""


class Remembers(NamedTuple):
    """Where a model has state.

    :ivar variables: in variable tensors, which the runtime clears on demand.
    :ivar resources: in resource variables that it assigns, which no runtime clears.
    :ivar signatures: the number of each one's subgraph; the main one's is 0.
    """

    variables: bool
    resources: bool
    signatures: Mapping[str, int]


def remembers(data: Buffer, signature: str | None) -> Remembers:
    """Tell where a model has state. The file was found whole (:func:`edged.model.runtime.whole.is_whole`).

    :param signature: the one that is used; default: the main subgraph.
    :raises struct.error: it is damaged all the same; so does IndexError.
    """
    model = Table.root(data)
    codes = [builtin_code(code) for code in model.tables(1)]
    signatures = {one.text(2): one.int32(4) for one in model.tables(7)}
    graph = list(model.tables(2))[0 if signature is None else signatures.get(signature, 0)]
    variables = any(tensor.byte(5) for tensor in graph.tables(0))
    resources = any(codes[operator.int32(0)] == _ASSIGN_VARIABLE for operator in graph.tables(3))
    return Remembers(variables, resources, signatures)


def builtin_code(code: Table) -> int:
    """Return the number of an operator: old files have it in a byte, new ones in an int beside that."""
    return max(code.byte(0), code.int32(3))
