"""Rows in the order of time: what is too old, what follows a gap, and rows at a stated rate."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import ConfigError, ReadingGapError, ReadingOrderError
from edged.formats.spec import Chain, Gap, Input, Output, Window
from edged.model.signal.rows import Piece, Timeline

Doubles = npt.NDArray[np.float64]


def timeline(window: Window = Window(size=1000), **fields: Any) -> Timeline:  # noqa: B008  frozen
    return Timeline(Chain(input=Input(channels=("a",), **fields), window=window, output=Output(kind="regressor")))


def push(to: Timeline, times: list[float], values: list[float] | None = None) -> list[Piece]:
    rows = np.array(times if values is None else values, np.float32).reshape(-1, 1)
    return list(to.push(rows, np.array(times, np.float64)))


def shown(pieces: list[Piece]) -> list[tuple[list[float], bool]]:
    return [(piece.times.tolist(), piece.restarts) for piece in pieces]


# --- order -----------------------------------------------------------------------------------


def test_a_row_older_than_the_one_before_is_refused_and_changes_nothing() -> None:
    line = timeline()
    push(line, [1, 2, 3])

    for old in ([2.5], [3.5, 3.4], [4, 5, 4.5]):
        with pytest.raises(ReadingOrderError, match="a row is older than the row before it"):
            push(line, old)

    assert shown(push(line, [3.2])) == [([3.2], False)]


def test_old_rows_are_dropped_where_the_manifest_wants_that() -> None:
    line = timeline(order="drop")

    assert shown(push(line, [1, 3, 2, 4, 3.5, 4])) == [([1, 3, 4, 4], False)]
    assert shown(push(line, [2, 3])) == []
    assert shown(push(line, [4])) == [([4], False)]


def test_a_clock_that_begins_anew_restarts_the_window() -> None:
    line = timeline(order="restart")

    assert shown(push(line, [100, 101, 0.5, 1.5])) == [([100, 101], False), ([0.5, 1.5], True)]
    assert shown(push(line, [0.1])) == [([0.1], True)]


@given(st.lists(st.floats(0, 100), max_size=30), st.lists(st.integers(0, 30), max_size=5))
def test_dropping_keeps_what_a_loop_would_keep(times: list[float], cuts: list[int]) -> None:
    line = timeline(order="drop")
    edges = [0, *sorted(min(cut, len(times)) for cut in cuts), len(times)]
    kept = [time for a, b in pairwise(edges) for piece in push(line, times[a:b]) for time in piece.times.tolist()]

    expected: list[float] = []
    for time in times:
        if not expected or time >= expected[-1]:
            expected.append(time)
    assert kept == expected


# --- gaps ------------------------------------------------------------------------------------


def test_a_pause_longer_than_the_gap_begins_anew_however_messages_cut_the_rows() -> None:
    times = [0.0, 1.0, 2.0, 3.5, 4.0, 10.0, 11.5]
    expected = [([0.0, 1.0, 2.0], False), ([3.5, 4.0], True), ([10.0], True), ([11.5], True)]

    assert shown(push(timeline(gap=Gap(over="1.2 s")), times)) == expected
    line = timeline(gap=Gap(over="1.2 s"))
    single = [one for time in times for one in shown(push(line, [time]))]
    assert [time for (time,), _ in single] == times
    assert [time for (time,), anew in single if anew] == [3.5, 10.0, 11.5]


def test_a_filled_gap_repeats_the_last_row_at_the_rate() -> None:
    line = timeline(rate="10 Hz", gap=Gap(over="150 ms", then="fill"), window=Window(size=10))
    push(line, [0.0, 0.1], [5, 6])

    (piece,) = push(line, [0.5], [9])

    assert piece.times == pytest.approx([0.2, 0.3, 0.4, 0.5])
    assert (piece.rows.ravel().tolist(), piece.restarts) == ([6, 6, 6, 9], False)


def test_a_gap_longer_than_a_window_is_not_filled() -> None:
    line = timeline(rate="10 Hz", gap=Gap(over="150 ms", then="fill"), window=Window(size=10))
    push(line, [0.0])

    assert shown(push(line, [1.5])) == [([1.5], True)]
    assert shown(push(line, [1e9])) == [([1e9], True)]


# --- resampling ------------------------------------------------------------------------------

TIMES = st.lists(st.floats(0.01, 0.4), min_size=1, max_size=40).map(lambda steps: np.cumsum(steps).tolist())


@given(TIMES, st.lists(st.integers(0, 40), max_size=6))
def test_linear_rows_are_those_of_interpolating_the_whole_series(times: list[float], cuts: list[int]) -> None:
    values = [float(np.sin(time)) for time in times]
    line = timeline(rate="10 Hz", resample="linear")
    edges = [0, *sorted(min(cut, len(times)) for cut in cuts), len(times)]
    pieces = [one for a, b in pairwise(edges) for one in push(line, times[a:b], values[a:b])]
    found = np.concatenate([piece.rows.ravel() for piece in pieces])
    grid = np.concatenate([piece.times for piece in pieces])

    assert not any(piece.restarts for piece in pieces)
    assert grid == pytest.approx(times[0] + 0.1 * np.arange(len(grid)))
    assert times[-1] - 0.1 < grid[-1] + 1e-6
    assert grid[-1] <= times[-1] + 1e-6
    assert found == pytest.approx(np.interp(grid, times, values).astype(np.float32), abs=1e-5)


def test_held_rows_repeat_the_last_one() -> None:
    line = timeline(rate="10 Hz", resample="hold")

    pieces = push(line, [0.0, 0.05, 0.25], [1, 2, 3]) + push(line, [0.31], [4])

    assert [piece.rows.ravel().tolist() for piece in pieces] == [[1, 2, 2], [3]]


def test_a_jump_of_a_year_makes_no_billion_rows() -> None:
    """Without a gap rule, a pause longer than a window is one."""
    line = timeline(rate="10 Hz", resample="linear", window=Window(size="2 s"))
    push(line, [0.0])

    (piece,) = push(line, [3e7])

    assert (len(piece.rows), piece.restarts) == (1, True)


def test_after_a_reset_nothing_is_interpolated_across_the_hole() -> None:
    line = timeline(rate="10 Hz", resample="linear")
    push(line, [0.0, 0.1], [0, 1])
    line.reset()

    (piece,) = push(line, [0.55, 0.65], [100, 200])

    assert piece.rows.ravel().tolist() == [100, 200]


@pytest.mark.parametrize("gap", [{"resample": "hold"}, {"resample": "linear"}])
def test_one_reading_far_ahead_is_not_made_into_millions_of_rows(gap: dict[str, Any]) -> None:
    """Anybody who may write to the topic could have sent it."""
    line = timeline(rate="100 Hz", gap=Gap(over="1000 d", then="restart"), **gap)
    push(line, [1.0])
    with pytest.raises(ReadingGapError, match="rows behind the one before it"):
        push(line, [1e6])
    assert shown(push(line, [1e6 + 1])) == [([1e6 + 1], False)]


def test_a_hop_that_no_clock_can_tell_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"window\.hop: at least 1 ms"):
        Window(size="1 s", hop="1 us")
