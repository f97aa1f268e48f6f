"""``[normalise]``: values less an origin, divided by a span."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.base.errors import ModelError
from edged.formats.spec import Normalise

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
_LARGEST = 1e30  # float32 less such a number is no infinity yet


def compile_normalise(normalise: Normalise, values: int, *, rows: bool) -> Callable[[Array], Array] | None:
    """Return the function that normalises a window or a feature vector; None for method ``none``.

    What comes out differs from what float64 gives by less than 3e-7 of itself (or 1e-38): it is float32 only where
    nothing is lost before the division.

    :param values: how many numbers the manifest may give: one for each channel, or for each feature in order.
    :param rows: it is given windows float32 [n, values], else feature vectors float64 [values].
    :raises ModelError: the numbers are not one or ``values`` many, are not finite, or would divide by 0.
    """
    if normalise.method == "none":
        return None
    if normalise.by == "given":
        return _by_given(normalise, values, rows=rows)
    if normalise.by == "channel" and not rows:
        raise ModelError(
            "normalise.by: 'channel' takes each channel of a window, and here features are normalised",
            hint="'whole', or 'given' with a number for each value",
        )
    axis = 0 if normalise.by == "channel" else None
    own = _own_zscore if normalise.method == "zscore" else _own_minmax
    return lambda window: own(window, axis)


def _by_given(normalise: Normalise, values: int, *, rows: bool) -> Callable[[Array], Array]:
    first, second = ("mean", "std") if normalise.method == "zscore" else ("min", "max")
    subtract, divide = (_parameter(normalise, name, values) for name in (first, second))
    if normalise.method == "minmax":
        divide = divide - subtract
    if not np.all(divide):
        what = "holds 0" if normalise.method == "zscore" else "equals normalise.min somewhere"
        raise ModelError(f"normalise.{second} {what}: it would divide by 0")
    if rows and _fits_float32(subtract, divide):
        origin, span = subtract.astype(np.float32), divide.astype(np.float32)
        return lambda window: (window - origin) / span
    return lambda window: (window - subtract) / divide


def _parameter(normalise: Normalise, name: str, values: int) -> Doubles:
    given: Doubles = np.asarray(getattr(normalise, name), np.float64)
    if given.ndim and len(given) != values:
        raise ModelError(
            f"normalise.{name} holds {len(given)} numbers, and {values} values are normalised",
            hint="one number for all of them, or one for each: of the features in their order, or else of the channels",
        )
    if not np.isfinite(given).all():
        raise ModelError(f"normalise.{name} holds a number that is not finite")
    return np.atleast_1d(given)  # numpy 1 would work in float32 with a float64 scalar


def _fits_float32(subtract: Doubles, divide: Doubles) -> bool:
    """Return True if float32 suffices: it holds the origin exactly, so that no offset magnifies its rounding."""
    smallest, sizes = np.finfo(np.float32).tiny, np.abs(divide)
    if np.abs(subtract).max() > _LARGEST or sizes.max() > _LARGEST or sizes.min() < smallest:
        return False
    return bool((subtract.astype(np.float32) == subtract).all())


def _own_zscore(values: Array, axis: int | None) -> Array:
    """Take the mean off and divide by the standard deviation (ddof 0); what does not vary becomes 0.

    The first value goes off before: what does not vary is then 0 exactly, whatever its mean is rounded to.
    """
    first = values[0] if axis == 0 else values.reshape(-1)[:1]
    shifted = np.subtract(values, first, dtype=np.float64)
    count = len(values) if axis == 0 else values.size
    shifted -= np.add.reduce(shifted, axis=axis) / count
    deviation = np.sqrt(np.add.reduce(np.square(shifted), axis=axis) / count)
    shifted /= np.where(deviation > 0, deviation, 1.0)
    return shifted


def _own_minmax(values: Array, axis: int | None) -> Array:
    """Bring the values from their lowest to their highest to 0 to 1; what does not vary becomes 0."""
    lowest = np.minimum.reduce(values, axis=axis)
    span = np.subtract(np.maximum.reduce(values, axis=axis), lowest, dtype=np.float64)
    raised = np.subtract(values, lowest, dtype=np.float64)
    raised /= np.where(span > 0, span, 1.0)
    return raised
