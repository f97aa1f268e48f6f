"""Features: each turns a window into one value a channel. Adding one is one function here and one test.

A function gets a block of float64 [channels, rows]: each channel lies in one piece, which sums faster and more exactly.
The definitions are those of NumPy and pandas where they have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edged.errors import ConfigError
from edged.signal.spec import Feature

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


class _Block:
    """A window, and what several features need of it: worked out once, when the first one asks.

    :ivar values: float64 [channels, rows].
    :ivar rows: how many.
    """

    def __init__(self, window: Floats) -> None:
        self.values: Doubles = np.ascontiguousarray(window.T, np.float64)
        self.rows = len(window)

    @cached_property
    def mean(self) -> Doubles:
        """Arithmetic mean of each channel; exact for a constant one, because float32 sums without loss in float64."""
        return np.add.reduce(self.values, axis=1) / self.rows  # type: ignore[no-any-return]

    @cached_property
    def squares(self) -> Doubles:
        """Squared distance of each value from its channel's mean."""
        centred = self.values - self.mean[:, np.newaxis]
        return np.multiply(centred, centred, out=centred)

    @cached_property
    def square_sum(self) -> Doubles:
        """Sum of :attr:`squares` of each channel."""
        return np.add.reduce(self.squares, axis=1)  # type: ignore[no-any-return]


_Function = Callable[[_Block, Feature], Doubles]
_REGISTRY: dict[str, _Function] = {}


def _feature(function: _Function) -> _Function:
    _REGISTRY[function.__name__] = function
    return function


@_feature
def sum_abs(block: _Block, _: Feature) -> Doubles:
    """Sum of absolute values."""
    return np.add.reduce(np.abs(block.values), axis=1)  # type: ignore[no-any-return]


@_feature
def mean(block: _Block, _: Feature) -> Doubles:
    """Arithmetic mean."""
    return block.mean


@_feature
def std(block: _Block, parameters: Feature) -> Doubles:
    """Take the standard deviation with divisor n - ddof, as ``numpy.std``."""
    return np.sqrt(block.square_sum / (block.rows - parameters.ddof))  # type: ignore[no-any-return]


@_feature
def rms(block: _Block, _: Feature) -> Doubles:
    """Root of the mean square."""
    return np.sqrt(np.einsum("ij,ij->i", block.values, block.values) / block.rows)  # type: ignore[no-any-return]


@_feature
def min(block: _Block, _: Feature) -> Doubles:  # noqa: A001  the manifest's name
    """Smallest value."""
    return np.minimum.reduce(block.values, axis=1)  # type: ignore[no-any-return]


@_feature
def max(block: _Block, _: Feature) -> Doubles:  # noqa: A001  the manifest's name
    """Largest value."""
    return np.maximum.reduce(block.values, axis=1)  # type: ignore[no-any-return]


@_feature
def kurtosis(block: _Block, parameters: Feature) -> Doubles:
    """Excess kurtosis; ``bias = false`` is the unbiased G2, as pandas' ``kurt``. A constant channel has 0."""
    rows, second = block.rows, block.square_sum
    varies = second > 0
    fourth = np.einsum("ij,ij->i", block.squares, block.squares)
    ratio = fourth / np.where(varies, second * second, 1.0)
    if parameters.bias:
        excess = rows * ratio - 3
    else:
        scale = rows * (rows + 1) * (rows - 1) / ((rows - 2) * (rows - 3))
        excess = scale * ratio - 3 * (rows - 1) ** 2 / ((rows - 2) * (rows - 3))
    return np.where(varies, excess, 0.0)


def _least_rows(feature: Feature) -> int:
    return 4 if feature.name == "kurtosis" else 1 + feature.ddof


class Extractor:
    """The features of a manifest, by feature and then by channel.

    :raises ConfigError: the window is too short for one of them.
    """

    def __init__(self, features: Sequence[Feature], rows: int) -> None:
        for feature in features:
            if rows < (least := _least_rows(feature)):
                raise ConfigError(f"features.use: {feature.name} needs {least} rows, window.size is {rows}")
        self._features = [(_REGISTRY[feature.name], feature) for feature in features]

    def __call__(self, window: Floats) -> Doubles:
        """Return float64 [features * channels] for a window float32 [rows, channels]."""
        block = _Block(window)
        return np.concatenate([function(block, parameters) for function, parameters in self._features])
