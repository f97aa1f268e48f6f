"""Which operators a delegate took: the runtimes list them all, taken or not, and what took some of them last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

_DELEGATE = "DELEGATE"


class Node(NamedTuple):
    """An operator, or a delegate in the place of several.

    :ivar name: as the schema has it.
    :ivar inputs: numbers of its tensors; -1 for an optional one that is left out.
    :ivar outputs: likewise.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def delegated(nodes: Sequence[Node], outputs: Sequence[int]) -> frozenset[int]:
    """Return the places in ``nodes`` of the operators that delegates took.

    A delegate names the tensors that go into and come out of what it took, and no others. So it took: what makes its
    outputs, back to its inputs; whatever reads a tensor of its inside that does not come out; and, of operators that
    nothing needs, those that account for the rest of its inputs.

    :param outputs: numbers of the model's own outputs.
    """
    flow = _Flow(nodes)
    needed = flow.closure(flow.makers(outputs), sources=(), results=None)
    taken: set[int] = set()
    for node in nodes:
        if node.name == _DELEGATE:
            found = flow.closure(flow.makers(node.outputs), node.inputs, node.outputs)
            unread = set(node.inputs).difference(*(nodes[place].inputs for place in found))
            rest = {reader for tensor in unread for reader in flow.readers(tensor)} - needed - taken
            taken |= found | flow.closure(rest, node.inputs, node.outputs)
    return frozenset(taken)


class _Flow:
    """How tensors run from operator to operator."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._maker: dict[int, int] = {}
        self._readers: dict[int, list[int]] = {}
        for place, node in enumerate(nodes):
            if node.name != _DELEGATE:
                self._maker |= dict.fromkeys(node.outputs, place)
                for tensor in node.inputs:
                    self._readers.setdefault(tensor, []).append(place)

    def makers(self, tensors: Iterable[int]) -> list[int]:
        """Return the operators that make ``tensors``; what goes into a model and what is constant has none."""
        return [self._maker[tensor] for tensor in tensors if tensor in self._maker]

    def readers(self, tensor: int) -> Sequence[int]:
        """Return the operators that a tensor goes into."""
        return self._readers.get(tensor, ())

    def closure(self, places: Iterable[int], sources: Sequence[int], results: Sequence[int] | None) -> set[int]:
        """Return ``places`` and what belongs to them: makers of what goes in, and readers of what comes out.

        :param sources: tensors whose makers do not belong to them.
        :param results: tensors whose readers do not; None: no readers do.
        """
        found: set[int] = set()
        open_ = list(places)
        while open_:
            place = open_.pop()
            if place not in found:
                found.add(place)
                node = self._nodes[place]
                open_ += self.makers(tensor for tensor in node.inputs if tensor not in sources)
                if results is not None:
                    open_ += (at for tensor in node.outputs if tensor not in results for at in self.readers(tensor))
        return found
