"""Randomness that privacy rests on: every bit from the system's generator, none from a plan or a seed.

Whoever could foresee the noise, or who is in a sample, would subtract the one and know the other. So neither comes of a
generator whose state could be worked out from what it gave: there are only a few thousand weights a step to draw for.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from edged.federated.weights import Shape, Weights

_SUMMED = 4
"""Normal numbers that make one: which floats a single one can be would tell what it was added to (Mironov, "On
significance of the least significant bits for differential privacy", 2012; Holohan and Braghin, "Secure random sampling
in differential privacy", 2021)."""


def uniform(count: int) -> npt.NDArray[np.float64]:
    """Return numbers from (0, 1], each a multiple of 2^-53."""
    drawn = np.frombuffer(os.urandom(8 * count), "<u8") >> np.uint64(11)
    numbers: npt.NDArray[np.float64] = (drawn.astype(np.float64) + 1.0) * 2.0**-53
    return numbers


def normal(count: int) -> npt.NDArray[np.float64]:
    """Return independent numbers of the standard normal distribution (Box and Muller, 1958; four summed for each)."""
    radius = np.sqrt(-2.0 * np.log(uniform(_SUMMED * count)))
    angle = 2.0 * np.pi * uniform(_SUMMED * count)
    normals: npt.NDArray[np.float64] = (radius * np.cos(angle)).reshape(_SUMMED, count).sum(axis=0) / np.sqrt(_SUMMED)
    return normals


def noisy(weights: Weights, deviation: float) -> Weights:
    """Return them with noise of this standard deviation in every coordinate, independent of all other noise."""
    return [(each + deviation * _shaped(each.shape)).astype(np.float32) for each in weights]


def _shaped(shape: Shape) -> npt.NDArray[np.float64]:
    return normal(int(np.prod(shape, dtype=np.int64))).reshape(shape)


def sample(examples: int, chance: float) -> npt.NDArray[np.intp]:
    """Return which of so many examples are in: each with this chance, independently (Poisson sampling)."""
    return np.flatnonzero(uniform(examples) <= chance)
