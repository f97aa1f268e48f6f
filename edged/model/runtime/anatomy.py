"""All that a model says of itself, and what the runtime makes of it: for people, and for a manifest to start from."""

from __future__ import annotations

import hashlib
import mmap
import struct
from pathlib import Path
from typing import NamedTuple

from edged.base.errors import ModelError
from edged.model.runtime.delegated import delegated
from edged.model.runtime.engine import Engine
from edged.model.runtime.graph import Graph, read_graph
from edged.model.runtime.interpreter import Interpreter
from edged.model.runtime.metadata import ENTRY, Notes, read_notes

_LEAST_RUNTIME = "min_runtime_version"


class Anatomy(NamedTuple):
    """A model, taken apart.

    :ivar size: of its file, in bytes.
    :ivar sha256: of its file.
    :ivar graph: what the file holds.
    :ivar notes: what its author wrote into it.
    :ivar needs: the oldest runtime that has its operators, if it says so.
    :ivar accelerated: places of the main subgraph's operators that XNNPACK runs.
    """

    size: int
    sha256: str
    graph: Graph
    notes: Notes | None
    needs: str
    accelerated: frozenset[int]


def dissect(engine: Engine, path: Path) -> Anatomy:
    """Load a model as a board would, and tell what it is.

    :raises MissingFileError: it cannot be read.
    :raises ModelError: it is no model, the runtime refuses it, or its metadata are damaged.
    """
    interpreter = Interpreter(engine, str(path))
    try:
        accelerated = delegated(interpreter.nodes(), interpreter.output_indices)
    finally:
        interpreter.close()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            graph = read_graph(data)
            size, digest = len(data), hashlib.sha256(data).hexdigest()
    except (struct.error, IndexError) as error:
        raise ModelError(f"{path} is damaged, where the runtime does not look", hint="copy it again") from error
    notes = graph.metadata.get(ENTRY)
    return Anatomy(
        size,
        digest,
        graph,
        read_notes(path, notes) if notes else None,
        graph.metadata.get(_LEAST_RUNTIME, b"").rstrip(b"\0").decode(errors="replace"),
        accelerated,
    )
