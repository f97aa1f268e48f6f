"""Layers forwards and backwards, by hand, of operators that TFLite has: TensorFlow's own gradients need more.

Convolutions are unfolded: every position's window side by side, times one matrix. :func:`read_steps` makes these layers
of Keras's, and refuses all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from edged.base.errors import ModelError
from edged.federated.export.gradients import BiasGradient, Gradient, MatrixGradient, Tensor

_ACTIVATIONS = ("relu", "tanh", "sigmoid", "softmax")
_KNOWN = "Dense, Conv1D, Flatten, Reshape, GlobalAveragePooling1D, AveragePooling1D, MaxPooling1D, Activation, ReLU"


class Step(Protocol):
    """One layer. What it saw going forwards it is handed going backwards.

    :ivar weights: how many weights it has.
    """

    weights: int

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Return what comes out."""

    def backward(
        self, x: Tensor, out: Tensor, back: Tensor, weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Gradient]]:
        """Return what to pass back to the layer before, and the gradient of each weight.

        :param x: what came in.
        :param out: what came out.
        :param back: the loss's derivative with respect to that.
        """


class Dense:
    """``x @ kernel + bias`` along the last axis."""

    def __init__(self, *, bias: bool) -> None:
        self.weights = 1 + bias

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """See :class:`Step`."""
        kernel = weights[0]
        rows = tf.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel)
        return tf.reshape(rows + weights[1] if self.weights > 1 else rows, [*x.shape[:-1], kernel.shape[1]])

    def backward(
        self, x: Tensor, _out: Tensor, back: Tensor, weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Gradient]]:
        """See :class:`Step`."""
        kernel = weights[0]
        rows = tf.reshape(back, [x.shape[0], -1, kernel.shape[1]])
        came = tf.reshape(x, [x.shape[0], -1, kernel.shape[0]])
        parts: list[Gradient] = [MatrixGradient(came, rows, tuple(kernel.shape)), BiasGradient(rows)]
        passed = tf.matmul(tf.reshape(back, [-1, kernel.shape[1]]), kernel, transpose_b=True)
        return tf.reshape(passed, x.shape), parts[: self.weights]


