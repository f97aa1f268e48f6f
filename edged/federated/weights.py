"""A model's weights as a list of arrays: what boards start from, move by training, and hand on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edged.base.errors import FormatError, ModelError
from edged.formats.cose import cbor
from edged.model.runtime.variables import Initial, initial_values

Weights: TypeAlias = list[npt.NDArray[np.float32]]
"""In the order of the outputs of the model's ``get_weights``: w0, w1 and so on."""

Shape: TypeAlias = tuple[int, ...]

_HEADS = 64
"""Bytes that the heads of one array take at most: four of CBOR, and a size for each of a few dimensions."""


def norm(weights: Sequence[npt.NDArray[np.float32]]) -> float:
    """Return the L2 norm over all of them together, summed in float64."""
    return math.sqrt(sum(float(np.sum(np.square(each, dtype=np.float64))) for each in weights))


def difference(a: Weights, b: Weights) -> Weights:
    """Return ``a - b``."""
    return [one - other for one, other in zip(a, b, strict=True)]


def add(a: Weights, b: Weights, scale: float = 1.0) -> Weights:
    """Return ``a + scale * b``."""
    return [one + np.float32(scale) * other for one, other in zip(a, b, strict=True)]


def limited(weights: Weights, bound: float) -> Weights:
    """Return them scaled down to a norm of ``bound`` where theirs is larger."""
    length = norm(weights)
    return weights if length <= bound else [each * np.float32(bound / length) for each in weights]


def check(weights: Sequence[npt.NDArray[np.generic]], like: Sequence[Shape]) -> None:
    """Refuse what is not a finite float32 array of each of these shapes.

    :raises FormatError: so it is; the message names the first that is wrong.
    """
    if len(weights) != len(like):
        raise FormatError(f"{len(weights)} weights where the model has {len(like)}")
    for place, (each, shape) in enumerate(zip(weights, like, strict=True)):
        if each.shape != shape or each.dtype != np.float32:
            raise FormatError(f"weight {place} is {each.dtype} {list(each.shape)}, not float32 {list(shape)}")
        if not np.isfinite(each).all():
            raise FormatError(f"weight {place} holds values that are not finite")


def encode(weights: Weights) -> bytes:
    """Return ``[[[size, ...], bytes], ...]`` in deterministic CBOR; the bytes are little-endian float32 in C order."""
    return cbor.encode([[list(each.shape), np.ascontiguousarray(each, "<f4").tobytes()] for each in weights])


def decode(data: bytes, like: Sequence[Shape]) -> Weights:
    """Read what :func:`encode` wrote, of weights with these shapes.

    :raises FormatError: it is something else, or holds values that are not finite.
    """
    size = 16 + sum(_HEADS + 4 * math.prod(shape) for shape in like)
    found = cbor.decode_canonical(data, cbor.Limits(size, depth=4, items=2 + sum(3 + len(shape) for shape in like)))
    if not isinstance(found, list):
        raise FormatError("weights are not an array")
    weights = [_array(place, each) for place, each in enumerate(found)]
    check(weights, like)
    return weights


def _array(place: int, item: object) -> npt.NDArray[np.float32]:
    match item:
        case [list(shape), bytes(data)] if all(type(size) is int and 0 < size < 1 << 31 for size in shape):
            if len(data) == 4 * math.prod(shape):
                return np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)
    raise FormatError(f"weight {place} is not its shape and as many float32")


def digest(weights: Weights) -> bytes:
    """Return the SHA-256 of their shapes and values, as :func:`encode` writes them."""
    return hashlib.sha256(encode(weights)).digest()


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
