"""A model's tensors, and numbers as they hold them: their integers, and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a model.

    A quantised tensor holds integers ``q`` that stand for ``scale * (q - zero_point)``.

    :ivar name: that of the signature's argument where there is a signature, else the tensor's own.
    :ivar shape: sizes, the batch first where there is one; empty for a scalar.
    :ivar dtype: of the tensor's elements.
    :ivar scale: 0.0 where the tensor is not quantised.
    :ivar zero_point: the integer that stands for zero.
    :ivar extents: the shape with -1 where the model leaves a size open.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    scale: float = 0.0
    zero_point: int = 0
    extents: tuple[int, ...] = ()


Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
_EXACT_IN_FLOAT32 = 2  # bytes: wider integers are worked out in float64


def quantise(values: Array, tensor: TensorInfo) -> Array:
    """Return ``values`` in the tensor's dtype.

    Integers are round(x / scale) + zero_point, halves to even, clipped to the bounds of the dtype (of 64 bits, to the
    outermost that float64 holds). Where integers have no scale, it is 1. Booleans are integers from 0 to 1.

    :param values: floats, finite; any shape, which is kept.
    """
    if tensor.dtype.kind not in "iub":
        return values.astype(tensor.dtype, copy=False)
    if tensor.dtype.itemsize > _EXACT_IN_FLOAT32:
        values = values.astype(np.float64, copy=False)
    lowest, highest = _bounds(tensor.dtype)
    steps = np.rint(values / tensor.scale if tensor.scale else values)
    if tensor.zero_point:
        steps += tensor.zero_point
    np.maximum(steps, lowest, out=steps)
    np.minimum(steps, highest, out=steps)
    return steps.astype(tensor.dtype)


def clipped(values: Array, tensor: TensorInfo) -> int:
    """Return how many of ``values`` :func:`quantise` brings to the bounds of the dtype, as they lie beyond them."""
    if tensor.dtype.kind not in "iub":
        return 0
    lowest, highest = _bounds(tensor.dtype)
    steps = np.rint(values.astype(np.float64) / (tensor.scale or 1.0)) + tensor.zero_point
    return int(((steps < lowest) | (steps > highest)).sum())


def dequantise(values: Array, tensor: TensorInfo) -> Floats:
    """Return float32 of the same shape: (q - zero_point) * scale, or q itself where the tensor has no scale."""
    if not tensor.scale:
        return values.astype(np.float32, copy=False)
    wide = np.float64 if tensor.dtype.itemsize > _EXACT_IN_FLOAT32 else np.float32
    numbers: Array = values.astype(wide)
    return ((numbers - tensor.zero_point) * tensor.scale).astype(np.float32, copy=False)


@lru_cache
def _bounds(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    """Return the lowest and highest integer that floats can be clipped to."""
    if dtype.kind == "b":
        return 0.0, 1.0
    bounds = np.iinfo(dtype.name)
    highest = float(bounds.max)
    return float(bounds.min), highest if int(highest) <= bounds.max else float(np.nextafter(highest, 0.0))
