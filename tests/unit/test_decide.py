"""Decisions as pure functions of scores and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ConfigError
from edged.signal.decide import Decider, Decision
from edged.signal.spec import Chain, Decide, Input, Needed, Output, Publish, Window

LABELS = ("healthy", "worn", "broken")
SCORES = st.floats(0, 1, width=32)


def chain(labels: tuple[str, ...] = LABELS, **tables: Any) -> Chain:
    output = Output(kind="classifier", labels=labels) if labels else Output(kind="regressor")
    return Chain(input=Input(channels=("a",)), window=Window(size=1), output=output, **tables)


def step(decider: Decider, *scores: float, now: float = 0.0) -> Decision:
    return decider.step(np.array(scores, np.float32), now)


def watch(scores: Sequence[float], *, n: int = 1, of: int = 1, tune: dict[str, float] | None = None) -> list[bool]:
    """Return for each score of the watched label whether it is decided."""
    tables: dict[str, Any] = {
        "decide": Decide(watch="broken", enter=0.8, leave=0.6, needed=Needed(n=n, of=of)),
        "tunable": {"decide.enter": (0.7, 0.95)},
    }
    decider = Decider(chain(**tables), tune or {})
    return [step(decider, 0.1, 0.05, score).label == "broken" for score in scores]


def test_without_a_table_the_highest_score_decides() -> None:
    decision = step(Decider(chain(), {}), 0.25, 0.5, 0.125)

    assert decision == Decision("worn", 0.5, None, (0.25, 0.5, 0.125), publish=True)
    assert {type(score) for score in decision.scores} == {float}


def test_a_regressor_has_a_value_and_neither_label_nor_score() -> None:
    assert step(Decider(chain(()), {}), 2.5) == Decision(None, None, 2.5, (2.5,), publish=True)


def test_hysteresis_enters_at_one_bound_and_leaves_below_the_other() -> None:
    assert watch([0.75, 0.8125, 0.75, 0.625, 0.5, 0.75]) == [False, True, True, True, False, False]


def test_a_watched_label_that_is_not_decided_gives_way_to_the_best_other() -> None:
    decider = Decider(chain(decide=Decide(watch="broken", enter=0.8)), {})

    assert step(decider, 0.125, 0.25, 0.625)[:2] == ("worn", 0.25)


def test_n_of_m_needs_enough_windows_and_forgets_older_ones() -> None:
    high, low = 0.9, 0.1

    assert watch([high, high, low, high], n=3, of=4) == [False, False, False, True]
    assert watch([high, high, low, low, high, high], n=3, of=4)[-1] is False


def test_leaving_needs_as_many_windows_as_entering() -> None:
    assert watch([0.9] * 3 + [0.1] * 3, n=3, of=4) == [False, False, True, True, True, False]


def test_windows_from_before_a_change_do_not_count_towards_the_next() -> None:
    assert watch([0.1, 0.9, 0.9, 0.1, 0.1], n=2, of=3) == [False, False, True, True, False]


def test_a_site_tunes_what_the_publisher_lets_it() -> None:
    assert watch([0.75], tune={"decide.enter": 0.7}) == [True]
    assert watch([0.9], tune={"decide.enter": 0.95}) == [False]


@given(st.lists(st.floats(0.625, 0.796875, width=32), max_size=50), st.booleans())
def test_inside_its_band_a_decision_never_changes(scores: list[float], active: bool) -> None:  # noqa: FBT001
    first = 0.9 if active else 0.1

    assert set(watch([first, *scores])) == {active}


@given(st.lists(SCORES, max_size=60), st.integers(1, 6), st.integers(0, 5))
def test_every_change_has_its_n_of_m_behind_it(scores: list[float], n: int, more: int) -> None:
    of = n + more
    decided = watch(scores, n=n, of=of)

    for at, (before, after) in enumerate(zip([False, *decided], decided, strict=False)):
        behind = scores[max(0, at + 1 - of) : at + 1]
        if after and not before:
            assert sum(score >= np.float32(0.8) for score in behind) >= n
        if before and not after:
            assert sum(score < np.float32(0.6) for score in behind) >= n


@given(st.lists(st.tuples(SCORES, SCORES, SCORES), min_size=1, max_size=20), st.booleans())
def test_the_score_is_always_that_of_the_label(windows: list[tuple[float, float, float]], watched: bool) -> None:  # noqa: FBT001
    decider = Decider(chain(decide=Decide(watch="broken") if watched else None), {})
    for scores in windows:
        decision = step(decider, *scores)

        assert decision.label is not None
        assert decision.score == decision.scores[LABELS.index(decision.label)]


def test_every_window_is_published_by_default() -> None:
    decider = Decider(chain(), {})

    assert [step(decider, 0.9, 0.1, 0.0).publish for _ in range(3)] == [True, True, True]


def test_on_change_only_a_new_label_is_published_and_a_sign_of_life() -> None:
    decider = Decider(chain(publish=Publish(when="change", at_least_every="10 s")), {})
    healthy, worn = (0.9, 0.1, 0.0), (0.1, 0.9, 0.0)

    published = [
        step(decider, *scores, now=now).publish
        for now, scores in [(0, healthy), (1, healthy), (2, worn), (11.5, worn), (12, worn), (13, worn), (14, healthy)]
    ]

    assert published == [True, False, True, False, True, False, True]


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"decide": Decide(watch="lost")}, r"decide\.watch: 'lost' is none of output\.labels"),
        ({"decide": Decide(watch="worn", enter=0.5, leave=0.6)}, r"decide\.leave: 0\.6 is above decide\.enter, 0\.5"),
        (
            {"decide": Decide(watch="worn", enter=0.8, leave=0.6), "tunable": {"decide.enter": (0.5, 0.9)}},
            r"decide\.leave: 0\.6 is above decide\.enter, 0\.5",
        ),
        (
            {"decide": Decide(watch="worn", enter=0.8), "tunable": {"decide.leave": (0.5, 0.9)}},
            r"decide\.leave: 0\.9 is above decide\.enter, 0\.8",
        ),
        ({"tunable": {"decide.enter": (0.5, 0.9)}}, "cannot be tuned"),
        ({"decide": Decide(watch="worn"), "tunable": {"decide.watch": (0.5, 0.9)}}, "cannot be tuned"),
        ({"decide": Decide(watch="worn"), "tunable": {"decide.enter": (0.9, 0.5)}}, "must not be above the second"),
        (
            {"decide": Decide(watch="worn"), "tunable": {"decide.enter": (float("nan"), 0.5)}},
            "must not be above the second",
        ),
    ],
)
def test_tables_that_contradict_each_other_are_refused(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chain(**tables)


def test_decide_needs_another_label_to_fall_back_to() -> None:
    with pytest.raises(ConfigError, match="two labels"):
        chain(("only",), decide=Decide(watch="only"))


def test_a_site_may_tune_the_lower_bound_alone() -> None:
    tables: dict[str, Any] = {"decide": Decide(watch="worn", enter=0.8), "tunable": {"decide.leave": (0.5, 0.7)}}

    assert chain(**tables).decide is not None


@pytest.mark.parametrize(("n", "of"), [(0, 1), (2, 1), (-1, 3), (1, 1001)])
def test_needed_is_some_of_no_more_windows_than_there_are(n: int, of: int) -> None:
    with pytest.raises(ConfigError, match=r"decide\.needed"):
        Needed(n=n, of=of)