class Conv1D:
    """A convolution along time: [batch, time, channels]."""

    def __init__(self, taps: int, stride: int, spread: int, padding: str, *, bias: bool) -> None:
        self.weights = 1 + bias
        self._taps, self._stride, self._spread, self._padding = taps, stride, spread, padding

    def _geometry(self, time: int) -> tuple[int, int, int]:
        """Return how many zeros stand before, how many after, and how many positions there are, as TensorFlow does."""
        extent = (self._taps - 1) * self._spread + 1
        if self._padding == "causal":
            before, after = extent - 1, 0
        elif self._padding == "same":
            missing = max((-(-time // self._stride) - 1) * self._stride + extent - time, 0)
            before, after = missing // 2, missing - missing // 2
        else:
            before = after = 0
        return before, after, (before + time + after - extent) // self._stride + 1

    def _unfold(self, x: Tensor) -> Tensor:
        """Return every position's window: [batch, positions, taps * channels]."""
        before, after, count = self._geometry(x.shape[1])
        padded = tf.pad(x, [[0, 0], [before, after], [0, 0]]) if before + after else x
        last = (count - 1) * self._stride + 1
        starts = range(0, self._taps * self._spread, self._spread)
        return tf.concat([padded[:, start : start + last : self._stride, :] for start in starts], axis=2)

    def _fold(self, windows: Tensor, time: int) -> Tensor:
        """Return what :meth:`_unfold` would be passed back: each window added where it was taken from."""
        before, after, count = self._geometry(time)
        whole = before + time + after
        channels = windows.shape[2] // self._taps
        folded: Tensor = 0.0
        for tap in range(self._taps):
            each = windows[:, :, tap * channels : (tap + 1) * channels]
            if self._stride > 1:  # zeros between the positions
                each = tf.reshape(each, [each.shape[0], count, 1, channels])
                each = tf.pad(each, [[0, 0], [0, 0], [0, self._stride - 1], [0, 0]])
                each = tf.reshape(each, [each.shape[0], count * self._stride, channels])
                each = each[:, : (count - 1) * self._stride + 1, :]
            start = tap * self._spread
            folded += tf.pad(each, [[0, 0], [start, whole - start - each.shape[1]], [0, 0]])
        return folded[:, before : before + time, :]

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """See :class:`Step`."""
        windows = self._unfold(x)
        kernel = tf.reshape(weights[0], [windows.shape[2], -1])
        rows = tf.matmul(tf.reshape(windows, [-1, windows.shape[2]]), kernel)
        return tf.reshape(rows + weights[1] if self.weights > 1 else rows, [*windows.shape[:2], kernel.shape[1]])

    def backward(
        self, x: Tensor, _out: Tensor, back: Tensor, weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Gradient]]:
        """See :class:`Step`."""
        windows = self._unfold(x)
        kernel = tf.reshape(weights[0], [windows.shape[2], -1])
        parts: list[Gradient] = [MatrixGradient(windows, back, tuple(weights[0].shape)), BiasGradient(back)]
        passed = tf.matmul(tf.reshape(back, [-1, kernel.shape[1]]), kernel, transpose_b=True)
        return self._fold(tf.reshape(passed, windows.shape), x.shape[1]), parts[: self.weights]


class Reshape:
    """The same numbers in another shape."""

    weights = 0

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = list(shape)

    def forward(self, x: Tensor, _weights: Sequence[Tensor]) -> Tensor:
        """See :class:`Step`."""
        return tf.reshape(x, [x.shape[0], *self._shape])

    def backward(
        self, x: Tensor, _out: Tensor, back: Tensor, _weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Gradient]]:
        """See :class:`Step`."""
        return tf.reshape(back, x.shape), []


class Mean:
    """The mean over time, of all of it."""

    weights = 0

    def forward(self, x: Tensor, _weights: Sequence[Tensor]) -> Tensor:
        """See :class:`Step`."""
        return tf.reduce_mean(x, axis=1)

    def backward(
        self, x: Tensor, _out: Tensor, back: Tensor, _weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Gradient]]:
        """See :class:`Step`."""
        return tf.expand_dims(back, 1) / float(x.shape[1]) + tf.zeros_like(x), []


class Pool:
    """The mean or the largest of every so many moments, which do not overlap; what is left at the end is dropped."""

    weights = 0

    def __init__(self, size: int, *, largest: bool) -> None:
        self._size, self._largest = size, largest

    def _groups(self, x: Tensor) -> Tensor:
        count = x.shape[1] // self._size
        return tf.reshape(x[:, : count * self._size, :], [x.shape[0], count, self._size, x.shape[2]])

    def forward(self, x: Tensor, _weights: Sequence[Tensor]) -> Tensor:
        """See :class:`Step`."""
        return (tf.reduce_max if self._largest else tf.reduce_mean)(self._groups(x), axis=2)

    def backward(
        self, x: Tensor, out: Tensor, back: Tensor, _weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Gradient]]:
        """See :class:`Step`. Where several are the largest, they share."""
        groups = self._groups(x)
        share = tf.ones_like(groups)
        if self._largest:
            share = tf.where(groups >= tf.expand_dims(out, 2), share, 0.0)
        passed = share / tf.reduce_sum(share, axis=2, keepdims=True) * tf.expand_dims(back, 2)
        passed = tf.reshape(passed, [x.shape[0], -1, x.shape[2]])
        return tf.pad(passed, [[0, 0], [0, x.shape[1] - passed.shape[1]], [0, 0]]), []


