"""Each stage of a decision by itself, against the words of its documentation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.formats.spec import Decide, Needed, Publish
from edged.model.signal.decide import Debounce, Majority, PublishFilter, Smoother, Thresholds, Watch, Watched, best

SCORE = st.floats(0, 1, width=32)
FLOAT = st.floats(-(2.0**100), 2.0**100, width=32)
LABELS = st.lists(st.integers(0, 3), max_size=60)
ROWS = st.integers(1, 4).flatmap(lambda k: st.lists(st.lists(FLOAT, min_size=k, max_size=k), min_size=1, max_size=30))


# --- mean and median -------------------------------------------------------------------------


@given(rows=ROWS, over=st.integers(2, 10))
def test_mean_is_numpys_over_the_last_windows(rows: list[list[float]], over: int) -> None:
    smoother, seen = Smoother(over, median=False), np.array(rows, np.float32)
    for end in range(1, len(seen) + 1):
        found = smoother.step(seen[end - 1])
        window = seen[max(0, end - over) : end].astype(np.float64)
        wanted = np.array([math.fsum(column) for column in window.T]) / len(window)
        assert found.dtype == np.float32
        # 1e30, 1 and -1e30 add up to 1 or to 0, by their order: so what is allowed goes by the largest value
        allowed = np.abs(window).max(axis=0) * 2.0**-48
        assert (np.abs(found - wanted) <= np.abs(wanted) * 2.0**-23 + allowed + 2.0**-149).all()


@given(rows=ROWS, over=st.integers(2, 10))
def test_median_is_numpys_over_the_last_windows(rows: list[list[float]], over: int) -> None:
    smoother, seen = Smoother(over, median=True), np.array(rows, np.float32)
    for end in range(1, len(seen) + 1):
        found = smoother.step(seen[end - 1])
        wanted = np.median(seen[max(0, end - over) : end].astype(np.float64), axis=0)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted.astype(np.float32))


@given(score=SCORE, over=st.integers(2, 1000), median=st.booleans())
def test_even_scores_keep_their_value(score: float, over: int, median: bool) -> None:
    """So that a score that lies exactly at a bound is not moved off it."""
    smoother = Smoother(over, median=median)

    assert {smoother.step(np.array([score], np.float32)).item() for _ in range(7)} == {score}


def test_a_large_value_leaves_no_trace_once_it_is_gone() -> None:
    smoother = Smoother(2, median=False)

    found = [smoother.step(np.array([value], np.float32)).item() for value in (1e30, 1.0, 1.0)]

    assert found[-1] == 1.0


def test_smoothing_keeps_no_hold_of_the_scores_that_it_is_given() -> None:
    smoother, scores = Smoother(3, median=False), np.zeros(2, np.float32)
    smoother.step(scores)
    scores[:] = 4.0

    assert smoother.step(scores).tolist() == [2.0, 2.0]


# --- majority --------------------------------------------------------------------------------


@given(labels=LABELS, over=st.integers(2, 10))
def test_majority_is_the_most_frequent_and_of_even_ones_the_newest(labels: list[int], over: int) -> None:
    majority = Majority(over)
    for end, label in enumerate(labels, 1):
        last = labels[max(0, end - over) : end]
        even = [one for one in set(last) if last.count(one) == max(map(last.count, last))]
        newest = max(even, key=lambda one: end - 1 - last[::-1].index(one))
        assert majority.step(label) == newest


# --- which label -----------------------------------------------------------------------------


def watch(enter: float, leave: float, needed: Needed) -> Watch:
    return Watch(Decide(watch="a", enter=enter, leave=leave, needed=needed))


@given(
    scores=st.lists(SCORE, max_size=60),
    bounds=st.tuples(SCORE, SCORE),
    n=st.integers(1, 4),
    more=st.integers(0, 3),
    starts_on=st.booleans(),
)
def test_hysteresis_does_not_flap_inside_its_band(
    scores: list[float], bounds: tuple[float, float], n: int, more: int, starts_on: bool
) -> None:
    leave, enter = sorted(bounds)
    one = watch(enter, leave, Needed(n=n, of=n + more))
    if starts_on:
        for _ in range(n):
            one.step(2.0)
    inside = [score for score in scores if leave <= score < enter]

    assert {one.step(score) for score in inside} <= {starts_on}


@given(scores=st.lists(st.lists(SCORE, min_size=3, max_size=3), max_size=40), at=st.integers(0, 2))
def test_the_watched_label_holds_while_it_is_watched_to_and_else_the_best_of_the_others(
    scores: list[list[float]], at: int
) -> None:
    choose = Watched(at, watch(0.75, 0.5, Needed()))
    alone = watch(0.75, 0.5, Needed())
    for row in scores:
        others = [label for label in range(3) if label != at]
        wanted = at if alone.step(row[at]) else max(others, key=lambda label: row[label])
        assert choose(np.array(row, np.float32)) == wanted


@given(
    scores=st.lists(SCORE, min_size=4, max_size=4),
    least=st.lists(SCORE | st.just(-math.inf), min_size=4, max_size=4),
    otherwise=st.integers(0, 4),
)
def test_thresholds(scores: list[float], least: list[float], otherwise: int) -> None:
    reached = [label for label in range(4) if scores[label] >= least[label]]
    wanted = max(reached, key=lambda label: scores[label]) if reached else otherwise

    assert Thresholds(least, otherwise)(np.array(scores, np.float32)) == wanted


@pytest.mark.parametrize("bound", [0.1, 0.3, 0.6, 0.7, 0.8, 0.9])
def test_a_score_of_float32_reaches_the_threshold_that_is_written_like_it(bound: float) -> None:
    assert Thresholds([bound], 1)(np.array([bound], np.float32)) == 0


def test_a_bound_beyond_float32_is_never_reached() -> None:
    assert Thresholds([1e300], 1)(np.array([3e38], np.float32)) == 1
    assert not watch(1e300, 0.0, Needed()).step(3e38)


def test_of_even_scores_the_first_is_the_best() -> None:
    assert best(np.array([0.25, 0.5, 0.5], np.float32)) == 1


# --- N of M ----------------------------------------------------------------------------------


def debounced(labels: Sequence[int], n: int, of: int, begin: int | None) -> list[int]:
    """Look back over the last `of` windows since the last change, for each label."""
    holds, since, found = begin, 0, []
    for at, label in enumerate(labels):
        if holds is None:
            holds, since = label, 1
        last = labels[max(since, at + 1 - of) : at + 1]
        enough = [one for one in set(last) if one != holds and last.count(one) >= n]
        assert len(enough) <= 1
        if enough:
            holds, since = enough[0], at + 1
        found.append(holds)
    return found


@given(labels=LABELS, n=st.integers(1, 5), more=st.integers(0, 5), begin=st.integers(0, 4) | st.none())
def test_n_of_m_windows_that_agree(labels: list[int], n: int, more: int, begin: int | None) -> None:
    debounce = Debounce(Needed(n=n, of=n + more), begin)

    assert [debounce.step(label) for label in labels] == debounced(labels, n, n + more, begin)


@given(labels=LABELS, n=st.integers(2, 5))
def test_fewer_than_n_other_windows_at_a_stretch_change_nothing(labels: list[int], n: int) -> None:
    debounce = Debounce(Needed(n=n, of=n), 0)
    quiet = [one for label in labels for one in (*[label] * (n - 1), 0)]

    assert {debounce.step(label) for label in quiet} <= {0}


# --- what is told ----------------------------------------------------------------------------

PAUSES = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 3.5, 8.0])
STEPS = st.lists(st.tuples(PAUSES, st.integers(-20, 20)), max_size=50)
EVERY = st.sampled_from([None, "1 s", "2 s", "5 s"])


def seconds(every: str | None, otherwise: float) -> float:
    return otherwise if every is None else float(every.removesuffix(" s"))


@given(steps=STEPS, least=EVERY, most=EVERY, by=st.integers(1, 8) | st.none(), unit=st.sampled_from([1, 0.1, 0.7]))
def test_what_is_told_is_true_and_neither_older_nor_sooner_than_promised(
    steps: list[tuple[float, int]], least: str | None, most: str | None, by: int | None, unit: float
) -> None:
    """Values are whole numbers of a unit that float32 does not have; the words are judged by the whole numbers."""
    move = None if by is None else by * unit
    publishes = PublishFilter(Publish(when="change", by=move, at_least_every=least, at_most_every=most))
    now, told, told_at = 0.0, None, -math.inf
    for pause, number in steps:
        now += pause
        moved = told is None or abs(number - told) >= (by or 1)
        due = now - told_at >= seconds(least, math.inf)
        allowed = now - told_at >= seconds(most, 0.0)
        found = publishes.step(number if by is None else float(np.float32(number * unit)), now)
        assert found == (allowed and (moved or due))
        if found:
            told, told_at = number, now


@given(steps=STEPS, most=EVERY)
def test_every_window_is_told_but_for_the_gap(steps: list[tuple[float, int]], most: str | None) -> None:
    publishes, now, told_at = PublishFilter(Publish(at_most_every=most)), 0.0, -math.inf
    for pause, number in steps:
        now += pause
        found = publishes.step(number, now)
        assert found == (now - told_at >= seconds(most, 0.0))
        told_at = now if found else told_at
