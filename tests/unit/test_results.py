"""Results: read back as they were written, and all of one size, whatever they say."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edged.base.errors import ConfigError, FormatError
from edged.formats.channel.epoch import MAX_COUNT
from edged.formats.channel.result import (
    LONGEST_SOURCE,
    MOST_SCORES,
    PAD_LEAST,
    PAD_MOST,
    Answer,
    Input,
    Plain,
    Result,
    Sealed,
)
from edged.formats.channel.result_encoder import ResultEncoder, Tell
from edged.formats.spec.output import LONGEST_LABEL

UINT64_MOST = (1 << 64) - 1
UINT64 = st.integers(0, UINT64_MOST)
FLOATS = st.floats(width=32)
LABELS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
        lambda text: len(text.encode()) <= 40
    ),
    min_size=1,
    max_size=8,
    unique=True,
)
PLAIN = st.binary(min_size=32, max_size=32).map(Plain)
SEALED = st.tuples(st.binary(min_size=8, max_size=8), UINT64, UINT64).map(lambda one: Sealed(one[0], *sorted(one[1:])))
INPUTS = st.sampled_from([PLAIN, SEALED])
Made = tuple[ResultEncoder, list[tuple[Answer, int, float, Input, bool]]]
TUNE = st.dictionaries(st.sampled_from(["decide.enter", "decide.leave"]), st.floats(0, 1))


@st.composite
def same_models(draw: st.DrawFn) -> Made:
    """An encoder, and some results of that model with one kind of input."""
    labels = draw(LABELS | st.just([]))
    further = draw(LABELS.map(lambda one: one[0]) | st.none()) if labels else None
    top = draw(st.integers(0, min(4, len(labels))))
    outputs = 0 if top else len(labels) or draw(st.integers(1, 4))
    encoder = ResultEncoder(
        "m",
        draw(st.integers(1, (1 << 32) - 1)),
        bytes(32),
        labels=labels if further is None else [*labels, further],
        scores=outputs,
        top=top,
        tune=draw(TUNE),
    )
    said = labels if further is None else [*labels, further]
    inputs = draw(INPUTS)
    results = []
    for _ in range(draw(st.integers(2, 5))):
        scores = tuple(draw(st.lists(FLOATS, min_size=outputs, max_size=outputs)))
        best = tuple((label, draw(FLOATS)) for label in draw(st.permutations(labels))[:top])
        label = draw(st.sampled_from(said)) if labels else None
        answer = Answer(label, draw(FLOATS) if labels else None, None if labels else draw(FLOATS), scores, best)
        time = draw(st.floats(0, 1e12))
        flags = {flag: draw(st.booleans()) for flag in ("late", "redelivered")}
        results.append((answer, draw(st.integers(1, MAX_COUNT)), time, draw(inputs), flags))
    return encoder, results


@given(same_models())
def test_one_size_per_model_whatever_the_result_says(made: Made) -> None:
    """Who sees the ciphertext's length learns neither label nor count nor score."""
    encoder, results = made
    encoded = [encoder.encode(answer, count, time, of, **flags) for answer, count, time, of, flags in results]
    assert len({len(one) for one in encoded}) == 1
    for one in encoded:
        assert PAD_LEAST <= len(cbor2.loads(one)["pad"]) <= PAD_MOST


@given(same_models())
def test_result_reads_back_as_written(made: Made) -> None:
    encoder, results = made
    for answer, count, time, of, flags in results:
        result = Result.parse(encoder.encode(answer, count, time, of, **flags))
        assert (result.count, result.time, result.input) == (count, time, of)
        assert {"late": result.late, "redelivered": result.redelivered} == flags
        assert repr((result.label, result.score, result.value)) == repr((answer.label, answer.score, answer.value))
        assert repr((result.scores, result.top)) == repr((answer.scores, answer.top))


@pytest.mark.parametrize("top", range(5))
def test_size_at_the_extremes_of_labels_count_and_input(top: int) -> None:
    short, long = [str(number) for number in range(5)], [str(number) * LONGEST_LABEL for number in range(5)]
    encoder = ResultEncoder("m", 1, bytes(32), labels=short + long, scores=2, top=top, tune={})
    sizes, pads = set(), set()
    for labels in (short, long):
        for count in (1, 23, 24, 255, 256, 65_535, 65_536, MAX_COUNT):
            for first, last in ((0, 0), (0, 1 << 32), (0, UINT64_MOST), (UINT64_MOST, UINT64_MOST)):
                best = [(label, 0.5) for label in labels[:top]]
                answer = Answer(labels[-1], 0.5, None, (0.0, 1.0), best)
                for again in (False, True):
                    encoded = encoder.encode(answer, count, 0.0, Sealed(bytes(8), first, last), redelivered=again)
                    sizes.add(len(encoded))
                    pads.add(len(cbor2.loads(encoded)["pad"]))
    assert len(sizes) == 1
    assert (min(pads), max(pads)) == (PAD_LEAST, PAD_LEAST + (1 + top) * 40 + 4 + 16 + len("redelivered") + 2)


def test_more_scores_than_hubs_accept_are_refused_unless_they_are_left_out() -> None:
    """At `pack`, `try` and load: a hub would refuse each result."""
    with pytest.raises(ConfigError, match=r"output.tell: 4097 scores in each result") as caught:
        ResultEncoder("m", 1, bytes(32), labels=(), scores=MOST_SCORES + 1, tune={})
    assert caught.value.hint == "output.tell = 'score' leaves them out"
    ResultEncoder("m", 1, bytes(32), labels=(), scores=MOST_SCORES + 1, tell="score", tune={})
    most = ResultEncoder("m", 1, bytes(32), labels=(), scores=MOST_SCORES, tune={})
    answer = Answer(None, None, 1.0, (0.5,) * MOST_SCORES, source="+" * LONGEST_SOURCE)
    assert len(Result.parse(most.encode(answer, 1, 0.0, Plain(bytes(32)))).scores) == MOST_SCORES


