"""Results: read back as they were written, and all of one size, whatever they say."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.channel.epoch import MAX_COUNT
from edged.channel.result import PAD_LEAST, PAD_MOST, Answer, Input, Plain, Result, ResultEncoder, Sealed
from edged.errors import FormatError

UINT64 = st.integers(0, (1 << 64) - 1)
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
    outputs = len(labels) or draw(st.integers(1, 4))
    encoder = ResultEncoder(
        "m", draw(st.integers(1, (1 << 32) - 1)), bytes(32), labels=labels, scores=outputs, tune=draw(TUNE)
    )
    inputs = draw(INPUTS)
    results = []
    for _ in range(draw(st.integers(2, 5))):
        scores = tuple(draw(st.lists(FLOATS, min_size=outputs, max_size=outputs)))
        label = draw(st.sampled_from(labels)) if labels else None
        answer = Answer(label, draw(FLOATS) if labels else None, None if labels else draw(FLOATS), scores)
        time = draw(st.floats(0, 1e12))
        results.append((answer, draw(st.integers(1, MAX_COUNT)), time, draw(inputs), draw(st.booleans())))
    return encoder, results


@given(same_models())
def test_one_size_per_model_whatever_the_result_says(made: Made) -> None:
    """Who sees the ciphertext's length learns neither label nor count nor score."""
    encoder, results = made
    encoded = [encoder.encode(answer, count, time, of, late=late) for answer, count, time, of, late in results]
    assert len({len(one) for one in encoded}) == 1
    for one in encoded:
        assert PAD_LEAST <= len(cbor2.loads(one)["pad"]) <= PAD_MOST


@given(same_models())
def test_result_reads_back_as_written(made: Made) -> None:
    encoder, results = made
    for answer, count, time, of, late in results:
        result = Result.parse(encoder.encode(answer, count, time, of, late=late))
        assert (result.count, result.time, result.late, result.input) == (count, time, late, of)
        assert repr((result.label, result.score, result.value)) == repr((answer.label, answer.score, answer.value))
        assert repr(result.scores) == repr(tuple(answer.scores))


def test_size_at_the_extremes_of_label_count_and_input() -> None:
    labels = ("x", "y" * 40)
    encoder = ResultEncoder("m", 1, bytes(32), labels=labels, scores=2, tune={})
    sizes = {
        len(encoder.encode(Answer(label, 0.5, None, (0.0, 1.0)), count, 0.0, Sealed(bytes(8), first, last)))
        for label in labels
        for count in (1, 23, 24, 255, 256, 65_535, 65_536, MAX_COUNT)
        for first in (0, (1 << 64) - 1)
        for last in (0, 1 << 32, (1 << 64) - 1)
        if first <= last
    }
    assert len(sizes) == 1


def good(**change: object) -> bytes:
    encoder = ResultEncoder("m", 1, bytes(32), labels=("a",), scores=1, tune={})
    fields = cbor2.loads(encoder.encode(Answer("a", 1.0, None, (1.0,)), 1, 0.0, Plain(bytes(32))))
    fields.update(change)
    return cbor2.dumps({name: value for name, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    "change",
    [
        {"pad": bytes(23)},
        {"pad": bytes(88)},
        {"pad": b"\1" * 24},
        {"count": 1.0},
        {"count": True},
        {"version": -1},
        {"digest": b""},
        {"scores": [1]},
        {"scores": {}},
        {"tune": {1: 1.0}},
        {"tune": {"a": [1.0]}},
        {"tune": []},
        {"score": ...},
        {"label": ...},
        {"value": 1.0},
        {"input": []},
        {"input": [bytes(8), 2, 1]},
        {"input": [bytes(7), 1, 2]},
        {"input": [bytes(8), True, 2]},
        {"late": None},
        {"note": 1},
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
    assert json.loads(json.dumps(shown)) == shown
    assert ("value" in shown) is (answer.value is not None)
    assert ("label" in shown) is (answer.label is not None)
    assert shown["tune"] == {"decide.enter": 0.5}
