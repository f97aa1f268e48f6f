"""The content of a model's file beside its weights: tensors, operators, signatures and state, as tools write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edged.model.runtime.flatbuffer import CUSTOM, Buffer, FlatTable, operator_name, type_name

_ASSIGN_VARIABLE = 144
"""Number of the built-in operator (tensorflow/lite/schema/schema.fbs)."""


class ModelState(NamedTuple):
    """The state that a model keeps between calls, and its signatures: the runtimes do not say.

    :ivar variables: in variable tensors, which the runtime clears on demand.
    :ivar resources: in resource variables that it assigns, which no runtime clears.
    :ivar signatures: the number of each one's subgraph; the main one's is 0.
    :ivar custom: names of its custom operators.
    """

    variables: bool
    resources: bool
    signatures: Mapping[str, int]
    custom: tuple[str, ...] = ()


def find_state(data: Buffer, signature: str | None) -> ModelState:
    """Find the state of a complete file (:func:`edged.model.runtime.flatbuffer.is_complete`).

    :param signature: the one that is used; default: the main subgraph.
    :raises struct.error: it is damaged all the same; so does IndexError.
    """
    model = FlatTable.root(data)
    codes = [builtin_code(code) for code in model.tables(1)]
    custom = tuple(code.text(1) for code in model.tables(1) if builtin_code(code) == CUSTOM)
    signatures = {one.text(2): one.int32(4) for one in model.tables(7)}
    graph = list(model.tables(2))[0 if signature is None else signatures.get(signature, 0)]
    variables = any(tensor.byte(5) for tensor in graph.tables(0))
    resources = any(codes[operator.int32(0)] == _ASSIGN_VARIABLE for operator in graph.tables(3))
    return ModelState(variables, resources, signatures, custom)


def builtin_code(code: FlatTable) -> int:
    """Return the number of an operator: old files have it in a byte, new ones in an int beside that."""
    return max(code.byte(0), code.int32(3))


class GraphTensor(NamedTuple):
    """A tensor of a subgraph.

    :ivar shape: with -1 where the model leaves a size open.
    :ivar dtype: name of its type in the schema, in lower case.
    :ivar scales: one, or one a channel along ``axis``; none where it is not quantised.
    :ivar zero_points: as many.
    :ivar constant: the file holds its values.
    :ivar variable: the runtime keeps its values between calls.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int
    constant: bool
    variable: bool


class Operator(NamedTuple):
    """An operator: its name, and the numbers of its tensors (-1 for an optional one that is left out)."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Subgraph(NamedTuple):
    """Operators in the order in which they run, and the numbers of the tensors that go in and come out."""

    name: str
    tensors: tuple[GraphTensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def state(self) -> tuple[str, ...]:
        """The kinds of tensors and variables that keep state between calls."""
        kept = {
            "variable tensors": any(tensor.variable for tensor in self.tensors),
            "resource variables": any(operator.name == "ASSIGN_VARIABLE" for operator in self.operators),
        }
        return tuple(name for name, has in kept.items() if has)

    def maker(self, tensor: int) -> Operator | None:
        """Return the operator that a tensor comes out of."""
        return next((one for one in self.operators if tensor in one.outputs), None)


class GraphSignature(NamedTuple):
    """Names for what goes into and comes out of a subgraph, with the numbers of the tensors."""

    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


class Graph(NamedTuple):
    """A model.

    :ivar schema: version of the format.
    :ivar description: usually the converter's name.
    :ivar subgraphs: the main one first.
    :ivar signatures: by their keys.
    :ivar metadata: the places of additions of tools in the file, by name.
    """

    schema: int
    description: str
    subgraphs: tuple[Subgraph, ...]
    signatures: Mapping[str, GraphSignature]
    metadata: Mapping[str, range]


def read_graph(data: Buffer) -> Graph:
    """Read a complete file (:func:`edged.model.runtime.flatbuffer.is_complete`).

    :raises struct.error: it is damaged all the same; so does IndexError.
    """
    model = FlatTable.root(data)
    codes = [_operator_name(code) for code in model.tables(1)]
    buffers = list(model.tables(4))
    graph = Graph(
        model.int32(0),
        model.text(3),
        tuple(_subgraph(one, codes, buffers) for one in model.tables(2)),
        {one.text(2): GraphSignature(one.int32(4), _named(one, 0), _named(one, 1)) for one in model.tables(7)},
        {one.text(0): buffers[one.int32(1)].place(0) for one in model.tables(6)},
    )
    _check_numbers(graph)
    return graph


def _check_numbers(graph: Graph) -> None:
    """Refuse numbers of tensors that do not exist."""
    for subgraph in graph.subgraphs:
        _check_tensors(subgraph, (*subgraph.inputs, *subgraph.outputs))
    for signature in graph.signatures.values():
        subgraph = graph.subgraphs[signature.subgraph]
        _check_tensors(subgraph, (*signature.inputs.values(), *signature.outputs.values()))


def _check_tensors(subgraph: Subgraph, numbers: tuple[int, ...]) -> None:
    if not all(0 <= number < len(subgraph.tensors) for number in numbers):
        raise IndexError


def _operator_name(table: FlatTable) -> str:
    code = builtin_code(table)
    return table.text(1) if code == CUSTOM else operator_name(code)


def _subgraph(table: FlatTable, codes: list[str], buffers: list[FlatTable]) -> Subgraph:
    return Subgraph(
        table.text(4),
        tuple(_tensor(one, buffers) for one in table.tables(0)),
        tuple(Operator(codes[one.int32(0)], one.ints(1), one.ints(2)) for one in table.tables(3)),
        table.ints(1),
        table.ints(2),
    )


def _tensor(table: FlatTable, buffers: list[FlatTable]) -> GraphTensor:
    quantisation, number = table.table(4), table.int32(2)
    scales = () if quantisation is None else quantisation.floats(2)
    zero_points = () if quantisation is None else quantisation.longs(3)
    return GraphTensor(
        name=table.text(3),
        shape=table.ints(7) or table.ints(0),
        dtype=type_name(table.byte(1)),
        scales=scales,
        zero_points=zero_points or (0,) * len(scales),
        axis=0 if quantisation is None else quantisation.int32(6),
        constant=number > 0 and _holds(buffers[number]),  # the first means none, and may itself be absent
        variable=bool(table.byte(5)),
    )


def _holds(buffer: FlatTable) -> bool:
    """Return True if a buffer has values; large files keep them outside it, at an offset."""
    return buffer.size(0) > 0 or buffer.uint64(1) > 1


def _named(signature: FlatTable, field: int) -> dict[str, int]:
    return {one.text(0): one.int32(1) for one in signature.tables(field)}
