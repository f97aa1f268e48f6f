"""A model taken apart, for people and for a first manifest: its file, its author's notes, its accelerated operators."""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from edged.base.errors import ModelError
from edged.model.runtime.engine import Engine
from edged.model.runtime.flatbuffer import is_complete
from edged.model.runtime.graph import Graph, Operator, read_graph
from edged.model.runtime.interpreter import Interpreter
from edged.model.runtime.metadata import ENTRY, Notes, read_notes

_LEAST_RUNTIME = "min_runtime_version"


class Anatomy(NamedTuple):
    """A model, taken apart.

    :ivar size: of its file, in bytes.
    :ivar sha256: of its file.
    :ivar graph: the content of the file.
    :ivar notes: notes of its author in the file.
    :ivar needs: the oldest runtime that has its operators, if it says so.
    :ivar accelerated: places of the main subgraph's operators that XNNPACK runs; none where the runtime refuses it.
    :ivar lost: why the notes could not be read.
    :ivar refusal: of the runtime; None if it runs the model.
    """

    size: int
    sha256: str
    graph: Graph
    notes: Notes | None
    needs: str
    accelerated: frozenset[int]
    lost: ModelError | None
    refusal: ModelError | None


def dissect(engine: Engine, path: Path) -> Anatomy:
    """Load a model as a board would, and take it apart.

    :raises MissingFileError: it cannot be read.
    :raises ModelError: it is no model, or damaged.
    """
    accelerated, refusal, lost, notes = frozenset[int](), None, None, None
    try:
        interpreter = Interpreter(engine, str(path))
        accelerated = delegated(interpreter.nodes(), interpreter.output_indices)
        interpreter.close()
    except ModelError as error:
        refusal = error
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            if refusal is not None and not (data[4:8] == b"TFL3" and is_complete(data)):
                raise refusal
            graph = read_graph(data)
            size, digest = len(data), hashlib.sha256(data).hexdigest()
            written, least = (_bytes_at(data, graph.metadata.get(name)) for name in (ENTRY, _LEAST_RUNTIME))
    except (struct.error, IndexError) as error:
        raise refusal or ModelError(
            f"{path} is damaged, where the runtime does not look", hint="copy it again"
        ) from error
    try:
        notes = read_notes(path, written) if written else None
    except ModelError as error:
        lost = error
    needs = least.rstrip(b"\0").decode(errors="replace")
    return Anatomy(size, digest, graph, notes, needs, accelerated, lost, refusal)


def _bytes_at(data: mmap.mmap, place: range | None) -> bytes:
    return b"" if place is None else data[place.start : place.stop]


_DELEGATE = "DELEGATE"


def delegated(nodes: Sequence[Operator], outputs: Sequence[int]) -> frozenset[int]:
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
    """The flow of tensors from operator to operator."""

    def __init__(self, nodes: Sequence[Operator]) -> None:
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
