"""The self-test: relative to the spread of the scores, the same label, bounded, exact, and no other encoding of it."""

from __future__ import annotations

import numpy as np
import pytest

from edged.base.errors import ConfigError, FormatError, SelfTestError
from edged.formats.package.self_test import FLOAT32, SELF_TEST_LIMIT, SelfTest, TypedArray
from edged.formats.spec import Chain, Image, Input, Output, Window
from edged.model.known_answers import Judge, answers_of, check_answer, clear_ones, make_self_test, spread

CHAIN = Chain(
    input=Input(channels=("a1", "a2")), window=Window(size=2), output=Output(kind="classifier", labels=("good", "bad"))
)
PICTURE = Chain(
    input=Input(channels=("grey",), image=Image(width=2, height=2)),
    output=Output(kind="classifier", labels=("good", "bad")),
)
SCORES = np.array([0.25, 0.75], np.float32)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


# --- what an answer is held to ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "scores", "expected"),
    [
        ("classifier", [[0, 100], [50, 60]], [100, 100]),
        ("anomaly", [[3], [5]], [2]),
        ("regressor", [[1, -10], [3, 10]], [2, 20]),
        ("regressor", [[4, 0], [4, 0]], [4, 1]),
        ("classifier", [[7, 7]], [7, 7]),
        ("classifier", [[-7, -7]], [7, 7]),
        ("classifier", [[0, 0]], [1, 1]),
    ],
)
def test_a_tolerance_is_relative_to_the_spread_of_the_signed_scores(
    kind: str, scores: list[list[float]], expected: list[float]
) -> None:
    assert spread(np.array(scores, np.float32), kind).tolist() == expected


def test_logits_of_an_int8_model_may_differ_by_a_count_where_their_label_agrees() -> None:
    """Absolute, 0.9 of 200 would be far beyond 0.02."""
    signed = floats(-90, 110)
    check_answer(
        floats(-89.1, 109.1), signed, within=0.02 * spread(signed[np.newaxis], "classifier"), judge=Judge(CHAIN)
    )


@pytest.mark.parametrize(
    ("got", "said"),
    [
        ((0.6, 0.4), "it comes to 'good', and 'bad' was signed"),
        ((0.2, np.nan), "off by nan"),
        ((0.2,), "1 scores where 2 were signed"),
        ((0.2, 9.0), "off by 8.2"),
    ],
)
def test_another_answer_is_refused(got: tuple[float, ...], said: str) -> None:
    with pytest.raises(SelfTestError, match=said):
        check_answer(floats(*got), floats(0.2, 0.8), within=floats(1, 1), judge=Judge(CHAIN))


def test_either_of_two_labels_that_were_signed_as_equal_is_right() -> None:
    check_answer(floats(0.5, 0.4), floats(0.5, 0.5), within=floats(1, 1), judge=Judge(CHAIN))


def test_windows_whose_label_another_runtime_may_turn_over_are_left_out() -> None:
    scores = [floats(0.0, 1.0), floats(0.49, 0.51), floats(0.45, 0.55)]
    assert clear_ones(scores, 0.02, CHAIN) == [0, 2]
    assert clear_ones(scores, 0.02, Chain(input=CHAIN.input, output=Output(kind="regressor"))) == [0, 1, 2]


# --- what is recorded ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "i1", "<i2", "<i4", "<f4"])
def test_windows_keep_the_type_that_they_came_in(dtype: str) -> None:
    window = np.array([[1, 2], [3, 4]], dtype)
    test = make_self_test(CHAIN, 0.02, [window], [SCORES])
    parsed = SelfTest.parse(memoryview(test.encode()), CHAIN)
    assert len(parsed.cases[0].window.data) == window.nbytes
    ((rows, scores),) = answers_of(parsed)
    assert rows.tolist() == [1, 2, 3, 4]
    assert scores.tolist() == SCORES.tolist()


def test_big_endian_windows_and_wider_floats_become_what_the_format_has() -> None:
    for window in (np.array([[1, 2], [3, 4]], ">i2"), np.array([[1, 2], [3, 4]], np.float64)):
        ((rows, _),) = answers_of(make_self_test(CHAIN, 0.02, [window], [SCORES]))
        assert rows.tolist() == [1, 2, 3, 4]


def test_a_picture_takes_a_byte_a_pixel() -> None:
    pixels = np.array([[0], [1], [254], [255]], np.float32)
    assert make_self_test(PICTURE, 0.02, [pixels], [SCORES]).cases[0].window.tag == 64
    assert make_self_test(PICTURE, 0.02, [pixels / 2], [SCORES]).cases[0].window.tag == FLOAT32


@pytest.mark.parametrize("window", [np.full((2, 2), 2**53 + 1), np.full((2, 2), 2**24 + 1, np.int32)])
def test_numbers_that_float32_does_not_hold_are_refused(window: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="float32"):
        make_self_test(CHAIN, 0.02, [window], [SCORES])


def test_a_self_test_that_no_board_would_take_is_not_packed() -> None:
    chain = Chain(input=Input(channels=("a1",)), window=Window(size=300_000), output=CHAIN.output)
    with pytest.raises(ConfigError, match="has room for 4194304") as refused:
        make_self_test(chain, 0.02, [np.zeros((300_000, 1), np.float32)] * 4, [SCORES] * 4)
    assert "fewer windows" in (refused.value.hint or "")


# --- what is read ----------------------------------------------------------------------------


def test_a_self_test_is_read_where_it_was_decrypted() -> None:
    """No copy: to wipe the buffer wipes every window."""
    room = bytearray(make_self_test(CHAIN, 0.02, [np.ones((2, 2), np.float32)], [SCORES]).encode())
    test = SelfTest.parse(memoryview(room), CHAIN)
    room[:] = bytes(len(room))
    assert not any(test.cases[0].window.data)


def test_no_altered_byte_raises_anything_but_a_format_error() -> None:
    good = make_self_test(CHAIN, 0.5, [np.ones((2, 2), np.float32)] * 3, [SCORES] * 3).encode()
    for at in range(len(good)):
        for bit in range(8):
            altered = bytearray(good)
            altered[at] ^= 1 << bit
            try:
                parsed = SelfTest.parse(memoryview(altered), CHAIN)
            except FormatError:
                continue
            assert parsed.encode() == altered


def test_a_self_test_beyond_its_bound_is_refused_unread() -> None:
    with pytest.raises(FormatError, match="more than the 4194304 allowed"):
        SelfTest.parse(memoryview(bytes(SELF_TEST_LIMIT + 1)), CHAIN)


def test_an_array_of_half_a_value_is_none() -> None:
    with pytest.raises(FormatError, match="whole values"):
        TypedArray(FLOAT32, bytes(7)).check()
