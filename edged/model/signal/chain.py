"""The chain between a window and the model's tensors: columns, features, normalisation, quantisation, activation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edged.base.errors import ModelError, ReadingValueError, error_context
from edged.formats.spec import Chain, Tensor
from edged.model.signal.axes import axes_of, fill, find_order, fits
from edged.model.signal.features import Extractor
from edged.model.signal.normalise import compile_normalise
from edged.model.signal.tensor import TensorInfo, clipped, dequantise, quantise

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
_LARGEST = float(np.finfo(np.float32).max)
_LEAST_LOGIT = -80.0  # below, exp(-x) overflows float32


class Prepared(NamedTuple):
    """A window as tensors of the model.

    :ivar tensors: one for each input, in order; zeros for an input that feedback fills.
    :ivar values: the values before quantisation of the first input that the manifest fills.
    """

    tensors: list[Array]
    values: Array


class CompiledChain:
    """A manifest's chain, fitted to a model's tensors.

    :ivar outputs: number of scores.
    :ivar feedback: pairs of an input and the output that fills it the next time, by their numbers.
    :ivar orders: the order of each input's values, by its name in the manifest.
    :raises ModelError: manifest and model do not fit; the message names the manifest's key and both sizes.
    """

    def __init__(self, chain: Chain, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
        self._parts = [_InputFeed(chain, name, inputs[at]) for name, at in _places(chain, inputs).items()]
        self._places = list(_places(chain, inputs).values())
        self._empty: list[Array] = [np.zeros(one.shape, one.dtype) for one in inputs]
        self.feedback = [
            (_named(inputs, goes_in, "input"), _named(outputs, comes_out, "output"))
            for goes_in, comes_out in chain.model.feedback.items()
        ]
        for goes_in, comes_out in self.feedback:
            _check_feedback(inputs[goes_in], outputs[comes_out])
        self._at = _answer(chain, outputs, {comes_out for _, comes_out in self.feedback})
        self._target = outputs[self._at]
        self.orders = {name: part.order for name, part in zip(chain.parts, self._parts, strict=True)}
        self._finish, self.outputs = _finishing(chain, self._target, [inputs[at].shape for at in self._places])

    def prepare(self, window: Floats) -> Prepared:
        """Return the input tensors for a window float32 [rows, channels].

        :raises ReadingShapeError: a window by time holds too few rows.
        """
        tensors = self._empty.copy()
        values: Array = window
        for place, part in zip(reversed(self._places), reversed(self._parts), strict=True):
            values = part(window)
            tensors[place] = part.tensor(values)
        return Prepared(tensors, values)

    def clipped(self, window: Floats) -> float:
        """Return the share of a window's values that lie beyond what an integer input holds."""
        return sum(part.clipped(window) for part in self._parts) / sum(part.values for part in self._parts)

    def scores(self, outputs: Sequence[Array], given: Array) -> Floats:
        """Return float32 [k] for the model's output tensors.

        :param given: :attr:`Prepared.values`.
        :raises ReadingValueError: the model answers with something that is not finite: no decision may rest on it.
        """
        scores = dequantise(outputs[self._at].reshape(-1), self._target)
        if not math.isfinite(np.vdot(scores, scores)) and not np.isfinite(scores).all():  # quick for most answers
            raise ReadingValueError("the model answers a reading with a value that is not finite")
        return scores if self._finish is None else self._finish(scores, given)


class _InputFeed:
    """The values of one input, computed from the window."""

    def __init__(self, chain: Chain, name: str, tensor: TensorInfo) -> None:
        part = chain.parts[name]
        channels = part.channels or chain.input.channels
        self._columns = [chain.input.channels.index(one) for one in part.channels] if part.channels else None
        features = part.features
        with error_context(f"tensors.{name}") if name else nullcontext():
            self._extract = None
            if features is not None:
                self._extract = Extractor(features, len(channels), chain.rows, chain.input.hertz)
            self.values = _values(chain, part)
            normalised = len(channels) if features is None else self.values
            self._normalise = compile_normalise(part.normalise, normalised, rows=features is None)
        self._changes = self._extract is not None or self._normalise is not None
        self._tensor = tensor
        if self.values != _size(tensor.shape):
            raise _misfit(chain, name, part, tensor)
        self.order = find_order(chain, name, tensor.shape)
        self._swap = self.order.layout == "channels_first"

    def __call__(self, window: Floats) -> Array:
        values: Array = window if self._columns is None else window[:, self._columns]
        if self._extract is not None:
            values = self._extract(values)
        if self._normalise is not None:
            values = self._normalise(values)
        return np.ascontiguousarray(values.T) if self._swap else values

    def tensor(self, values: Array) -> Array:
        if self._changes and not np.abs(values).max() <= _LARGEST:
            raise ReadingValueError("features or normalisation of a reading go beyond float32")
        return quantise(values, self._tensor).reshape(self._tensor.shape)

    def clipped(self, window: Floats) -> int:
        """Return how many values are clipped."""
        return clipped(self(window), self._tensor)


