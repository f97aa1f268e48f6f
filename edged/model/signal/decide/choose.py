"""Which label a window's scores come to, by its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edged.formats.spec import Decide, Output
from edged.model.signal.decide.watch import Watch, as_score

Floats = npt.NDArray[np.float32]


def chooser(labels: Sequence[str], output: Output, decide: Decide) -> Callable[[Floats], int]:
    """Return what chooses a label of a classifier or an anomaly detector.

    :param labels: those of ``output``, and behind them ``decide.otherwise`` where it is a further one.
    """
    if output.kind == "anomaly":
        watch = Watch(decide)
        return lambda scores: int(watch.step(scores.item(0)))
    if decide.watch is not None:
        return Watched(labels.index(decide.watch), Watch(decide))
    if decide.otherwise is not None:
        least = [decide.thresholds.get(label, -np.inf) for label in output.labels]
        return Thresholds(least, labels.index(decide.otherwise))
    return best


def best(scores: Floats) -> int:
    """Choose the highest score; of even ones the first."""
    return int(scores.argmax())


class Watched:
    """One label holds while it is watched to; meanwhile the best of the others does.

    :param at: the label's number.
    """

    def __init__(self, at: int, watch: Watch) -> None:
        self._at = at
        self._watch = watch

    def __call__(self, scores: Floats) -> int:
        """Choose; float32 [k]."""
        if self._watch.step(scores.item(self._at)):
            return self._at
        others = scores.copy()
        others[self._at] = -np.inf
        return best(others)


class Thresholds:
    """The best of those labels that reach their thresholds.

    :param least: of each label; -inf where it needs none.
    :param otherwise: number of what holds when no label reaches its own.
    """

    def __init__(self, least: Sequence[float], otherwise: int) -> None:
        self._least = np.array([as_score(one) for one in least], np.float32)
        self._otherwise = otherwise

    def __call__(self, scores: Floats) -> int:
        """Choose; float32 [k]."""
        reached = np.where(scores >= self._least, scores, -np.inf)
        at = best(reached)
        return self._otherwise if reached[at] == -np.inf else at
