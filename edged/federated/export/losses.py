"""What a model is wrong by, for each example, and how that changes with what comes out of it. As Keras defines them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

from edged.federated.export.parts import Tensor


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