def shapes_for(chain: Chain, inputs: Sequence[TensorInfo]) -> list[tuple[int, ...]]:
    """Return the shape that each input has to have: a size that the model leaves open is filled by the window.

    The outermost is the batch and stays 1, unless it is the only one there is. Of several others, where the axes of the
    window are not the input's, the last takes what is left.

    :raises ModelError: the manifest names an input that the model lacks, or leaves one out.
    """
    shapes = [tensor.shape for tensor in inputs]
    for name, at in _places(chain, inputs).items():
        extents = list(inputs[at].extents)
        if min(extents, default=0) >= 0:
            continue
        part = chain.parts[name]
        filled = [fill(axes, extents) for layout, axes in axes_of(chain, part).items() if part.layout in (None, layout)]
        if shape := next(filter(None, filled), None):
            shapes[at] = shape
            continue
        open_ = [number for number, extent in enumerate(extents) if extent < 0]
        known = math.prod(extent for extent in extents if extent >= 0)
        values = _values(chain, part)
        fills = [number for number in open_ if number or len(extents) == 1]
        if fills and known and not values % known:
            for number in open_:
                extents[number] = 1
            extents[fills[-1]] = values // known
            shapes[at] = tuple(extents)
    return shapes


def _places(chain: Chain, inputs: Sequence[TensorInfo]) -> dict[str, int]:
    """Return the number of the input that each part of the manifest fills."""
    free = [number for number, tensor in enumerate(inputs) if tensor.name not in chain.model.feedback]
    if not chain.tensors:
        if len(free) != 1:
            raise ModelError(
                f"tensors: the model has {len(free)} inputs to fill: {_names(inputs)}",
                hint="a table [tensors.NAME] for each",
            )
        return {"": free[0]}
    places = {name: _named(inputs, name, "input", "tensors") for name in chain.tensors}
    if left := [inputs[number].name for number in free if number not in places.values()]:
        raise ModelError(f"tensors.{left[0]}: missing: nothing fills this input of the model")
    return places


def _named(tensors: Sequence[TensorInfo], name: str, what: str, key: str = "model.feedback") -> int:
    for number, tensor in enumerate(tensors):
        if tensor.name == name:
            return number
    raise ModelError(f"{key}: the model has no {what} {name!r}", hint=f"it has {_names(tensors)}")


def _names(tensors: Sequence[TensorInfo]) -> str:
    return ", ".join(repr(tensor.name) for tensor in tensors) or "none"


def _check_feedback(goes_in: TensorInfo, comes_out: TensorInfo) -> None:
    same = (goes_in.shape, goes_in.dtype, goes_in.scale, goes_in.zero_point)
    if same != (comes_out.shape, comes_out.dtype, comes_out.scale, comes_out.zero_point):
        raise ModelError(
            f"model.feedback: {comes_out.name!r} {comes_out.shape} {comes_out.dtype} does not fit into"
            f" {goes_in.name!r} {goes_in.shape} {goes_in.dtype}"
        )


def _answer(chain: Chain, outputs: Sequence[TensorInfo], taken: set[int]) -> int:
    if chain.model.output is not None:
        return _named(outputs, chain.model.output, "output", "model.output")
    free = [number for number in range(len(outputs)) if number not in taken]
    if len(free) != 1:
        raise ModelError(f"model.output: wanted: the model has {len(free)} outputs", hint=f"of {_names(outputs)}")
    return free[0]


def _values(chain: Chain, part: Tensor) -> int:
    """Return the number of values that an input gets from a window."""
    channels = len(part.channels or chain.input.channels)
    return channels * (part.features.values if part.features is not None else chain.rows or 0)


def _misfit(chain: Chain, name: str, part: Tensor, tensor: TensorInfo) -> ModelError:
    window = "input.image" if chain.input.image is not None else "window.size"
    key = "input.channels" if not part.channels else "channels"
    what = f"{window} x {key}" if part.features is None else f"features.use x {key}"
    where = f"tensors.{name}: " if name else ""
    return ModelError(
        f"{where}{what} gives {_values(chain, part)} values, the model's input {tensor.shape} takes"
        f" {_size(tensor.shape)}",
        hint="they are what the model was trained with",
    )


def _size(shape: Sequence[int]) -> int:
    return math.prod(int(extent) for extent in shape)


_Finish = Callable[[Floats, Array], Floats]


def _finishing(chain: Chain, target: TensorInfo, given: Sequence[tuple[int, ...]]) -> tuple[_Finish | None, int]:
    """Return the function that turns the output's numbers into scores, and the number of scores."""
    output, size = chain.output, _size(target.shape)
    if output.kind == "anomaly":
        values = sum(map(_size, given))
        if len(given) != 1 or not fits(given[0], target.shape):
            raise ModelError(
                f"output.kind: an anomaly detector gives back its input of {values} values, this output {target.shape}"
                f" has {size}",
                hint=f"in the order of its one input: {', '.join(map(str, given))}",
            )
        return (_mean_absolute if output.error == "mae" else _mean_squared), 1
    if output.kind == "regressor":
        if (output.scale, output.offset) == (1.0, 0.0):
            return None, size
        scale, offset = np.float32(output.scale), np.float32(output.offset)
        return lambda scores, _: scores * scale + offset, size
    if len(output.labels) != size:
        raise ModelError(
            f"output.labels names {len(output.labels)} labels, the model's output {target.shape} has {size}",
            hint="one label for each output, in their order",
        )
    return {"none": None, "softmax": _softmax, "sigmoid": _sigmoid}[output.activation], size


def _softmax(scores: Floats, _: Array) -> Floats:
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def _sigmoid(scores: Floats, _: Array) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.maximum(scores, _LEAST_LOGIT))))


def _mean_absolute(scores: Floats, given: Array) -> Floats:
    return np.asarray(np.abs(scores - given.reshape(-1)).mean(keepdims=True), np.float32)


def _mean_squared(scores: Floats, given: Array) -> Floats:
    return np.asarray(np.square(scores - given.reshape(-1)).mean(keepdims=True), np.float32)
