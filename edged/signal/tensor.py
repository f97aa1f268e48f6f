"""What the signal chain has to know about a model's tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a model.

    A quantised tensor holds integers ``q`` that stand for ``scale * (q - zero_point)``.

    :ivar name: as the model names it, for messages only.
    :ivar shape: sizes, the batch first where there is one; empty for a scalar.
    :ivar dtype: of the tensor's elements.
    :ivar scale: 0.0 where the tensor is not quantised.
    :ivar zero_point: the integer that stands for zero.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    scale: float = 0.0
    zero_point: int = 0
