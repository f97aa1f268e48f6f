"""Features: each turns a window into one value a channel. Adding one is one function here and one test.

A function gets float64 [channels, rows]: each channel lies in one piece, which sums faster and more exactly. The
definitions are those of NumPy and pandas where they have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edged.errors import ConfigError
from edged.signal.spec import Feature

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

_Function = Callable[[Doubles, Feature], Doubles]
_REGISTRY: dict[str, _Function] = {}


def _feature(function: _Function) -> _Function:
    _REGISTRY[function.__name__] = function
    return function


@_feature
def sum_abs(window: Doubles, _: Feature) -> Doubles:
    """Sum of absolute values."""
    return np.abs(window).sum(axis=1)  # type: ignore[no-any-return]


@_feature
def mean(window: Doubles, _: Feature) -> Doubles:
    """Arithmetic mean."""
    return window.mean(axis=1)  # type: ignore[no-any-return]


@_feature
def std(window: Doubles, parameters: Feature) -> Doubles:
    """Take the standard deviation with divisor n - ddof, as ``numpy.std``."""
    centred = _centred(window)
    squares = np.einsum("ij,ij->i", centred, centred)
    return np.sqrt(squares / (window.shape[1] - parameters.ddof))  # type: ignore[no-any-return]


@_feature
def rms(window: Doubles, _: Feature) -> Doubles:
    """Root of the mean square."""
    return np.sqrt(np.square(window).mean(axis=1))  # type: ignore[no-any-return]


@_feature
def min(window: Doubles, _: Feature) -> Doubles:  # noqa: A001  the manifest's name
    """Smallest value."""
    return window.min(axis=1)  # type: ignore[no-any-return]


@_feature
def max(window: Doubles, _: Feature) -> Doubles:  # noqa: A001  the manifest's name
    """Largest value."""
    return window.max(axis=1)  # type: ignore[no-any-return]


@_feature
def kurtosis(window: Doubles, parameters: Feature) -> Doubles:
    """Excess kurtosis; ``bias = false`` is the unbiased G2, as pandas' ``kurt``. A constant channel has 0."""
    rows = window.shape[1]
    squares = np.square(_centred(window))
    second = squares.sum(axis=1)
    fourth = np.einsum("ij,ij->i", squares, squares)
    ratio = fourth / np.where(second > 0, np.square(second), 1.0)
    if parameters.bias:
        excess = rows * ratio - 3
    else:
        scale = rows * (rows + 1) * (rows - 1) / ((rows - 2) * (rows - 3))
        excess = scale * ratio - 3 * (rows - 1) ** 2 / ((rows - 2) * (rows - 3))
    return np.where(second > 0, excess, 0.0)


def _centred(window: Doubles) -> Doubles:
    return window - window.mean(axis=1, keepdims=True)  # type: ignore[no-any-return]


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
        doubles = np.ascontiguousarray(window.T, np.float64)
        return np.concatenate([function(doubles, parameters) for function, parameters in self._features])