class Activation:
    """A function of each number by itself."""

    weights = 0

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, x: Tensor, _weights: Sequence[Tensor]) -> Tensor:
        """See :class:`Step`."""
        return {"relu": tf.nn.relu, "tanh": tf.tanh, "sigmoid": tf.sigmoid, "softmax": tf.nn.softmax}[self.name](x)

    def backward(
        self, x: Tensor, out: Tensor, back: Tensor, _weights: Sequence[Tensor]
    ) -> tuple[Tensor, list[Gradient]]:
        """See :class:`Step`."""
        if self.name == "relu":  # TensorFlow's own, ReluGrad, is no builtin operator
            return tf.where(x > 0.0, back, 0.0), []
        if self.name == "tanh":
            return back * (1.0 - out * out), []
        if self.name == "sigmoid":
            return back * out * (1.0 - out), []
        return out * (back - tf.reduce_sum(out * back, axis=-1, keepdims=True)), []


def read_steps(model: keras.Sequential) -> list[Step]:
    """Return a model's layers as steps, activations as steps of their own.

    :raises ModelError: a layer or one of its options is not among those that boards can train; the message names it.
    """
    if not isinstance(model, keras.Sequential):
        raise ModelError(
            f"model {model.name!r} is no keras.Sequential: boards train layers that follow one another",
            hint="keras.Sequential(model.layers), where they do",
        )
    return [step for layer in model.layers for step in _steps(layer)]


def _steps(layer: Any) -> list[Step]:  # noqa: ANN401, PLR0911  Keras has no types; a line for each kind of layer
    kind = type(layer)
    if not layer.trainable:
        raise _refusal(layer, "it is frozen (trainable=False), and boards train all layers")
    if kind is keras.layers.Dense:
        if layer.lora_enabled or layer.quantization_mode:
            raise _refusal(layer, "it is quantised or has LoRA enabled")
        return [Dense(bias=layer.use_bias), *_activation(layer)]
    if kind is keras.layers.Conv1D:
        return [_convolution(layer), *_activation(layer)]
    if kind in {keras.layers.Flatten, keras.layers.Reshape}:
        return [Reshape([int(size) for size in layer.output.shape[1:]])]
    if kind is keras.layers.GlobalAveragePooling1D and not layer.keepdims and layer.data_format == "channels_last":
        return [Mean()]
    if kind in {keras.layers.AveragePooling1D, keras.layers.MaxPooling1D}:
        return [_pool(layer)]
    if kind is keras.layers.Activation:
        return _activation(layer)
    if kind is keras.layers.ReLU and layer.max_value is None and not layer.negative_slope and not layer.threshold:
        return [Activation("relu")]
    raise _refusal(layer, f"boards train {_KNOWN}")


def _convolution(layer: Any) -> Step:  # noqa: ANN401  as above
    if layer.groups != 1 or layer.data_format != "channels_last":
        raise _refusal(layer, "groups and channels_first are not supported")
    (taps,), (stride,), (spread,) = layer.kernel_size, layer.strides, layer.dilation_rate
    return Conv1D(taps, stride, spread, layer.padding, bias=layer.use_bias)


def _pool(layer: Any) -> Step:  # noqa: ANN401  as above
    if layer.padding != "valid" or layer.strides != layer.pool_size or layer.data_format != "channels_last":
        raise _refusal(layer, "pools may not overlap or be padded")
    return Pool(layer.pool_size[0], largest=type(layer) is keras.layers.MaxPooling1D)


def _activation(layer: Any) -> list[Step]:  # noqa: ANN401  as above
    name = keras.activations.serialize(layer.activation)
    if name == "linear":
        return []
    if name not in _ACTIVATIONS:
        raise _refusal(layer, f"its activation is {name}, and boards know {', '.join(_ACTIVATIONS)} and linear")
    return [Activation(name)]


def _refusal(layer: Any, why: str) -> ModelError:  # noqa: ANN401  as above
    return ModelError(
        f"layer {layer.name!r} ({type(layer).__name__}) cannot be trained on boards: {why}",
        hint="put another in its place, or fold it into the layer before",
    )
