"""Turns a Keras model into a .tflite that boards can train, with builtin operators only. Needs TensorFlow.

from edged.federated.export import export

Path("model.tflite").write_bytes(export(model, loss="cross_entropy", batch=16))
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edged.base.errors import ModelError, UsageError
from edged.federated.export.gradients import LARGEST, LOSSES, Gradient, Loss, Tensor, kept, norms
from edged.federated.export.layers import Activation, Step, read_steps
from edged.federated.trainer import Trainer
from edged.federated.weights import Weights, rewritten
from edged.model.runtime import choose

__all__ = ["LOSSES", "export"]

_TOLERANCE = 1e-4
"""Largest distance of a gradient from TensorFlow's own, relative to its largest number."""

_SLACK = 1 - 1e-5
"""Clipped gradients are made this much shorter than the bound: rounding in float32 must not carry any over it."""

_SOUND = 1e15
"""Norm beyond which a gradient is rubbish and counts as zero: scaled down from there, float32 has no digits left."""


class _Passed(NamedTuple):
    """The result of one pass: each weight's gradient, each example's loss, and the examples that count."""

    parts: list[Gradient]
    losses: Tensor
    keep: Tensor


class Network(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """A model's steps with its weights as variables.

    :param shape: of one example.
    :param batch: examples of one call that trains.
    """

    def __init__(
        self, steps: Sequence[Step], loss: Loss, weights: Sequence[Any], shape: Sequence[int], batch: int
    ) -> None:
        super().__init__()
        last = steps[-1]
        closed = isinstance(last, Activation) and last.name == loss.closing
        self._open = list(steps[:-1] if closed else steps)  # as far as the loss looks at it
        self._closing = list(steps[-1:] if closed else [])
        self._loss = loss
        self._shape, self._batch = list(shape), batch
        self.kept = [tf.Variable(value, name=f"w{place}") for place, value in enumerate(weights)]

    def _weights(self) -> list[list[Tensor]]:
        """Return the values of each step's weights."""
        values = iter([variable.read_value() for variable in self.kept])
        return [[next(values) for _ in range(step.weights)] for step in self._open]

    def _forward(self, x: Tensor, weights: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return what goes into the first step, and what comes out of each."""
        seen = [x]
        for step, own in zip(self._open, weights, strict=True):
            seen.append(step.forward(seen[-1], own))
        return seen

    def _answer(self, x: Tensor) -> Tensor:
        out = self._forward(x, self._weights())[-1]
        for step in self._closing:
            out = step.forward(out, [])
        return out

    def _pass(self, x: Tensor, y: Tensor, mask: Tensor) -> _Passed:
        keep = mask > 0.0
        x, y = kept(x, keep), kept(y, keep)
        weights = self._weights()
        seen = self._forward(x, weights)
        back = self._loss.slope(seen[-1], y)
        parts: list[Gradient] = []
        for place in reversed(range(len(self._open))):
            back, own = self._open[place].backward(seen[place], seen[place + 1], back, weights[place])
            parts[:0] = own
        return _Passed(parts, kept(self._loss.value(seen[-1], y), keep), keep)

    def signatures(self) -> Mapping[str, Any]:
        """Return them by name."""
        one = _spec("x", [1, *self._shape])
        outputs = self._answer(tf.zeros(one.shape)).shape[1:]
        many = [
            _spec("x", [self._batch, *self._shape]),
            _spec("y", [self._batch, *outputs]),
            _spec("mask", [self._batch]),
        ]

        # Plain functions: TensorFlow calls the first parameter of a bound method `self`.
        def infer(x: Tensor) -> dict[str, Tensor]:
            return {"y": self._answer(x)}

        def get_weights() -> dict[str, Tensor]:
            return {f"w{place}": variable.read_value() for place, variable in enumerate(self.kept)}

        def set_weights(*values: Tensor) -> dict[str, Tensor]:
            for variable, value in zip(self.kept, values, strict=True):
                variable.assign(value)
            return {"done": tf.constant(1.0)}  # a signature has an output

        def grads(x: Tensor, y: Tensor, mask: Tensor) -> dict[str, Tensor]:
            passed = self._pass(x, y, mask)
            sums = {f"g{place}": part.plain(passed.keep) for place, part in enumerate(passed.parts)}
            return {**sums, "loss": tf.reduce_sum(passed.losses)}

        def grads_clipped(x: Tensor, y: Tensor, mask: Tensor, clip: Tensor) -> dict[str, Tensor]:
            passed = self._pass(x, y, mask)
            lengths = norms(tf.stack([part.norms() for part in passed.parts], axis=1))
            sound = lengths <= _SOUND
            keep = tf.logical_and(passed.keep, sound)
            # Without a division by what may be zero: of what is shorter than the clip, the clip is divided by itself.
            scale = _SLACK * clip / tf.maximum(tf.where(sound, lengths, _SOUND), _SLACK * clip)
            sums = {f"g{place}": part.scaled(keep, scale) for place, part in enumerate(passed.parts)}
            told = kept(tf.where(sound, lengths, LARGEST), passed.keep)
            return {**sums, "norms": told, "loss": tf.reduce_sum(kept(passed.losses, keep))}

        specs: list[tuple[Callable[..., dict[str, Tensor]], list[Any]]] = [
            (infer, [one]),
            (get_weights, []),
            (set_weights, [_spec(f"w{place}", variable.shape) for place, variable in enumerate(self.kept)]),
            (grads, many),
            (grads_clipped, [*many, _spec("clip", [])]),
        ]
        return {function.__name__: tf.function(function, input_signature=spec) for function, spec in specs}


def _spec(name: str, shape: Sequence[int]) -> Any:  # noqa: ANN401  TensorFlow has no types
    return tf.TensorSpec(shape, tf.float32, name=name)


def export(model: keras.Sequential, *, loss: str, batch: int = 16) -> bytes:
    """Return a .tflite with the signatures of docs/training.md and the model's weights to begin with.

    :param model: a chain of Dense, Conv1D and what goes with them, built: its input's shape is known.
    :param loss: one of :data:`~edged.federated.export.gradients.LOSSES`.
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
