"""From scores to a decision, and whether it is worth publishing. Each stage is there only if the manifest states it.

Mean or median of the scores, then a label (the best, by thresholds, or the watched one), then the majority of labels,
then N of M of them, then the choice which decisions are published.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edged.base.units import parse_duration
from edged.formats.spec import Chain, Decide, Needed, Output, Publish

Floats = npt.NDArray[np.float32]


class Decision(NamedTuple):
    """The decision on one window: label and score of a classifier or anomaly detector, value of a regressor.

    :ivar label: the label that holds after all stages.
    :ivar score: the label's own; the highest, where what holds is no label of the model; an anomaly detector's error.
    :ivar value: a regressor's first output.
    :ivar scores: every output, after activation and smoothing; empty with ``output.top_k``.
    :ivar top: with ``output.top_k`` the best labels with their scores, the best first.
    :ivar publish: the manifest wants it published.
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
        self._filter = None if chain.publish == Publish() else PublishFilter(chain.publish)

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
        return self._filter is None or self._filter.step(what, now)

    def _best(self, scores: Floats, most: int) -> tuple[tuple[str, float], ...]:
        """Return the best labels; of even ones the first. ``most`` is small: quicker than sorting."""
        left, found = scores.copy(), []
        for _ in range(most):
            at = int(left.argmax())
            found.append((self._labels[at], scores.item(at)))
            left[at] = -np.inf
        return tuple(found)


def chooser(labels: Sequence[str], output: Output, decide: Decide) -> Callable[[Floats], int]:
    """Return the function that chooses a label of a classifier or an anomaly detector.

    :param labels: those of ``output``, and behind them ``decide.otherwise`` where it is a further one.
    """
    if output.kind == "anomaly":
        watch = Watch(decide)
        return lambda scores: int(watch.step(scores.item(0)))
    if decide.watch is not None:
        other = None if decide.otherwise is None else labels.index(decide.otherwise)
        return Watched(labels.index(decide.watch), Watch(decide), other)
    if decide.otherwise is not None:
        least = [decide.thresholds.get(label, -np.inf) for label in output.labels]
        return Thresholds(least, labels.index(decide.otherwise))
    return best


def best(scores: Floats) -> int:
    """Choose the highest score; of even ones the first."""
    return int(scores.argmax())


class Watched:
    """One label holds while it is watched to; meanwhile the best of the others does, or ``other``.

    :param at: the label's number.
    :param other: number of the label that holds else; None: the best of the others.
    """

    def __init__(self, at: int, watch: Watch, other: int | None = None) -> None:
        self._at = at
        self._watch = watch
        self._other = other

    def __call__(self, scores: Floats) -> int:
        """Choose; float32 [k]."""
        if self._watch.step(scores.item(self._at)):
            return self._at
        if self._other is not None:
            return self._other
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


def as_score(bound: float) -> float:
    """Return a bound as a score would have it: float32 has no 0.7, and the score that is meant by it lies below."""
    with np.errstate(over="ignore"):
        return float(np.float32(bound))


class Watch:
    """On after N of the last M scores were at or above ``enter``, off after N of them were below ``leave``.

    M goes back to the last change at most.

    :ivar active: the watched state is on; it begins off.
    """

    def __init__(self, decide: Decide) -> None:
        self._enter = as_score(decide.level)
        self._leave = self._enter if decide.leave is None else as_score(decide.leave)
        self._n = decide.needed.n
        self._last: deque[bool] = deque(maxlen=decide.needed.of)
        self.active = False

    def step(self, score: float) -> bool:
        """Take a window's score and return True while the watched state is on."""
        self._last.append(score < self._leave if self.active else score >= self._enter)
        if sum(self._last) >= self._n:
            self.active = not self.active
            self._last.clear()
        return self.active


class Smoother:
    """Mean or median of each score over the last windows.

    Each step computes over all of them: a running sum would keep the rounding error of a single large value.

    :param over: number of windows.
    """

    def __init__(self, over: int, *, median: bool) -> None:
        self._over = over
        self._reduce = _median if median else _mean
        self._last: Floats = np.zeros((0, 0), np.float32)
        self._seen = 0

    def step(self, scores: Floats) -> Floats:
        """Take a window's scores (float32 [k]) and return the smoothed ones (float32 [k])."""
        if not self._seen:
            self._last = np.zeros((self._over, len(scores)), np.float32)
        self._last[self._seen % self._over] = scores
        self._seen += 1
        return self._reduce(self._last[: self._seen])


def _mean(rows: Floats) -> Floats:
    """Return the mean of each column; summed as float64, so that even scores keep their value."""
    mean: Floats = (np.add.reduce(rows, axis=0, dtype=np.float64) / len(rows)).astype(np.float32)
    return mean


def _median(rows: Floats) -> Floats:
    """Return the median of each column, as `numpy.median`, which takes 10 us for the smallest."""
    low, high = (len(rows) - 1) // 2, len(rows) // 2
    return _mean(np.partition(rows, (low, high), axis=0)[low : high + 1])


class Majority:
    """The label that most of the last windows came to; of those that are even, the one that came last.

    :param over: number of windows.
    """

    def __init__(self, over: int) -> None:
        self._last: deque[int] = deque(maxlen=over)

    def step(self, label: int) -> int:
        """Take a window's label, by its number, and return the majority's."""
        self._last.append(label)
        counts = Counter(reversed(self._last))  # in this order, so that `max` meets the newest first
        return max(counts, key=counts.__getitem__)


class Debounce:
    """Another label holds once N of the last M windows came to it. M goes back to the last change at most.

    :param begin: number of the label that holds at first; None: the first window's.
    """

    def __init__(self, needed: Needed, begin: int | None) -> None:
        self._n = needed.n
        self._last: deque[int] = deque(maxlen=needed.of)
        self._holds = begin

    def step(self, label: int) -> int:
        """Take a window's label, by its number, and return the one that holds."""
        if self._holds is None:
            self._holds = label
        else:
            self._last.append(label)
        if label != self._holds and self._last.count(label) >= self._n:
            self._holds = label
            self._last.clear()
        return self._holds


_ENOUGH = 0.999
"""Share of `by` that is as good as all of it: 0.7 - 0.6 is a little below 0.1 in float32, as values are."""


class PublishFilter:
    """Decides which decisions are published, from the last published one and its time."""

    def __init__(self, publish: Publish) -> None:
        self._changes = publish.when == "change"
        self._by = None if publish.by is None else _ENOUGH * publish.by
        self._least = math.inf if publish.at_least_every is None else parse_duration(publish.at_least_every)
        self._most = 0.0 if publish.at_most_every is None else parse_duration(publish.at_most_every)
        self._told = math.nan
        self._told_at = -math.inf

    def step(self, what: float, now: float) -> bool:
        """Return True if a window's decision is published; the first always is.

        The last published decision counts: a change that comes too early is published later, if it still holds then.

        :param what: the label's number, or a regressor's value.
        :param now: monotonic seconds.
        """
        since = now - self._told_at
        if since < self._most or (self._changes and since < self._least and not self._has_changed(what)):
            return False
        self._told, self._told_at = what, now
        return True

    def _has_changed(self, what: float) -> bool:
        if self._by is None:
            return what != self._told
        return abs(what - self._told) >= self._by
