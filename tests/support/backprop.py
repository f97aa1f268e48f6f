"""Gradients in float64, one example at a time, by loops over positions and taps: slow, plain, and nobody else's code.

Each layer takes what comes in and its weights, and returns what comes out with a function that takes the derivative with
respect to that and returns the one with respect to what came in, and those of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Back = Callable[[Doubles], tuple[Doubles, list[Doubles]]]


class Layer(NamedTuple):
    weights: int
    run: Callable[[Doubles, Sequence[Doubles]], tuple[Doubles, Back]]


class Net(NamedTuple):
    """Layers, and a loss: (out, wanted) -> the loss and its derivative. ``close`` makes answers of what comes out."""

    layers: Sequence[Layer]
    loss: Callable[[Doubles, Doubles], tuple[float, Doubles]]
    close: Callable[[Doubles], Doubles]

    def forward(self, weights: Sequence[Doubles], x: Doubles) -> tuple[Doubles, list[Back]]:
        left, backs = list(weights), []
        for layer in self.layers:
            x, back = layer.run(x, [left.pop(0) for _ in range(layer.weights)])
            backs.append(back)
        assert not left
        return x, backs

    def gradient(self, weights: Sequence[Doubles], x: Doubles, y: Doubles) -> tuple[list[Doubles], float]:
        """Return the gradient of one example, and its loss."""
        out, backs = self.forward(weights, x)
        loss, delta = self.loss(out, y)
        found: list[Doubles] = []
        for back in reversed(backs):
            delta, own = back(delta)
            found = own + found
        return found, loss


def dense() -> Layer:
    def run(x: Doubles, weights: Sequence[Doubles]) -> tuple[Doubles, Back]:
        kernel, bias = weights
        return x @ kernel + bias, lambda delta: (kernel @ delta, [np.outer(x, delta), delta])

    return Layer(2, run)


def convolution(*, stride: int = 1, spread: int = 1, before: int = 0, after: int = 0, bias: bool = True) -> Layer:
    """Return a convolution that sees so many zeros before and after its input."""

    def run(x: Doubles, weights: Sequence[Doubles]) -> tuple[Doubles, Back]:
        kernel = weights[0]
        taps, _, channels = kernel.shape
        positions = (len(x) + before + after - (taps - 1) * spread - 1) // stride + 1
        out = np.zeros((positions, channels))
        seen = [
            (place, tap, at)
            for place in range(positions)
            for tap in range(taps)
            if 0 <= (at := place * stride + tap * spread - before) < len(x)
        ]
        for place, tap, at in seen:
            out[place] += x[at] @ kernel[tap]

        def back(delta: Doubles) -> tuple[Doubles, list[Doubles]]:
            passed, own = np.zeros_like(x), np.zeros_like(kernel)
            for place, tap, at in seen:
                own[tap] += np.outer(x[at], delta[place])
                passed[at] += kernel[tap] @ delta[place]
            return passed, [own, delta.sum(axis=0)] if bias else [own]

        return out + weights[1] if bias else out, back

    return Layer(1 + bias, run)


def _each(function: Callable[[Doubles], Doubles], slope: Callable[[Doubles, Doubles], Doubles]) -> Layer:
    def run(x: Doubles, _weights: Sequence[Doubles]) -> tuple[Doubles, Back]:
        out = function(x)
        return out, lambda delta: (delta * slope(x, out), [])

    return Layer(0, run)


def _logistic(x: Doubles) -> Doubles:
    return 1 / (1 + np.exp(-x))


relu = _each(lambda x: np.maximum(x, 0), lambda x, _: (x > 0).astype(float))
tanh = _each(np.tanh, lambda _, out: 1 - out**2)
sigmoid = _each(_logistic, lambda _, out: out * (1 - out))


def reshape(*shape: int) -> Layer:
    return Layer(0, lambda x, _: (x.reshape(shape), lambda delta: (delta.reshape(x.shape), [])))


def largest_of(size: int) -> Layer:
    def run(x: Doubles, _weights: Sequence[Doubles]) -> tuple[Doubles, Back]:
        count = len(x) // size
        at = np.array([[size * one + np.argmax(x[size * one : size * one + size, c]) for c in range(x.shape[1])] for one in range(count)])  # fmt: skip
        columns = np.arange(x.shape[1])

        def back(delta: Doubles) -> tuple[Doubles, list[Doubles]]:
            passed = np.zeros_like(x)
            for one in range(count):
                passed[at[one], columns] += delta[one]
            return passed, []

        return np.stack([x[at[one], columns] for one in range(count)]), back

    return Layer(0, run)


def mean_of(size: int | None) -> Layer:
    """Return means of so many moments each; None: one of all, without the axis of time."""

    def run(x: Doubles, _weights: Sequence[Doubles]) -> tuple[Doubles, Back]:
        each = size or len(x)
        out = np.stack([x[start : start + each].mean(axis=0) for start in range(0, len(x), each)])
        return (
            out if size else out[0],
            lambda delta: (np.repeat(delta if size else delta[None], each, axis=0) / each, []),
        )

    return Layer(0, run)


def cross_entropy(out: Doubles, wanted: Doubles) -> tuple[float, Doubles]:
    likely = softmax(out)
    return float(-(wanted * np.log(likely)).sum()), likely * wanted.sum() - wanted


def binary(out: Doubles, wanted: Doubles) -> tuple[float, Doubles]:
    p = _logistic(out)
    loss = -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).mean()
    return float(loss), (p - wanted) / out.size


def squared(out: Doubles, wanted: Doubles) -> tuple[float, Doubles]:
    return float(((out - wanted) ** 2).mean()), 2 * (out - wanted) / out.size


def softmax(out: Doubles) -> Doubles:
    e = np.exp(out - out.max())
    return e / e.sum()


NETS = {  # what tests/federated/models/make.py makes
    "classifier": Net([dense(), relu, dense(), tanh, dense()], cross_entropy, softmax),
    "convolution": Net(
        [
            convolution(stride=2, before=1, after=2),
            relu,
            largest_of(2),
            convolution(spread=2, before=2, bias=False),
            sigmoid,
            convolution(),
            tanh,
            mean_of(None),
            dense(),
        ],
        cross_entropy,
        lambda out: out,
    ),
    "reconstruction": Net([mean_of(2), reshape(8), dense(), tanh, dense(), reshape(8, 2)], squared, lambda out: out),
    "detector": Net([dense(), relu, dense()], binary, _logistic),
}
