"""The chain between a window and the model's tensors: features, normalisation, quantisation, activation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.errors import ModelError, ReadingValueError
from edged.signal.features import Extractor
from edged.signal.spec import Chain, Normalise
from edged.signal.tensor import TensorInfo

Floats = npt.NDArray[np.float32]
_LEAST_LOGIT = -80.0  # below, exp(-x) overflows float32
Doubles = npt.NDArray[np.float64]


class CompiledChain:
    """A manifest's chain, fitted to a model's tensors.

    :raises ModelError: it does not fit; the message names the manifest's key and both sizes.
    """

    def __init__(self, chain: Chain, source: TensorInfo, target: TensorInfo) -> None:
        channels = len(chain.input.channels)
        self._extract = None if chain.features is None else Extractor(chain.features.all, chain.window.size)
        values = channels * (chain.window.size if chain.features is None else len(chain.features.use))
        if values != _size(source):
            what = "window.size x input.channels" if chain.features is None else "features.use x input.channels"
            raise ModelError(
                f"{what} gives {values} values, the model's input {source.shape} takes {_size(source)}",
                hint="they are what the model was trained with",
            )
        self.outputs = _size(target)
        wanted = len(chain.output.labels) or 1
        if chain.output.kind == "classifier" and wanted != self.outputs:
            raise ModelError(
                f"output.labels names {wanted} labels, the model's output {target.shape} has {self.outputs}",
                hint="one label for each output, in their order",
            )
        self._normalise = _normalisation(chain.normalise, channels if chain.features is None else values)
        self._source = source
        self._target = target
        self._activate = chain.output.activation

    def prepare(self, window: Floats) -> npt.NDArray[Any]:
        """Return the input tensor for a window float32 [size, channels]."""
        values: npt.NDArray[Any] = window if self._extract is None else self._extract(window)
        if self._normalise is not None:
            subtract, divide = self._normalise
            values = (values - subtract) / divide
        return quantise(values, self._source).reshape(self._source.shape)

    def scores(self, output: npt.NDArray[Any]) -> Floats:
        """Return float32 [k] for the model's output tensor.

        :raises ReadingValueError: the model answers with something that is not finite: no decision may rest on it.
        """
        scores = dequantise(output.reshape(-1), self._target)
        if not math.isfinite(scores.sum()) and not np.isfinite(scores).all():  # the sum is the quick answer
            raise ReadingValueError("the model answers a reading with a value that is not finite")
        if self._activate == "softmax":
            powers = np.exp(scores - scores.max())
            return np.asarray(powers / powers.sum())
        if self._activate == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-np.maximum(scores, _LEAST_LOGIT))))
        return scores


def _size(tensor: TensorInfo) -> int:
    size = 1
    for extent in tensor.shape:
        size *= int(extent)
    return size


def _normalisation(normalise: Normalise, values: int) -> tuple[Doubles, Doubles] | None:
    if normalise.method == "none":
        return None
    first, second = ("mean", "std") if normalise.method == "zscore" else ("min", "max")
    subtract, divide = (_parameter(normalise, name, values) for name in (first, second))
    if normalise.method == "minmax":
        divide = divide - subtract
    if not np.all(divide):
        what = "holds 0" if normalise.method == "zscore" else "equals normalise.min somewhere"
        raise ModelError(f"normalise.{second} {what}: it would divide by 0")
    return subtract, divide


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


def quantise(values: npt.NDArray[Any], tensor: TensorInfo) -> npt.NDArray[Any]:
    """Return ``values`` in the tensor's dtype; integers are round(x / scale) + zero_point, halves to even, clipped.

    Where integers have no scale, it is 1.
    """
    if tensor.dtype.kind not in "iu":
        return values.astype(tensor.dtype, copy=False)
    bounds = np.iinfo(tensor.dtype.name)
    steps = np.rint(values / (tensor.scale or 1.0)) + tensor.zero_point
    return np.asarray(np.clip(steps, bounds.min, bounds.max).astype(tensor.dtype))


def dequantise(values: npt.NDArray[Any], tensor: TensorInfo) -> Floats:
    """Return float32: (q - zero_point) * scale."""
    if not tensor.scale:
        return values.astype(np.float32, copy=False)
    return ((values.astype(np.float32) - tensor.zero_point) * tensor.scale).astype(np.float32)
