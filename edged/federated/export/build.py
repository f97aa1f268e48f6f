"""Keras model in, .tflite out, compared with TensorFlow's own gradients before it is let out of hand."""

from __future__ import annotations

import tempfile
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edged.base.errors import ModelError, UsageError
from edged.federated.export.losses import LOSSES, Loss
from edged.federated.export.network import Network
from edged.federated.export.read import read_steps
from edged.federated.rewrite import rewritten
from edged.federated.trainer import Trainer
from edged.federated.weights import Weights
from edged.model.runtime import choose

_TOLERANCE = 1e-4
"""How far a gradient may lie from TensorFlow's own, relative to its largest number."""


def export(model: keras.Sequential, *, loss: str, batch: int = 16) -> bytes:
    """Return a .tflite with the signatures of docs/training.md and the model's weights to begin with.

    :param model: a chain of Dense, Conv1D and what goes with them, built: its input's shape is known.
    :param loss: one of :data:`~edged.federated.export.losses.LOSSES`.
    :param batch: examples of one call that trains; a board's plan may take more or fewer for a step.
    :raises UsageError: there is no such loss.
    :raises ModelError: a layer cannot be trained on boards, or what came out computes other gradients than TensorFlow.
    """
    if loss not in LOSSES:
        raise UsageError(f"loss {loss!r} is not known", hint=f"one of {', '.join(LOSSES)}")
    steps = read_steps(model)
    if not model.built or not model.weights:
        raise ModelError(f"model {model.name!r} has no weights yet", hint="begin it with keras.layers.Input(...)")
    weights: Weights = [np.asarray(value, np.float32) for value in model.get_weights()]
    # Not the real ones at first: of weights that are equal (biases of zeros) the converter would keep one for all.
    rng = np.random.default_rng(0)
    network = Network(
        steps,
        LOSSES[loss],
        [rng.normal(size=each.shape).astype(np.float32) for each in weights],
        [int(size) for size in model.input_shape[1:]],
        batch,
    )
    tflite = rewritten(_convert(network), weights)
    _compare(tflite, model, LOSSES[loss], batch)
    return tflite


def _convert(network: Network) -> bytes:
    signatures = network.signatures()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(network, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.experimental_enable_resource_variables = True
        try:
            converted: bytes = converter.convert()
        except Exception as error:  # the converter has classes of its own, which move
            raise ModelError(f"TensorFlow cannot convert the model: {error}") from error
    return converted


def _compare(tflite: bytes, model: keras.Sequential, loss: Loss, batch: int) -> None:
    """Refuse what computes other answers or gradients than TensorFlow does on the same numbers.

    :raises ModelError: so it does.
    """
    rng = np.random.default_rng(1)
    x = rng.normal(size=(batch, *model.input_shape[1:])).astype(np.float32)
    size = (batch, *model.output_shape[1:])
    y = rng.uniform(size=size).astype(np.float32)
    if loss.closing == "softmax":
        y /= y.sum(axis=-1, keepdims=True)
    mask = (np.arange(batch) % 4 != 1).astype(np.float32)

    trainer = Trainer(tflite, choose())
    try:
        _close("infer", trainer.infer(x), model(x).numpy().reshape(batch, -1))
        got, loss_got = trainer.gradients(x, y, mask)
    finally:
        trainer.close()
    expected, total = _taped(model, loss, x, y, mask)
    _close("the loss", loss_got, total)
    for weight, one, other in zip(model.weights, got, expected, strict=True):
        _close(f"the gradient of {weight.path}", one, other)


def _taped(
    model: keras.Sequential, loss: Loss, x: npt.NDArray[Any], y: npt.NDArray[Any], mask: npt.NDArray[Any]
) -> tuple[list[npt.NDArray[Any]], float]:
    """Return the gradients of the masked examples' losses, and the sum of these, by TensorFlow and Keras alone."""
    with tf.GradientTape() as tape:
        out = model(x, training=False)
        if loss.closing is not None and keras.activations.serialize(model.layers[-1].activation) == loss.closing:
            # What Keras takes a loss of is what came into the last activation: it clips probabilities.
            out = {"softmax": tf.math.log, "sigmoid": lambda p: tf.math.log(p / (1.0 - p))}[loss.closing](out)
        total = tf.reduce_sum(loss.keras(out, y) * mask)
    return [np.asarray(gradient) for gradient in tape.gradient(total, model.trainable_variables)], float(total)


def _close(what: str, got: npt.NDArray[Any] | float, expected: npt.NDArray[Any] | float) -> None:
    difference = float(np.max(np.abs(np.asarray(got) - np.asarray(expected))))
    if not difference <= _TOLERANCE * max(1e-3, float(np.max(np.abs(expected)))):
        raise ModelError(f"{what}: the converted model and TensorFlow are {difference:.3g} apart")
