"""From scores to a decision, and whether it is worth publishing."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edged.config.units import parse_duration
from edged.signal.spec import Chain

Floats = npt.NDArray[np.float32]


class Decision(NamedTuple):
    """What one window comes to; a classifier has label and score, a regressor its value.

    :ivar scores: every output, after activation.
    :ivar publish: whether the manifest wants it published.
    """

    label: str | None
    score: float | None
    value: float | None
    scores: tuple[float, ...]
    publish: bool


class _Watch:
    """Hysteresis with N of M.

    On after ``n`` of the last ``of`` scores were at or above ``enter``, off after ``n`` of them were below ``leave``.
    """

    def __init__(self, enter: float, leave: float, n: int, of: int) -> None:
        self._enter, self._leave = float(np.float32(enter)), float(np.float32(leave))  # as scores are: 0.7 reaches 0.7
        self._n = n
        self._above: deque[bool] = deque(maxlen=of)
        self._below: deque[bool] = deque(maxlen=of)
        self.active = False

    def step(self, score: float) -> bool:
        self._above.append(score >= self._enter)
        self._below.append(score < self._leave)
        switches = self._below if self.active else self._above
        if sum(switches) >= self._n:
            self.active = not self.active
            self._above.clear()
            self._below.clear()
        return self.active


class Decider:
    """The decision state of one topic.

    :param tune: tunables that the site has set, within the publisher's bounds.
    """

    def __init__(self, chain: Chain, tune: Mapping[str, float]) -> None:
        self._labels = chain.output.labels
        self._watch, self._watched = None, 0
        if decide := chain.decide:
            enter = tune.get("decide.enter", decide.enter)
            leave = tune.get("decide.leave", enter if decide.leave is None else decide.leave)
            self._watch = _Watch(enter, leave, decide.needed.n, decide.needed.of)
            self._watched = self._labels.index(decide.watch)
        self._on_change = chain.publish.when == "change"
        every = chain.publish.at_least_every
        self._every = float("inf") if every is None else parse_duration(every)
        self._published: str | None = None
        self._published_at = float("-inf")

    def step(self, scores: Floats, now: float) -> Decision:
        """Decide one window.

        :param scores: float32 [k].
        :param now: monotonic seconds.
        """
        values = tuple(scores.tolist())
        if not self._labels:
            return Decision(None, None, values[0], values, publish=True)
        best = self._best(scores)
        label = self._labels[best]
        publish = not self._on_change or label != self._published or now - self._published_at >= self._every
        if publish:
            self._published, self._published_at = label, now
        return Decision(label, values[best], None, values, publish)

    def _best(self, scores: Floats) -> int:
        if self._watch is None:
            return int(scores.argmax())
        if self._watch.step(float(scores[self._watched])):
            return self._watched
        others = scores.copy()
        others[self._watched] = -np.inf
        return int(others.argmax())
