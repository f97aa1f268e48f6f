"""The signatures of a model that boards train, as TensorFlow functions (docs/training.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from edged.federated.export.layers import Activation, Step
from edged.federated.export.losses import Loss
from edged.federated.export.parts import LARGEST, Part, Tensor, kept, norms

_SLACK = 1 - 1e-5
"""Clipped gradients are made this much shorter than the bound: rounding in float32 must not carry any over it."""

_SOUND = 1e15
"""Norm beyond which a gradient is rubbish and counts as zero: scaled down from there, float32 has no digits left."""


class _Passed(NamedTuple):
    """What a pass through the model gave: each weight's gradient, each example's loss, and which examples count."""

    parts: list[Part]
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
        parts: list[Part] = []
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
