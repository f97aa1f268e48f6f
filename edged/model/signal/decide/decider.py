"""All stages of one stream's decisions, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edged.formats.spec import Chain, Decide, Publish
from edged.model.signal.decide.choose import chooser
from edged.model.signal.decide.debounce import Debounce
from edged.model.signal.decide.publish import Teller
from edged.model.signal.decide.smooth import Majority, Smoother

Floats = npt.NDArray[np.float32]


class Decision(NamedTuple):
    """What one window comes to; a classifier and an anomaly detector have label and score, a regressor its value.

    :ivar label: what holds, after all stages.
    :ivar score: the label's own; the highest, where what holds is no label of the model; an anomaly detector's error.
    :ivar value: a regressor's first output.
    :ivar scores: every output, after activation and smoothing; empty with ``output.top_k``.
    :ivar top: with ``output.top_k`` the best labels with their scores, the best first.
    :ivar publish: whether the manifest wants it published.
    """

    label: str | None
    score: float | None
    value: float | None
    scores: tuple[float, ...]
    top: tuple[tuple[str, float], ...]
    publish: bool


class Decider:
    """The decision state of one stream of windows.

    :param tune: tunables that the site has set, within the publisher's bounds.
    :raises ConfigError: such a key holds no number.
    """

    def __init__(self, chain: Chain, tune: Mapping[str, float]) -> None:
        chain = chain.tuned(tune)
        output, decide = chain.output, chain.decide or Decide()
        labels, otherwise = output.labels, decide.otherwise
        self._labels = labels if otherwise is None or otherwise in labels else (*labels, otherwise)
        self._top = output.top_k
        self._choose = None if output.kind == "regressor" else chooser(self._labels, output, decide)
        self._smooth, self._majority = None, None
        if (smooth := decide.smooth) and smooth.method == "majority":
            self._majority = Majority(smooth.over)
        elif smooth:
            self._smooth = Smoother(smooth.over, median=smooth.method == "median")
        self._debounce = None
        if output.kind == "classifier" and decide.watch is None and decide.needed.n > 1:
            begin = None if otherwise is None else self._labels.index(otherwise)
            self._debounce = Debounce(decide.needed, begin)
        self._teller = None if chain.publish == Publish() else Teller(chain.publish)

    def step(self, scores: Floats, now: float) -> Decision:
        """Decide one window.

        :param scores: float32 [k], finite.
        :param now: monotonic seconds.
        """
        if self._smooth is not None:
            scores = self._smooth.step(scores)
        if self._choose is None:
            values = tuple(scores.tolist())
            return Decision(None, None, values[0], values, (), self._tells(values[0], now))
        at = self._choose(scores)
        if self._majority is not None:
            at = self._majority.step(at)
        if self._debounce is not None:
            at = self._debounce.step(at)
        score = scores.item(at) if at < len(scores) else scores.max().item()  # no label's own; an anomaly's error
        publish = self._tells(at, now)
        if self._top is None:
            return Decision(self._labels[at], score, None, tuple(scores.tolist()), (), publish)
        return Decision(self._labels[at], score, None, (), self._best(scores, self._top), publish)

    def _tells(self, what: float, now: float) -> bool:
        return self._teller is None or self._teller.step(what, now)

    def _best(self, scores: Floats, most: int) -> tuple[tuple[str, float], ...]:
        """Return the best labels; of even ones the first. ``most`` is small: quicker than sorting."""
        left, found = scores.copy(), []
        for _ in range(most):
            at = int(left.argmax())
            found.append((self._labels[at], scores.item(at)))
            left[at] = -np.inf
        return tuple(found)
