"""A model that is small enough to be all numpy: softmax regression behind the interface of edged's Trainer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edged.federated.weights import Weights

Floats = npt.NDArray[np.float32]
FEATURES, LABELS = 60, 4
_SPREAD, _APART = 1.4, 0.42


class Softmax:
    """Softmax regression."""

    batch = 8
    inputs = (FEATURES,)
    outputs = (LABELS,)
    shapes = ((FEATURES, LABELS), (LABELS,))

    def __init__(self) -> None:
        self._weights: Weights = [np.zeros(shape, np.float32) for shape in self.shapes]

    def weights(self) -> Weights:
        return [one.copy() for one in self._weights]

    def use(self, weights: Weights) -> None:
        self._weights = [one.copy() for one in weights]

    def infer(self, x: Floats) -> Floats:
        scores = x @ self._weights[0] + self._weights[1]
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    def gradients(self, x: Floats, y: Floats, mask: Floats) -> tuple[Weights, float]:
        odds = self.infer(x)
        wrong = (odds - y) * mask[:, None]
        loss = float(-(np.log(np.maximum((odds * y).sum(axis=1), 1e-9)) * mask).sum())
        return [(x.T @ wrong).astype(np.float32), wrong.sum(axis=0).astype(np.float32)], loss

    def clipped(self, x: Floats, y: Floats, mask: Floats, clip: float) -> tuple[Weights, Floats, float]:
        wrong = self.infer(x) - y
        norms = np.sqrt(((x**2).sum(axis=1) + 1) * (wrong**2).sum(axis=1))
        scale = mask * np.minimum(1, clip / np.maximum(norms, 1e-12))
        _, loss = self.gradients(x, y, mask)
        wrong *= scale[:, None]
        return [(x.T @ wrong).astype(np.float32), wrong.sum(axis=0).astype(np.float32)], norms.astype(np.float32), loss


def examples(board: int | None, count: int = 120) -> tuple[Floats, Floats]:
    """Return what one board has seen: mostly one label, and its sensor is mounted askew; None: of everything, straight."""
    centres = _APART * np.random.default_rng(7).normal(size=(LABELS, FEATURES)).astype(np.float32)
    random = np.random.default_rng(1000 if board is None else board)
    if board is None:
        labels, bias = random.integers(0, LABELS, count), 0.0
    else:
        common = random.random(count) < 0.7
        labels = np.where(common, board % LABELS, random.integers(0, LABELS, count))
        bias = 0.15 * random.normal(size=FEATURES)
    x = centres[labels] + random.normal(0, _SPREAD, (count, FEATURES)) + bias
    return x.astype(np.float32), np.eye(LABELS, dtype=np.float32)[labels]


def accuracy(weights: Weights, x: Floats, y: Floats) -> float:
    trainer = Softmax()
    trainer.use(weights)
    return float((trainer.infer(x).argmax(axis=1) == y.argmax(axis=1)).mean())
