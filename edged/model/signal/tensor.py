"""What the signal chain has to know about a model's tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