@pytest.mark.parametrize(("tell", "told"), [("label", set()), ("score", {"score"}), ("scores", {"score", "scores"})])
def test_a_result_tells_what_the_author_lets_it_tell(tell: Tell, told: set[str]) -> None:
    encoder = ResultEncoder("m", 1, bytes(32), labels=("a", "b"), scores=2, tell=tell, tune={})
    encoded = cbor2.loads(encoder.encode(Answer("a", 0.75, None, (0.75, 0.25)), 1, 0.0, Plain(bytes(32))))
    assert encoded.keys() & {"label", "score", "scores", "top"} == {"label"} | told
    assert Result.parse(cbor2.dumps(encoded)).label == "a"


def test_a_regressor_tells_its_value_whatever_else_it_leaves_out() -> None:
    encoder = ResultEncoder("m", 1, bytes(32), labels=(), scores=2, tell="label", tune={})
    result = Result.parse(encoder.encode(Answer(None, None, 4.5, (4.5, 1.0)), 1, 0.0, Plain(bytes(32))))
    assert (result.value, result.scores) == (4.5, ())


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128))
def test_size_tells_no_source(source: str) -> None:
    """What `+` stood for may be a person's name."""
    assume(len(source.encode()) <= LONGEST_SOURCE)
    encoder = ResultEncoder("m", 1, bytes(32), labels=("a",), scores=1, tune={})
    sizes = set()
    for one in (source, "x", "y" * LONGEST_SOURCE):
        encoded = encoder.encode(Answer("a", 1.0, None, (1.0,), source=one), 1, 0.0, Plain(bytes(32)))
        assert Result.parse(encoded).to_json()["source"] == one
        sizes.add(len(encoded))
    assert len(sizes) == 1


def good(**change: object) -> bytes:
    encoder = ResultEncoder("m", 1, bytes(32), labels=("a",), scores=1, tune={})
    fields = cbor2.loads(encoder.encode(Answer("a", 1.0, None, (1.0,)), 1, 0.0, Plain(bytes(32))))
    fields.update(change)
    return cbor2.dumps({name: value for name, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    "change",
    [
        {"pad": bytes(255)},
        {"pad": bytes(65_536)},
        {"pad": b"\1" * 256},
        {"count": 1.0},
        {"count": True},
        {"version": -1},
        {"digest": b""},
        {"scores": [1]},
        {"scores": {}},
        {"tune": {1: 1.0}},
        {"tune": {"a": [1.0]}},
        {"tune": []},
        {"label": ...},
        {"top": [["a", 1.0]]},
        *({"top": top, "scores": ...} for top in ([], {}, ["a"], [["a"]], [["a", 1]], [[1.0, "a"]], [["a", 1.0, 2.0]])),
        {"top": [["a", 1.0]], "scores": ..., "label": ..., "score": ..., "value": 1.0},
        {"input": []},
        {"input": [bytes(8), 2, 1]},
        {"input": [bytes(7), 1, 2]},
        {"input": [bytes(8), True, 2]},
        {"late": None},
        {"redelivered": False},
        {"redelivered": 1},
        {"scores": []},
        {"source": ""},
        {1: 1},
        {b"pad": b""},
    ],
    ids=str,
)
def test_result_that_breaks_a_rule_is_refused(change: dict[str, object]) -> None:
    Result.parse(good())
    with pytest.raises(FormatError):
        Result.parse(good() if not change else _with(change))


def _with(change: dict[Any, object]) -> bytes:
    fields = {**cbor2.loads(good()), **change}
    return cbor2.dumps({name: value for name, value in fields.items() if value is not ...})


@given(st.binary(max_size=200))
def test_result_of_random_bytes_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        Result.parse(data)


@pytest.mark.parametrize("of", [Plain(bytes(32)), Sealed(bytes(8), 1, 2)])
@pytest.mark.parametrize("answer", [Answer("a", 0.5, None, (0.5,)), Answer(None, None, 4.5, (4.5,))])
def test_json_shows_what_was_decided(answer: Answer, of: Input) -> None:
    labels = () if answer.label is None else ("a",)
    encoder = ResultEncoder("m", 1, bytes(32), labels=labels, scores=1, tune={"decide.enter": 0.5})
    shown = Result.parse(encoder.encode(answer, 1, 0.0, of)).to_json()
    assert not {"top", "redelivered"} & set(shown)
    again = Result.parse(encoder.encode(answer, 1, 0.0, of, redelivered=True)).to_json()
    assert again == {**shown, "redelivered": True}
    assert json.loads(json.dumps(shown)) == shown
    assert ("value" in shown) is (answer.value is not None)
    assert ("label" in shown) is (answer.label is not None)
    assert shown["tune"] == {"decide.enter": 0.5}


def test_json_shows_the_best_labels_by_name() -> None:
    encoder = ResultEncoder("m", 1, bytes(32), labels=("a", "b", "c"), scores=0, top=2, tune={})
    answer = Answer("a", 0.5, None, (), (("a", 0.5), ("c", 0.25)))
    shown = Result.parse(encoder.encode(answer, 1, 0.0, Plain(bytes(32)))).to_json()
    assert shown["top"] == [{"label": "a", "score": 0.5}, {"label": "c", "score": 0.25}]
    assert "scores" not in shown
