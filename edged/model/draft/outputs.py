"""``[output]`` and ``[decide]`` of a starting manifest: from the shape of what the model gives, and where from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edged.formats.spec.output import LONGEST_LABEL, MOST_LABELS
from edged.model.draft import toml
from edged.model.draft.inputs import Part, describe
from edged.model.runtime.graph import Subgraph
from edged.model.runtime.metadata import TensorNotes
from edged.model.signal.tensor import TensorInfo

_PASSED_ON = {"DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "CAST"}
_PROBABILITIES = {"SOFTMAX", "LOGISTIC"}


def last_operator(subgraph: Subgraph, tensor: int) -> str:
    """Return the operator that a tensor's values come out of, behind those that only convert or reshape them."""
    name = ""
    for _ in subgraph.operators:
        maker = subgraph.maker(tensor)
        if maker is None:
            break
        name = maker.name
        if name not in _PASSED_ON or not maker.inputs:
            break
        tensor = maker.inputs[0]
    return name


def write_output(parts: Sequence[Part], tensor: TensorInfo, notes: TensorNotes | None, operator: str) -> Iterator[str]:
    """Write the tables of what comes out of ``tensor``.

    :param operator: :func:`last_operator` of it.
    """
    size = math.prod(tensor.shape)
    yield ""
    yield from toml.remark(describe(f"Out of {operator or 'it'} comes", tensor, notes))
    yield "[output]"
    if size > 1 and operator != "SOFTMAX" and [part.tensor.shape for part in parts] == [tensor.shape]:
        yield from _anomaly()
    elif size == 1 and operator == "LOGISTIC":
        yield from _detector(notes)
    elif size == 1 or size != max(tensor.shape) or size > MOST_LABELS:
        yield from ('kind = "regressor"', '# unit = "°C"', "# scale = 1.0", "# offset = 0.0")
    else:
        yield from _classifier(size, notes, operator)


def _anomaly() -> Iterator[str]:
    yield 'kind = "anomaly"  # a guess: it gives as much as it takes, so it may be an autoencoder'
    yield 'error = "mae"'
    yield 'labels = ["normal", "anomaly"]  # below decide.enter; from there on'
    yield from toml.table("decide", ["enter = 0.5  # measure it: the error from which on it is an anomaly"])


def _detector(notes: TensorNotes | None) -> Iterator[str]:
    labels = _labels(1, notes) or ["class_1"]
    yield 'kind = "classifier"'
    yield from toml.assign("labels", [toml.text(labels[0])], "what its one probability is of")
    yield from toml.table(
        "decide", [f"thresholds = {{ {toml.key(labels[0])} = 0.5 }}", 'otherwise = "none"  # what holds below']
    )


def _classifier(size: int, notes: TensorNotes | None, operator: str) -> Iterator[str]:
    yield 'kind = "classifier"'
    if operator in _PROBABILITIES:
        yield 'activation = "none"'
    else:
        yield 'activation = "softmax"  # a guess: the model has none itself; "sigmoid" where several labels may hold'
    labels = _labels(size, notes)
    names = labels or [f"class_{number}" for number in range(size)]
    yield from toml.assign("labels", list(map(toml.text, names)), "" if labels else "name them, in this order")


def _labels(size: int, notes: TensorNotes | None) -> Sequence[str]:
    """Return the labels that the model brings along, if a manifest may have them."""
    labels = () if notes is None else notes.labels
    fits = len(labels) == len(set(labels)) == size and all(len(one.encode()) <= LONGEST_LABEL for one in labels)
    return labels if fits else ()
