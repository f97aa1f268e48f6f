"""A starting manifest from a model's own file; gaps are guessed, and marked as guesses."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from edged.base.errors import ModelError
from edged.model import toml
from edged.model.draft_normalise import range_of
from edged.model.draft_tables import guess_input, last_operator, why_not, write_inputs, write_output
from edged.model.runtime import Interpreter
from edged.model.runtime.anatomy import Anatomy
from edged.model.runtime.graph import Graph
from edged.model.runtime.metadata import TensorNotes
from edged.model.signal.tensor import TensorInfo

_USUAL = ("serving_default", "infer", "inference", "predict", "serve")
"""Usual names of signatures for inference."""

_STATE = re.compile("state|hidden|memory|cell", re.IGNORECASE)

_RECURRENT = {
    *("WHILE", "RNN", "LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
    *("BIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM"),
}
"""Operators that go through the rows of a window one by one."""

_SELF_TEST = (
    "",
    "# `edged try MODEL --manifest THIS --input DATA --record-self-test self-test.npz` records it; then:",
    "# [self_test]",
    '# file = "self-test.npz"',
)


def choose_signature(graph: Graph) -> str | None:
    """Return the signature to state: one that is called like inference, else the main subgraph's, else the first.

    None: the main subgraph is all that there is to ask.

    :raises ModelError: neither a signature nor the main subgraph both takes and gives something.
    """
    usable = [key for key, one in graph.signatures.items() if one.inputs and one.outputs]
    main = [key for key in usable if graph.signatures[key].subgraph == 0]
    runs = any(one.inputs and one.outputs for one in graph.subgraphs[:1])
    if graph.signatures and not usable and not runs:
        raise ModelError("model.signature: none of the model's takes and gives something")
    if not usable or len(graph.signatures) == len(main) <= 1:
        return None
    return next(key for key in (*_USUAL, *main, *usable) if key in usable)


def draft(anatomy: Anatomy, interpreter: Interpreter, signature: str | None, file: str) -> str:
    """Return a manifest in TOML.

    :param interpreter: has the model, by ``signature``.
    :param file: the model's, as the manifest names it.
    :raises ModelError: no manifest can fill its inputs, or it gives nothing.
    """
    inputs, outputs = interpreter.inputs, interpreter.outputs
    if not inputs or not outputs:
        raise ModelError(
            f"{file} takes {len(inputs)} inputs and gives {len(outputs)} outputs: nothing can be asked of it"
        )
    feedback = _feedback(inputs, outputs)
    written = _notes(anatomy, interpreter, "outputs")
    free = [place for place, tensor in enumerate(outputs) if tensor.name not in feedback.values()]
    answer = next((place for place in free if _has_labels(outputs[place], written[place])), free[0])
    subgraph = anatomy.graph.subgraphs[interpreter.subgraph]
    recurrent = any(operator.name in _RECURRENT for operator in subgraph.operators)
    parts = [
        guess_input(tensor, notes, recurrent=recurrent)._replace(held=range_of(tensor, subgraph, number))
        for tensor, notes, number in zip(
            inputs, _notes(anatomy, interpreter, "inputs"), interpreter.input_indices, strict=True
        )
        if tensor.name not in feedback
    ]
    operator = last_operator(subgraph, interpreter.output_indices[answer])
    lines = [
        *_head(anatomy, file),
        *_model(anatomy, interpreter, signature, file, outputs[answer].name, feedback),
        *write_inputs(parts),
        *write_output(parts, outputs[answer], written[answer], operator),
        *_SELF_TEST,
    ]
    return "\n".join(lines) + "\n"


def _head(anatomy: Anatomy, file: str) -> Iterator[str]:
    notes = anatomy.notes
    yield from toml.remark(
        f"A starting manifest for {Path(file).name}, from what the model says of itself. A model does not say what its"
        " numbers mean: check the guesses, name channels and labels, and add what else it was trained with."
    )
    yield f"name = {toml.text(_name(file))}"
    yield "version = 1"
    yield f"summary = {toml.text(toml.line(notes.description if notes else ''))}"
    if anatomy.lost:
        yield from toml.remark(f"Nothing of its author's notes is used: {anatomy.lost.message}")
    if notes is not None and toml.line(notes.license):
        yield f"license = {toml.text(toml.line(notes.license))}"


def _name(file: str) -> str:
    """Return the file's name as a model's name: other characters become -, and those that may not begin one go."""
    return re.sub(r"[^a-z0-9_-]+", "-", Path(file).stem.lower()).strip("-_")[:64] or "model"


def _model(
    anatomy: Anatomy,
    interpreter: Interpreter,
    signature: str | None,
    file: str,
    answer: str,
    feedback: Mapping[str, str],
) -> Iterator[str]:
    yield from ("", "[model]", f"file = {toml.text(file)}")
    if signature is not None:
        others = ", ".join(key for key in anatomy.graph.signatures if key != signature)
        yield f"signature = {toml.text(signature)}" + (f"  # others: {toml.line(others)}" if others else "")
    if len(interpreter.outputs) > 1:
        rest = ", ".join(one.name for one in interpreter.outputs if one.name != answer)
        yield f"output = {toml.text(answer)}  # a guess; others: {toml.line(rest)}"
    if feedback:
        pairs = ", ".join(f"{toml.key(goes_in)} = {toml.text(comes_out)}" for goes_in, comes_out in feedback.items())
        yield f"feedback = {{ {pairs} }}  # a guess by names and shapes: input = the output that fills it the next time"
    if feedback or interpreter.has_resources:
        yield 'reset = "gap"  # it keeps state from window to window'
    elif interpreter.has_variables:
        yield '# reset = "gap"  # for state that is kept from window to window; by default each one begins anew'


def _has_labels(tensor: TensorInfo, notes: TensorNotes | None) -> bool:
    """Return True if a manifest can have the labels that the notes on an output bring along."""
    return notes is not None and bool(notes.labels) and not why_not(math.prod(tensor.shape), notes)


def _feedback(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Mapping[str, str]:
    """Guess which outputs fill which inputs the next time: those that are alike, where a name speaks of state."""
    pairs: dict[str, str] = {}
    for goes_in in inputs:
        alike = [one for one in outputs if one.name not in pairs.values() and _layout(one) == _layout(goes_in)]
        alike.sort(key=lambda one: not _STATE.search(one.name))
        left = min(len(inputs), len(outputs)) - len(pairs) > 1  # one to fill, and one that answers
        if alike and left and (_STATE.search(goes_in.name) or _STATE.search(alike[0].name)):
            pairs[goes_in.name] = alike[0].name
    return pairs


def _layout(tensor: TensorInfo) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point


def _notes(anatomy: Anatomy, interpreter: Interpreter, side: Literal["inputs", "outputs"]) -> list[TensorNotes | None]:
    """Return what the author wrote of each input or output, which stands in the order of the subgraph's."""
    numbers = interpreter.input_indices if side == "inputs" else interpreter.output_indices
    every = () if anatomy.notes is None else getattr(anatomy.notes, side)
    written = every[interpreter.subgraph] if interpreter.subgraph < len(every) else ()
    order = getattr(anatomy.graph.subgraphs[interpreter.subgraph], side)
    by_number = dict(zip(order, written, strict=False))  # an author may have written of some only
    return [by_number.get(number) for number in numbers]
