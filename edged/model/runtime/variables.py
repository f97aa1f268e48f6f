"""The places in a model's file of the first values of its resource variables.

A signature that uses variables begins with CALL_ONCE, which names a subgraph that assigns each of them a constant. A
variable is known by its container and shared name, in the options of VAR_HANDLE. The fields' numbers are those of the
TFLite schema (tensorflow/lite/schema/schema.fbs).
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from edged.base.errors import ModelError
from edged.model.runtime.flatbuffer import FlatTable, is_complete, operator_name, type_name
from edged.model.runtime.graph import builtin_code

_Variable: TypeAlias = tuple[str, str]
_Item = TypeVar("_Item")


class Initial(NamedTuple):
    """The first value of a variable.

    :ivar place: of its bytes in the file: little-endian float32 in C order.
    :ivar shape: of it.
    """

    place: range
    shape: tuple[int, ...]


def initial_values(data: bytes, signature: str) -> Mapping[str, Initial]:
    """Return the first values of the variables that a signature gives, by the names of its outputs.

    :raises ModelError: there is no such signature, it gives something else than variables of float32, the first value
        of one cannot be told from the file or stands for something else, too, or the file is damaged.
    """
    try:
        if data[4:8] != b"TFL3" or not is_complete(data):
            raise ModelError("the model is truncated, damaged or no TFLite model")
        return _File(data).initial_values(signature)
    except (struct.error, IndexError) as error:
        raise ModelError("the model is damaged") from error


class _Operator(NamedTuple):
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: FlatTable | None


class _File:
    def __init__(self, data: bytes) -> None:
        model = FlatTable.root(data)
        self._codes = [operator_name(builtin_code(code)) for code in model.tables(1)]
        self._subgraphs = list(model.tables(2))
        self._buffers = list(model.tables(4))
        self._signatures = {one.text(2): one for one in model.tables(7)}
        tensors = (tensor for subgraph in self._subgraphs for tensor in subgraph.tables(0))
        self._used = Counter(tensor.int32(2) for tensor in tensors)

    def initial_values(self, key: str) -> dict[str, Initial]:
        """See :func:`initial_values`."""
        if key not in self._signatures:
            raise ModelError(f"the model has no signature {key!r}", hint="it was not made to be trained")
        signature = self._signatures[key]
        subgraph = _at(self._subgraphs, signature.int32(4))
        handles = self._handles(subgraph)
        reads = {
            _at(operator.outputs, 0): handles.get(_at(operator.inputs, 0))
            for operator in self._operators(subgraph)
            if operator.name == "READ_VARIABLE"
        }
        assigned = self._assigned(subgraph)
        found = {}
        for output in signature.tables(1):
            name, variable = output.text(0), reads.get(output.int32(1))
            if variable is None or variable not in assigned:
                raise ModelError(f"signature {key!r}: {name} is no variable with a first value in the file")
            found[name] = self._initial(f"signature {key!r}: {name}", assigned[variable])
        return found

    def _assigned(self, subgraph: FlatTable) -> dict[_Variable, FlatTable]:
        """Return the tensors that are assigned before a subgraph runs, by the variable that they are assigned to."""
        assigned: dict[_Variable, FlatTable] = {}
        for once in self._operators(subgraph):
            if once.name != "CALL_ONCE" or once.options is None:
                continue
            first = _at(self._subgraphs, once.options.int32(0))
            handles, tensors = self._handles(first), list(first.tables(0))
            for operator in self._operators(first):
                if operator.name == "ASSIGN_VARIABLE" and _at(operator.inputs, 0) in handles:
                    variable = handles[_at(operator.inputs, 0)]
                    if variable in assigned:
                        raise ModelError(f"variable {variable[1]!r} is given a first value twice")
                    assigned[variable] = _at(tensors, _at(operator.inputs, 1))
        return assigned

    def _initial(self, what: str, tensor: FlatTable) -> Initial:
        shape, number = tensor.ints(0), tensor.int32(2)
        kind = type_name(tensor.byte(1))
        place = _at(self._buffers, number).place(0) if number > 0 else range(0)
        if kind != "float32" or len(place) != 4 * math.prod(shape) or min(shape, default=1) < 1:
            raise ModelError(f"{what} begins as {kind} {list(shape)} of {len(place)} bytes, which cannot be replaced")
        if self._used[number] > 1:
            raise ModelError(
                f"{what} shares its first value with another tensor",
                hint="export it anew: edged.federated.export gives each a value of its own",
            )
        return Initial(place, shape)

    def _handles(self, subgraph: FlatTable) -> dict[int, _Variable]:
        """Return which variable a tensor is the handle of."""
        return {
            _at(operator.outputs, 0): (operator.options.text(0), operator.options.text(1))
            for operator in self._operators(subgraph)
            if operator.name == "VAR_HANDLE" and operator.options is not None
        }

    def _operators(self, subgraph: FlatTable) -> Iterator[_Operator]:
        for one in subgraph.tables(3):
            yield _Operator(_at(self._codes, one.int32(0)), one.ints(1), one.ints(2), one.table(4))


def _at(items: Sequence[_Item], number: int) -> _Item:
    if number < 0:  # which would count from the end
        raise IndexError
    return items[number]
