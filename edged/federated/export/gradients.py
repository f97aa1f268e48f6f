"""The losses, and the gradient of one weight, example by example.

Gradients are not held for all examples at once where that can be avoided.

A dense layer's gradient for one example is the outer product of what came in and what is passed back, summed over the
positions where the layer was applied (one for a plain dense layer, many for a convolution). Of one position its norm is
the product of the factors' norms, and clipping scales one of them (Goodfellow, "Efficient per-example gradient
computations", 2015).

That no example counts for more than the clip must hold for any numbers. So norms are reckoned without overflow and
underflow, and what a sum over positions came to is clipped itself, not summed up anew: where positions cancel each
other out, all that is left is rounding, and it is another one each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

Tensor = Any
"""TensorFlow has no types."""

LARGEST = np.finfo(np.float32).max
_SMALLEST = np.finfo(np.float32).tiny


class Gradient(Protocol):
    """The gradient of one weight."""

    def norms(self) -> Tensor:
        """Return each example's: [batch], :data:`LARGEST` where it is not finite."""

    def plain(self, keep: Tensor) -> Tensor:
        """Return the sum over the examples in ``keep``."""

    def scaled(self, keep: Tensor, scale: Tensor) -> Tensor:
        """Return the sum over the examples in ``keep``, each times its ``scale``: [batch]."""


class MatrixGradient:
    """The gradient of a matrix.

    :param came: what came in: [batch, positions, in].
    :param back: what is passed back: [batch, positions, out].
    :param shape: that the weight has.
    """

    def __init__(self, came: Tensor, back: Tensor, shape: tuple[int, ...]) -> None:
        self._came, self._back, self._shape = came, back, shape

    @cached_property
    def _each(self) -> Tensor:
        return tf.matmul(self._came, self._back, transpose_a=True)

    def norms(self) -> Tensor:
        """See :class:`Gradient`."""
        if self._came.shape[1] == 1:
            came, back = norms(self._came), norms(self._back)
            # Infinite times zero is not zero.
            return tf.where(tf.maximum(came, back) < LARGEST, came * back, LARGEST)
        return norms(self._each)

    def plain(self, keep: Tensor) -> Tensor:
        """See :class:`Gradient`."""
        return self._product(kept(self._came, keep), kept(self._back, keep))

    def scaled(self, keep: Tensor, scale: Tensor) -> Tensor:
        """See :class:`Gradient`."""
        if self._came.shape[1] == 1:
            return self._product(kept(self._came, keep), _times(kept(self._back, keep), scale))
        return tf.reshape(tf.reduce_sum(_times(kept(self._each, keep), scale), axis=0), self._shape)

    def _product(self, came: Tensor, back: Tensor) -> Tensor:
        rows, columns = (tf.reshape(factor, [-1, factor.shape[2]]) for factor in (came, back))
        return tf.reshape(tf.matmul(rows, columns, transpose_a=True), self._shape)


class BiasGradient:
    """The gradient of a bias.

    :param back: what is passed back: [batch, positions, out].
    """

    def __init__(self, back: Tensor) -> None:
        self._each = tf.reduce_sum(back, axis=1)

    def norms(self) -> Tensor:
        """See :class:`Gradient`."""
        return norms(self._each)

    def plain(self, keep: Tensor) -> Tensor:
        """See :class:`Gradient`."""
        return tf.reduce_sum(kept(self._each, keep), axis=0)

    def scaled(self, keep: Tensor, scale: Tensor) -> Tensor:
        """See :class:`Gradient`."""
        return tf.reduce_sum(_times(kept(self._each, keep), scale), axis=0)


def norms(tensor: Tensor) -> Tensor:
    """Return the L2 norm of each example: [batch], :data:`LARGEST` where it is not finite.

    Whether it is finite is told before the root is taken: XNNPACK's of infinity is a number.
    """
    flat = tf.reshape(tensor, [tensor.shape[0], -1])
    largest = tf.reduce_max(tf.abs(flat), axis=1)
    squares = tf.reduce_sum(tf.square(flat / per_example(tf.maximum(largest, _SMALLEST), flat)), axis=1)
    length = tf.maximum(largest, _SMALLEST) * tf.sqrt(squares)
    return tf.where(tf.logical_and(squares <= LARGEST, length <= LARGEST), length, LARGEST)


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Return [batch] as [batch, 1, ...], to go with ``like``."""
    return tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))


def kept(tensor: Tensor, keep: Tensor) -> Tensor:
    """Return zeros for the examples that are not in ``keep``: a product with zero would leave NaN what is NaN."""
    return tf.where(per_example(keep, tensor), tensor, 0.0)


def _times(tensor: Tensor, scale: Tensor) -> Tensor:
    return tensor * per_example(scale, tensor)


class Loss(NamedTuple):
    """A loss.

    :ivar closing: the activation that it takes back from the model's end, where the model ends so: together their
        derivative is simple, and exact where each by itself is not.
    :ivar value: (out, wanted) -> the loss of each example: [batch].
    :ivar slope: (out, wanted) -> its derivative with respect to ``out``.
    :ivar keras: the same, by Keras: (out, wanted) -> [batch].
    """

    closing: str | None
    value: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    keras: Callable[[Tensor, Tensor], Tensor]


def _over(tensor: Tensor) -> list[int]:
    return list(range(1, len(tensor.shape)))


def _count(tensor: Tensor) -> float:
    return float(tensor.shape[1:].num_elements())


def _cross_entropy(out: Tensor, wanted: Tensor) -> Tensor:
    return -tf.reduce_sum(wanted * tf.nn.log_softmax(out), axis=_over(out))


def _cross_entropy_slope(out: Tensor, wanted: Tensor) -> Tensor:
    return tf.nn.softmax(out) * tf.reduce_sum(wanted, axis=-1, keepdims=True) - wanted


def _binary(out: Tensor, wanted: Tensor) -> Tensor:
    each = tf.maximum(out, 0.0) - out * wanted + tf.math.log(1.0 + tf.exp(-tf.abs(out)))
    return tf.reduce_sum(each, axis=_over(out)) / _count(out)


def _binary_slope(out: Tensor, wanted: Tensor) -> Tensor:
    return (tf.sigmoid(out) - wanted) / _count(out)


def _squared(out: Tensor, wanted: Tensor) -> Tensor:
    return tf.reduce_sum(tf.square(out - wanted), axis=_over(out)) / _count(out)


def _squared_slope(out: Tensor, wanted: Tensor) -> Tensor:
    return 2.0 / _count(out) * (out - wanted)


def _mean(each: Tensor) -> Tensor:
    return tf.reduce_mean(tf.reshape(each, [each.shape[0], -1]), axis=1)


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": Loss(
        "softmax",
        _cross_entropy,
        _cross_entropy_slope,
        lambda out, wanted: keras.losses.categorical_crossentropy(wanted, out, from_logits=True),
    ),
    "binary_cross_entropy": Loss(
        "sigmoid",
        _binary,
        _binary_slope,
        lambda out, wanted: _mean(keras.losses.binary_crossentropy(wanted, out, from_logits=True)),
    ),
    "mean_squared_error": Loss(
        None, _squared, _squared_slope, lambda out, wanted: _mean(keras.losses.mean_squared_error(wanted, out))
    ),
}
"""By name: classes that exclude one another, yes or no for each output, and numbers (autoencoders: y is x)."""
