"""What a feature is given: a window, and what several features need of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edged.formats.spec import Feature

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


class Block:
    """A window, each channel in one piece, which sums faster and more exactly.

    What several features need is worked out once, when the first one asks; float64 [channels] where nothing else is
    stated.

    :ivar values: float64 [channels, rows].
    :ivar rows: how many, at least 1.
    :ivar rate: rows a second; NaN where the manifest states none.
    """

    def __init__(self, window: Floats, rate: float) -> None:
        self.values: Doubles = np.ascontiguousarray(window.T, np.float64)
        self.rows = len(window)
        self.rate = rate

    @cached_property
    def absolute(self) -> Doubles:
        """Absolute values [channels, rows]."""
        return np.abs(self.values)

    @cached_property
    def lowest(self) -> Doubles:
        """Smallest value."""
        lowest: Doubles = np.minimum.reduce(self.values, axis=1)
        return lowest

    @cached_property
    def highest(self) -> Doubles:
        """Largest value."""
        highest: Doubles = np.maximum.reduce(self.values, axis=1)
        return highest

    @cached_property
    def mean(self) -> Doubles:
        """Arithmetic mean; exact for a constant channel, because float32 sums without loss in float64."""
        return row_sums(self.values) / self.rows

    @cached_property
    def root_mean_square(self) -> Doubles:
        """Root of the mean square."""
        root: Doubles = np.sqrt(row_products(self.values, self.values) / self.rows)
        return root

    @cached_property
    def centred(self) -> Doubles:
        """Values without their channel's mean [channels, rows]; exactly 0 in a constant channel."""
        return self.values - self.mean[:, np.newaxis]

    @cached_property
    def squares(self) -> Doubles:
        """Squares of :attr:`centred` [channels, rows]."""
        return np.square(self.centred)

    @cached_property
    def square_sum(self) -> Doubles:
        """Sum of :attr:`squares`; exactly 0 in a constant channel."""
        return row_sums(self.squares)


def row_sums(values: Doubles) -> Doubles:
    """Return the sum of each channel, for float64 [channels, n]."""
    sums: Doubles = np.add.reduce(values, axis=1)
    return sums


def row_products(one: Doubles, other: Doubles) -> Doubles:
    """Return the scalar product of each channel of two blocks, both float64 [channels, n]."""
    products: Doubles = np.einsum("ij,ij->i", one, other)
    return products


Function = Callable[[Block, Feature], Doubles]
"""Gives float64 [channels] for a window and the manifest's parameters; or [values, channels], if several a channel."""

REGISTRY: dict[str, Function] = {}
"""Every feature, by the name that the manifest uses."""


def feature(function: Function) -> Function:
    """Make a function a feature, under its own name."""
    REGISTRY[function.__name__] = function
    return function
