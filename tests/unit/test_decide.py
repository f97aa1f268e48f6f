"""Decisions: no flapping inside the band, N of M counted right, and what is published when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ConfigError
from edged.signal.decide import Decider, Decision
from edged.signal.spec import Chain, Decide, Input, Needed, Output, Publish, Window

LABELS = ("healthy", "worn", "broken")
SCORES = st.lists(st.floats(0, 1, width=32), max_size=60)


def chain(**fields: Any) -> Chain:
    fields.setdefault("output", Output(kind="classifier", labels=LABELS))
    return Chain(input=Input(channels=("a",)), window=Window(size=1), **fields)


def watching(*, enter: float = 0.8, leave: float | None = 0.6, n: int = 1, of: int = 1, **fields: Any) -> Chain:
    return chain(decide=Decide(watch="broken", enter=enter, leave=leave, needed=Needed(n=n, of=of)), **fields)


def decide(decider: Decider, broken: float, now: float = 0.0) -> Decision:
    """Decide a window of which ``broken`` has this score, and of the others `worn` has more."""
    rest = 1 - broken
    return decider.step(np.array([rest * 0.25, rest * 0.75, broken], np.float32), now)


def active(manifest: Chain, scores: Sequence[float], tune: Mapping[str, float] | None = None) -> list[bool]:
    decider = Decider(manifest, tune or {})
    return [decide(decider, score).label == "broken" for score in scores]


# --- which label -----------------------------------------------------------------------------


def test_without_decide_the_highest_score_holds() -> None:
    decider = Decider(chain(), {})

    decision = decider.step(np.array([0.2, 0.5, 0.3], np.float32), 0.0)

    assert (decision.label, decision.score, decision.value) == ("worn", 0.5, None)
    assert decision.scores == pytest.approx((0.2, 0.5, 0.3))


def test_score_is_that_of_the_label_that_holds() -> None:
    decider = Decider(watching(), {})
    scores = [decide(decider, broken) for broken in (0.7, 0.9, 0.7, 0.5)]

    assert [decision.label for decision in scores] == ["worn", "broken", "broken", "worn"]
    assert [decision.score for decision in scores] == pytest.approx([0.225, 0.9, 0.7, 0.375])


def test_a_watched_label_that_does_not_hold_is_not_taken_though_its_score_is_highest() -> None:
    assert decide(Decider(watching(enter=0.95), {}), 0.9).label == "worn"


def test_bounds_belong_to_the_watched_label() -> None:
    """At `enter` it begins; at `leave` it still holds."""
    assert active(watching(enter=0.75, leave=0.5), [0.75, 0.5, 0.49]) == [True, True, False]
    assert active(watching(enter=0.75, leave=None), [0.74, 0.75, 0.75, 0.74]) == [False, True, True, False]


@pytest.mark.parametrize("bound", [0.1, 0.3, 0.6, 0.7, 0.8, 0.9])
def test_a_score_of_float32_reaches_the_bound_that_is_written_like_it(bound: float) -> None:
    """float32 has no 0.7; the next that it has is below."""
    assert active(watching(enter=bound, leave=None), [bound, bound]) == [True, True]


@given(scores=st.lists(st.floats(0.601, 0.799), max_size=40), n=st.integers(1, 4), more=st.integers(0, 3))
def test_inside_the_band_nothing_changes(scores: list[float], n: int, more: int) -> None:
    manifest = watching(n=n, of=n + more)

    assert active(manifest, scores) == [False] * len(scores)
    assert active(manifest, [0.9] * n + scores)[n:] == [True] * len(scores)


def expected(scores: Sequence[float], enter: float, leave: float, n: int, of: int) -> list[bool]:
    """Decide by the words of the documentation: look back over the last `of` windows since the last change."""
    holds, since, found = False, 0, []
    for at in range(len(scores)):
        last = [np.float32(score) for score in scores[max(since, at + 1 - of) : at + 1]]
        if sum(score < np.float32(leave) if holds else score >= np.float32(enter) for score in last) >= n:
            holds, since = not holds, at + 1
        found.append(holds)
    return found


@given(scores=SCORES, bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)), n=st.integers(1, 5), more=st.integers(0, 5))
def test_n_of_m(scores: list[float], bounds: tuple[float, float], n: int, more: int) -> None:
    leave, enter = sorted(bounds)

    assert active(watching(enter=enter, leave=leave, n=n, of=n + more), scores) == expected(
        scores, enter, leave, n, n + more
    )


@given(scores=SCORES, n=st.integers(1, 5), more=st.integers(0, 5))
def test_two_changes_are_at_least_n_windows_apart(scores: list[float], n: int, more: int) -> None:
    found = [False, *active(watching(n=n, of=n + more), scores)]
    changes = [at for at in range(1, len(found)) if found[at] != found[at - 1]]

    assert all(later - earlier >= n for earlier, later in pairwise(changes))
    assert not changes or changes[0] >= n


def test_three_of_four() -> None:
    manifest = watching(n=3, of=4)

    assert active(manifest, [0.9, 0.9, 0.1, 0.9]) == [False, False, False, True]
    assert active(manifest, [0.9, 0.9, 0.1, 0.1, 0.9]) == [False] * 5
    assert active(manifest, [0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.1]) == [False, False, True, True, True, True, False]


def test_a_site_tunes_the_bounds() -> None:
    manifest = watching(tunable={"decide.enter": (0.7, 0.9), "decide.leave": (0.2, 0.65)})

    assert active(manifest, [0.75, 0.85, 0.55, 0.4], {"decide.enter": 0.7}) == [True, True, False, False]
    assert active(manifest, [0.75, 0.85, 0.55, 0.4], {"decide.leave": 0.5}) == [False, True, True, False]
    assert active(watching(leave=None, tunable={"decide.enter": (0.7, 0.9)}), [0.75, 0.72], {"decide.enter": 0.74}) == [
        True,
        False,
    ]


def test_topics_decide_apart() -> None:
    manifest = watching()
    first, second = Decider(manifest, {}), Decider(manifest, {})
    decide(first, 0.9)

    assert (decide(first, 0.7).label, decide(second, 0.7).label) == ("broken", "worn")


# --- a regressor -----------------------------------------------------------------------------


def test_a_regressor_answers_with_its_first_output_and_publishes_always() -> None:
    decider = Decider(chain(output=Output(kind="regressor", unit="°C")), {})

    for now in (0.0, 0.0, 1.0):
        assert decider.step(np.array([21.5, 3.0], np.float32), now) == Decision(
            None, None, 21.5, (21.5, 3.0), publish=True
        )


# --- what is published -----------------------------------------------------------------------


def test_every_window_is_published_unless_the_manifest_says_otherwise() -> None:
    decider = Decider(chain(), {})

    assert all(decide(decider, 0.1).publish for _ in range(3))


def test_a_change_is_published_and_the_first_window() -> None:
    decider = Decider(watching(publish=Publish(when="change")), {})

    published = [decide(decider, broken, now=at).publish for at, broken in enumerate((0.1, 0.2, 0.9, 0.7, 0.5, 0.1))]

    assert published == [True, False, True, False, True, False]


def test_a_sign_of_life() -> None:
    decider = Decider(watching(publish=Publish(when="change", at_least_every="10 s")), {})

    published = [decide(decider, 0.1, now=now).publish for now in (100, 105, 109.9, 110, 119, 120.5, 130, 130.5)]

    assert published == [True, False, False, True, False, True, False, True]


STEPS = st.lists(st.tuples(st.floats(0, 8), st.floats(0, 1)), max_size=50)


@given(steps=STEPS, every=st.sampled_from([None, "1 s", "10 s"]))
def test_what_the_last_result_says_is_true_and_never_older_than_promised(
    steps: list[tuple[float, float]], every: str | None
) -> None:
    decider = Decider(watching(publish=Publish(when="change", at_least_every=every)), {})
    now, said, said_at = 0.0, None, float("-inf")
    for pause, broken in steps:
        now += pause
        decision = decide(decider, broken, now)
        due = every is not None and now - said_at >= float(every.removesuffix(" s"))
        assert decision.publish == (decision.label != said or due)
        if decision.publish:
            said, said_at = decision.label, now


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"decide": Decide(watch="brokn")}, "decide.watch: 'brokn' is none of output.labels"),
        ({"decide": Decide(watch="broken", enter=0.5, leave=0.6)}, "decide.leave: 0.6 is above decide.enter, 0.5"),
        (
            {"decide": Decide(watch="broken", enter=0.8, leave=0.6), "tunable": {"decide.enter": (0.5, 0.9)}},
            "decide.leave: 0.6 is above decide.enter, 0.5",
        ),
        (
            {"decide": Decide(watch="broken", enter=0.8), "tunable": {"decide.leave": (0.5, 0.9)}},
            "decide.leave: 0.9 is above decide.enter, 0.8",
        ),
        ({"tunable": {"decide.enter": (0.5, 0.9)}}, "tunable: 'decide.enter' cannot be tuned"),
        (
            {"decide": Decide(watch="broken"), "tunable": {"decide.watch": (0, 1)}},
            "tunable: 'decide.watch' cannot be tuned",
        ),
        (
            {"decide": Decide(watch="broken"), "tunable": {"decide.enter": (0.9, 0.5)}},
            "tunable: 'decide.enter': the first bound",
        ),
        (
            {"decide": Decide(watch="only"), "output": Output(kind="classifier", labels=("only",))},
            "decide: needs two labels or more",
        ),
        (
            {"output": Output(kind="regressor"), "publish": Publish(when="change")},
            "publish: a regressor publishes every window",
        ),
    ],
)
def test_what_cannot_work_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chain(**fields)


@pytest.mark.parametrize(("n", "of"), [(0, 1), (2, 1), (1, 1001), (-1, 1)])
def test_needed_has_bounds(n: int, of: int) -> None:
    with pytest.raises(ConfigError, match=r"decide.needed: n between 1 and of"):
        Needed(n=n, of=of)
