"""Results: read back as they were written, and all of one size, whatever they say."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import ConfigError, FormatError
from edged.formats.channel.epoch import MAX_COUNT
from edged.formats.channel.result import PAD_LEAST, PAD_MOST, Answer, Input, Plain, Result, ResultEncoder, Sealed
from edged.formats.spec.output import LONGEST_LABEL, MOST_TOP

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
        labels=labels,
        otherwise=further,
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
                encoded = encoder.encode(answer, count, 0.0, Sealed(bytes(8), first, last))
                sizes.add(len(encoded))
                pads.add(len(cbor2.loads(encoded)["pad"]))
    assert len(sizes) == 1
    assert (min(pads), max(pads)) == (PAD_LEAST, PAD_LEAST + (1 + top) * 40 + 4 + 16)


def test_labels_that_padding_cannot_make_even_are_refused() -> None:
    """A pad grows by 231 bytes; the count and the input's counts take 20, each of six labels here up to 40."""
    short, long = [str(number) for number in range(5)], ["y" * LONGEST_LABEL] * MOST_TOP
    with pytest.raises(ConfigError, match=r"output.labels: by them results differ by 260 bytes, and padding hides 231"):
        ResultEncoder("m", 1, bytes(32), labels=short + long, scores=0, top=MOST_TOP, tune={})
    even = [str(number).zfill(LONGEST_LABEL) for number in range(10)]
    ResultEncoder("m", 1, bytes(32), labels=even, otherwise="0", scores=0, top=MOST_TOP, tune={})


def good(**change: object) -> bytes:
    encoder = ResultEncoder("m", 1, bytes(32), labels=("a",), scores=1, tune={})
    fields = cbor2.loads(encoder.encode(Answer("a", 1.0, None, (1.0,)), 1, 0.0, Plain(bytes(32))))
    fields.update(change)
    return cbor2.dumps({name: value for name, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    "change",
    [
        {"pad": bytes(23)},
        {"pad": bytes(256)},
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
        {"top": [["a", 1.0]]},
        {"top": [], "scores": []},
        {"top": {}, "scores": []},
        {"top": ["a"], "scores": []},
        {"top": [["a"]], "scores": []},
        {"top": [["a", 1]], "scores": []},
        {"top": [[1.0, "a"]], "scores": []},
        {"top": [["a", 1.0, 2.0]], "scores": []},
        {"top": [["a", 1.0]], "scores": [], "label": ..., "score": ..., "value": 1.0},
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
    assert "top" not in shown
    assert json.loads(json.dumps(shown)) == shown
    assert ("value" in shown) is (answer.value is not None)
    assert ("label" in shown) is (answer.label is not None)
    assert shown["tune"] == {"decide.enter": 0.5}


def test_json_shows_the_best_labels_by_name() -> None:
    encoder = ResultEncoder("m", 1, bytes(32), labels=("a", "b", "c"), scores=0, top=2, tune={})
    answer = Answer("a", 0.5, None, (), (("a", 0.5), ("c", 0.25)))
    shown = Result.parse(encoder.encode(answer, 1, 0.0, Plain(bytes(32)))).to_json()
    assert shown["top"] == [{"label": "a", "score": 0.5}, {"label": "c", "score": 0.25}]
    assert shown["scores"] == []
