"""A trained model's file: the same bytes, other weights to begin with.

Weights that can be trained are variables, and the file holds their first values as constants. These are written over in
place, so that nothing else moves: not the operators, not the signatures, not the size.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from edged.base.errors import ModelError
from edged.federated.weights import Shape, Weights, check, digest
from edged.model.runtime.variables import Initial, initial_values


def _first_values(tflite: bytes) -> list[Initial]:
    """Return where the first values stand, in the order of the weights.

    :raises ModelError: as :func:`edged.model.runtime.variables.initial_values`, or they overlap.
    """
    found = initial_values(tflite, "get_weights")
    names = [f"w{place}" for place in range(len(found))]
    if set(names) != set(found):
        raise ModelError(f"signature 'get_weights': it gives {', '.join(found)}, not {', '.join(names)}")
    places = [found[name] for name in names]
    ordered = sorted((value.place for value in places), key=lambda place: place.start)
    if any(one.stop > other.start for one, other in pairwise(ordered)):
        raise ModelError("signature 'get_weights': first values of weights overlap in the file")
    return places


def shapes(tflite: bytes) -> list[Shape]:
    """Return the shapes of a model's weights, read from its file alone.

    :raises ModelError: as :func:`rewritten`.
    """
    return [value.shape for value in _first_values(tflite)]


def initial_weights(tflite: bytes) -> Weights:
    """Return the weights that a model begins with, read from its file alone: no runtime is needed.

    :raises ModelError: as :func:`rewritten`.
    """
    return [
        np.frombuffer(tflite[value.place.start : value.place.stop], "<f4").astype(np.float32).reshape(value.shape)
        for value in _first_values(tflite)
    ]


def rewritten(tflite: bytes, weights: Weights) -> bytes:
    """Return the model with these weights to begin with; all signatures then answer with them.

    :raises ModelError: the file is damaged, or its variables' first values cannot be replaced.
    :raises FormatError: the weights have other shapes than the model's, or values that are not finite.
    """
    places = _first_values(tflite)
    check(weights, [value.shape for value in places])
    changed = bytearray(tflite)
    for value, each in zip(places, weights, strict=True):
        changed[value.place.start : value.place.stop] = np.ascontiguousarray(each, "<f4").tobytes()
    made = bytes(changed)
    if digest(initial_weights(made)) != digest(weights):  # a buffer of a damaged file may lie over its tables
        raise ModelError("the model is damaged: its weights stand where something else does")
    return made
