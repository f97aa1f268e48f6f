"""Decisions of whole chains; what each stage does by itself stands in test_decide_stages.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import ConfigError
from edged.formats.spec import Chain, Decide, Input, Needed, Output, Publish, Smooth, Window
from edged.model.signal.decide import Decider, Decision

LABELS = ("healthy", "worn", "broken")
SCORES = st.lists(st.floats(0, 1, width=32), max_size=60)


def chain(**fields: Any) -> Chain:
    fields.setdefault("output", Output(kind="classifier", labels=LABELS))
    return Chain(input=Input(channels=("a",)), window=Window(size=1), **fields)


def watching(*, enter: float = 0.8, leave: float | None = 0.6, n: int = 1, of: int = 1, **fields: Any) -> Chain:
    return chain(decide=Decide(watch="broken", enter=enter, leave=leave, needed=Needed(n=n, of=of)), **fields)


def step(decider: Decider, *scores: float, now: float = 0.0) -> Decision:
    return decider.step(np.array(scores, np.float32), now)


def decide(decider: Decider, broken: float, now: float = 0.0) -> Decision:
    """Decide a window of which ``broken`` has this score, and of the others `worn` has more."""
    rest = 1 - broken
    return step(decider, rest * 0.25, rest * 0.75, broken, now=now)


def active(manifest: Chain, scores: Sequence[float], tune: Mapping[str, float] | None = None) -> list[bool]:
    decider = Decider(manifest, tune or {})
    return [decide(decider, score).label == "broken" for score in scores]


# --- which label -----------------------------------------------------------------------------


def test_without_decide_the_highest_score_holds() -> None:
    decider = Decider(chain(), {})

    decision = step(decider, 0.2, 0.5, 0.3)

    assert (decision.label, decision.score, decision.value, decision.top) == ("worn", 0.5, None, ())
    assert decision.scores == pytest.approx((0.2, 0.5, 0.3))


def test_one_output_is_watched_beside_a_label_that_holds_otherwise() -> None:
    """The commonest head of all: one sigmoid."""
    output = Output(kind="classifier", labels=("high",))
    decider = Decider(chain(output=output, decide=Decide(watch="high", enter=0.8, leave=0.3, otherwise="low")), {})

    assert [step(decider, score).label for score in (0.1, 0.7, 0.85, 0.5, 0.2, 0.9)] == [
        "low",
        "low",
        "high",
        "high",
        "low",
        "high",
    ]


def test_while_nothing_is_watched_to_the_stated_label_holds() -> None:
    decider = Decider(chain(decide=Decide(watch="broken", enter=0.8, otherwise="fine")), {})
    other = Decider(chain(decide=Decide(watch="broken", enter=0.8, otherwise="healthy")), {})

    assert [decide(decider, score).label for score in (0.5, 0.9, 0.5)] == ["fine", "broken", "fine"]
    assert [decide(other, score).label for score in (0.5, 0.9, 0.5)] == ["healthy", "broken", "healthy"]


@pytest.mark.parametrize(
    ("labels", "wrong", "said"),
    [
        (("high",), {"watch": "high"}, "needs two labels or more"),
        (LABELS, {"watch": "broken", "otherwise": "broken"}, "another label than decide.watch"),
        (LABELS, {"otherwise": "fine"}, "decide.thresholds and decide.otherwise go together"),
    ],
)
def test_what_holds_otherwise_is_another_label(labels: tuple[str, ...], wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chain(output=Output(kind="classifier", labels=labels), decide=Decide(**wrong))


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


# --- thresholds ------------------------------------------------------------------------------


def thresholds(otherwise: str, **fields: Any) -> Chain:
    return chain(decide=Decide(thresholds={"worn": 0.5, "broken": 0.7, "healthy": 0.9}, otherwise=otherwise, **fields))


def test_the_best_of_those_that_reach_their_thresholds_holds() -> None:
    decider = Decider(thresholds("unsure"), {})

    found = [step(decider, *scores) for scores in ((0.9, 0.2, 0.8), (0.8, 0.5, 0.6), (0.8, 0.6, 0.7))]

    assert [(one.label, one.score) for one in found] == [
        ("healthy", pytest.approx(0.9)),
        ("worn", 0.5),
        ("broken", pytest.approx(0.7)),
    ]


def test_otherwise_a_further_label_holds_with_the_highest_score() -> None:
    decision = step(Decider(thresholds("unsure"), {}), 0.8, 0.1, 0.6)

    assert (decision.label, decision.score) == ("unsure", pytest.approx(0.8))
    assert len(decision.scores) == 3


def test_otherwise_one_of_the_labels_holds_with_its_own_score() -> None:
    decision = step(Decider(thresholds("worn"), {}), 0.8, 0.1, 0.6)

    assert (decision.label, decision.score) == ("worn", pytest.approx(0.1))


def test_a_label_without_a_threshold_needs_none() -> None:
    manifest = chain(decide=Decide(thresholds={"worn": 0.5}, otherwise="unsure"))

    assert step(Decider(manifest, {}), 0.1, 0.4, 0.2).label == "broken"


def test_a_site_tunes_a_threshold() -> None:
    manifest = chain(
        decide=Decide(thresholds={"worn": 0.5, "broken": 0.7, "healthy": 0.9}, otherwise="unsure"),
        tunable={"decide.thresholds.worn": (0.3, 0.6)},
    )

    assert step(Decider(manifest, {"decide.thresholds.worn": 0.3}), 0.4, 0.3, 0.3).label == "worn"


# --- the best labels -------------------------------------------------------------------------


def test_top_k_takes_the_place_of_all_scores() -> None:
    manifest = chain(output=Output(kind="classifier", labels=LABELS, top_k=2))

    decision = step(Decider(manifest, {}), 0.25, 0.125, 0.5)

    assert decision == Decision("broken", 0.5, None, (), (("broken", 0.5), ("healthy", 0.25)), publish=True)


@given(scores=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=5, max_size=30))
def test_top_k_is_the_order_of_a_stable_sort(scores: list[float]) -> None:
    labels = tuple(map(str, range(len(scores))))
    best = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])

    decision = step(
        Decider(chain(output=Output(kind="classifier", labels=labels, top_k=5)), {}),
        *scores,
    )

    assert decision.top == tuple(best[:5])
    assert (decision.label, decision.score) == best[0]


# --- an anomaly detector ---------------------------------------------------------------------


def detecting(**fields: Any) -> Chain:
    return chain(output=Output(kind="anomaly", labels=("usual", "odd")), decide=Decide(**fields))


def test_an_anomaly_begins_at_its_threshold_and_its_score_is_the_error() -> None:
    decider = Decider(detecting(enter=0.25, leave=0.125), {})

    found = [step(decider, error) for error in (0.1875, 0.25, 0.125, 0.0625)]

    assert [one.label for one in found] == ["usual", "odd", "odd", "usual"]
    assert [one.score for one in found] == [0.1875, 0.25, 0.125, 0.0625]
    assert [one.scores for one in found] == [(0.1875,), (0.25,), (0.125,), (0.0625,)]
    assert not any(one.top or one.value for one in found)


@given(enter=st.floats(2.0**-100, 2.0**100), n=st.integers(1, 3))
def test_an_error_of_float32_reaches_the_threshold_that_is_written_like_it(enter: float, n: int) -> None:
    below = float(np.nextafter(np.float32(enter), np.float32(0)))
    decider = Decider(detecting(enter=enter, needed=Needed(n=n, of=n)), {})

    assert [step(decider, enter).label for _ in range(n)] == ["usual"] * (n - 1) + ["odd"]
    assert [step(decider, below).label for _ in range(n)] == ["odd"] * (n - 1) + ["usual"]


# --- a regressor -----------------------------------------------------------------------------


def predicting(**publish: Any) -> Chain:
    return chain(output=Output(kind="regressor", unit="°C"), publish=Publish(**publish))


def test_a_regressor_answers_with_its_first_output_and_publishes_every_window() -> None:
    decider = Decider(predicting(), {})

    for now in (0.0, 0.0, 1.0):
        assert step(decider, 21.5, 3.0, now=now) == Decision(None, None, 21.5, (21.5, 3.0), (), publish=True)


def test_a_regressor_is_smoothed_before_its_move_is_judged() -> None:
    output = Output(kind="regressor")
    smooth = Decide(smooth=Smooth(method="median", over=3))
    decider = Decider(chain(output=output, decide=smooth, publish=Publish(when="change", by=2.0)), {})

    found = [step(decider, value) for value in (1.0, 1.0, 50.0, 1.0, 3.0, 3.0)]

    assert [one.value for one in found] == [1.0, 1.0, 1.0, 1.0, 3.0, 3.0]
    assert [one.publish for one in found] == [True, False, False, False, True, False]


def test_a_regressors_further_outputs_do_not_count_as_a_move() -> None:
    decider = Decider(predicting(when="change", by=1.0), {})

    assert [step(decider, 1.0, other).publish for other in (0.0, 9.0)] == [True, False]


# --- stages in their order -------------------------------------------------------------------


def test_scores_are_smoothed_before_a_label_is_watched() -> None:
    manifest = chain(decide=Decide(watch="broken", enter=0.75, smooth=Smooth(method="mean", over=2)))
    decider = Decider(manifest, {})

    found = [step(decider, 0.0, 0.0, broken) for broken in (0.5, 1.0, 0.5, 0.75)]

    assert [one.label == "broken" for one in found] == [False, True, True, False]
    assert [one.scores[2] for one in found] == [0.5, 0.75, 0.75, 0.625]


def test_labels_are_counted_before_a_change_waits_for_enough_of_them() -> None:
    smooth, needed = Smooth(method="majority", over=3), Needed(n=2, of=2)
    decider = Decider(chain(decide=Decide(smooth=smooth, needed=needed)), {})
    healthy, worn = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)

    found = [step(decider, *scores).label for scores in (healthy, healthy, worn, worn, worn, healthy)]

    assert found == ["healthy"] * 4 + ["worn"] * 2


def test_a_change_without_a_watched_label_waits_too() -> None:
    decider = Decider(chain(decide=Decide(needed=Needed(n=2, of=3))), {})
    healthy, worn, broken = (1.0, 0.0, 0.0), (0.5, 1.0, 0.0), (0.0, 0.0, 1.0)

    found = [step(decider, *scores) for scores in (healthy, worn, broken, worn, worn)]

    assert [one.label for one in found] == ["healthy", "healthy", "healthy", "worn", "worn"]
    assert [one.score for one in found] == [1.0, 0.5, 0.0, 1.0, 1.0]


def test_before_enough_windows_agree_otherwise_holds() -> None:
    decider = Decider(thresholds("unsure", needed=Needed(n=2, of=2)), {})

    assert [step(decider, 0.0, 0.0, 1.0).label for _ in range(2)] == ["unsure", "broken"]


@given(scores=SCORES, seed=st.integers(0, 5))
def test_what_holds_is_always_one_of_the_labels_with_its_score(scores: list[float], seed: int) -> None:
    fields: list[dict[str, Any]] = [
        {"smooth": Smooth(method="mean", over=3)},
        {"smooth": Smooth(method="median", over=4), "needed": Needed(n=2, of=3)},
        {"smooth": Smooth(method="majority", over=3), "watch": "broken"},
        {"thresholds": {"broken": 0.5}, "otherwise": "healthy", "needed": Needed(n=2, of=2)},
        {"watch": "worn", "enter": 0.3, "leave": 0.1, "needed": Needed(n=2, of=5)},
        {},
    ]
    decider = Decider(chain(decide=Decide(**fields[seed])), {})
    for score in scores:
        decision = decide(decider, score)
        assert decision.label is not None
        assert decision.score == decision.scores[LABELS.index(decision.label)]


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


def test_a_change_within_the_gap_is_told_after_it_if_it_still_holds() -> None:
    decider = Decider(watching(enter=0.5, leave=None, publish=Publish(when="change", at_most_every="10 s")), {})
    steps = ((0, 0.1), (4, 0.9), (9.5, 0.9), (10, 0.9), (12, 0.1), (15, 0.9), (21, 0.9), (22, 0.1))

    published = [(now, decide(decider, broken, now=now)) for now, broken in steps]

    assert [(now, one.label) for now, one in published if one.publish] == [(0, "worn"), (10, "broken"), (22, "worn")]


def test_every_window_with_a_gap_between_results() -> None:
    decider = Decider(predicting(at_most_every="1 s"), {})

    published = [step(decider, 1.0, now=now).publish for now in (0.0, 0.5, 1.0, 1.5, 2.5)]

    assert published == [True, False, True, False, True]


def test_a_move_is_counted_from_what_was_told_last() -> None:
    decider = Decider(predicting(when="change", by=0.5, at_least_every="1 h"), {})

    published = [step(decider, value).publish for value in (20.0, 20.25, 20.5, 20.25, 20.125, 20.0, 3.0, 3.25)]

    assert published == [True, False, True, False, False, True, True, False]


def test_a_site_tunes_the_move() -> None:
    output = Output(kind="regressor")
    manifest = chain(output=output, publish=Publish(when="change", by=2.0), tunable={"publish.by": (1.0, 2.0)})
    decider = Decider(manifest, {"publish.by": 1.0})

    assert [step(decider, value).publish for value in (0.0, 1.0, 1.5)] == [True, True, False]


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decide", "fields", "said"),
    [
        ({"watch": "brokn"}, {}, "decide.watch: 'brokn' is none of output.labels"),
        ({"enter": 0.5}, {}, "decide.watch: wanted with decide.enter"),
        ({"watch": "broken", "enter": 0.5, "leave": 0.6}, {}, "decide.leave: 0.6 is above decide.enter, 0.5"),
        (
            {"watch": "broken", "enter": 0.8, "leave": 0.6},
            {"tunable": {"decide.enter": (0.5, 0.9)}},
            "decide.leave: 0.6 is above decide.enter, 0.5",
        ),
        (
            {"watch": "broken", "enter": 0.8},
            {"tunable": {"decide.leave": (0.5, 0.9)}},
            "decide.leave: 0.9 is above decide.enter, 0.8",
        ),
        (None, {"tunable": {"decide.enter": (0.5, 0.9)}}, "tunable: 'decide.enter' cannot be tuned"),
        ({"watch": "broken"}, {"tunable": {"decide.watch": (0, 1)}}, "tunable: 'decide.watch' cannot be tuned"),
        (
            {"watch": "broken"},
            {"tunable": {"decide.enter": (0.9, 0.5)}},
            "tunable: 'decide.enter': the first bound",
        ),
        (
            {"watch": "only"},
            {"output": Output(kind="classifier", labels=("only",))},
            "decide.watch: needs two labels or more",
        ),
        ({"thresholds": {"wrn": 0.5}, "otherwise": "worn"}, {}, "decide.thresholds: 'wrn' is none of output.labels"),
        ({"otherwise": "worn"}, {}, "decide.thresholds and decide.otherwise go together"),
        ({}, {"output": Output(kind="anomaly", labels=("a", "b"))}, "decide.enter: wanted"),
        (None, {"publish": {"when": "change", "by": 1.0}}, "publish.by: for a regressor"),
        (
            None,
            {"output": Output(kind="regressor"), "publish": {"when": "change"}},
            "publish.by: wanted with publish.when = 'change'",
        ),
        ({"watch": "a"}, {"output": Output(kind="regressor")}, "decide: a regressor has decide.smooth alone"),
    ],
)
def test_what_cannot_work_is_refused(decide: dict[str, Any] | None, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chain(
            decide=None if decide is None else Decide(**decide),
            **{**fields, "publish": Publish(**fields.get("publish", {}))},
        )


@pytest.mark.parametrize(("n", "of"), [(0, 1), (2, 1), (1, 1001), (-1, 1)])
def test_needed_has_bounds(n: int, of: int) -> None:
    with pytest.raises(ConfigError, match=r"decide.needed: n between 1 and of"):
        Needed(n=n, of=of)
