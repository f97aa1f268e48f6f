"""Windows: every row once in its place, however messages cut the rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import ReadingGapError
from edged.model.signal.window import RowWindow, TimeWindow


def numbered(count: int, channels: int = 2) -> npt.NDArray[np.float32]:
    """Return rows that hold their own number."""
    return np.repeat(np.arange(count, dtype=np.float32)[:, np.newaxis], channels, axis=1)


def run(window: RowWindow, rows: npt.NDArray[np.float32], cuts: list[int]) -> list[tuple[list[float], int, int]]:
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    return [
        (full.rows[:, 0].tolist(), full.first, full.last)
        for start, end in pairwise(edges)
        for full in window.push(rows[start:end])
    ]


@given(st.data(), st.integers(1, 12), st.integers(0, 60), st.lists(st.integers(0, 60), max_size=20))
def test_windows_are_those_of_the_whole_series(data: st.DataObject, size: int, count: int, cuts: list[int]) -> None:
    hop = data.draw(st.integers(1, size))
    starts = range(0, count - size + 1, hop)

    windows = run(RowWindow(size, hop, 2), numbered(count), cuts)

    assert windows == [(list(range(start, start + size)), start, start + size - 1) for start in starts]


def test_a_row_keeps_its_channels_apart() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)

    (full,) = [slice_.rows.copy() for slice_ in RowWindow(4, 4, 3).push(rows)]

    assert full.tolist() == rows.tolist()


def test_nothing_comes_of_no_rows() -> None:
    window = RowWindow(2, 2, 2)

    assert run(window, numbered(0), []) == []
    assert run(window, numbered(2), []) == [([0, 1], 0, 1)]


def test_a_reset_forgets_the_open_window_and_counts_on() -> None:
    window = RowWindow(3, 3, 2)
    assert run(window, numbered(2), []) == []

    window.reset()

    assert run(window, numbered(3), []) == [([0, 1, 2], 2, 4)]


def test_a_reset_of_overlapping_windows_forgets_the_overlap() -> None:
    window = RowWindow(4, 2, 2)
    assert len(run(window, numbered(4), [])) == 1

    window.reset()

    assert run(window, numbered(3), []) == []
    assert run(window, numbered(1), []) == [([0, 1, 2, 0], 4, 7)]


@pytest.mark.parametrize("hop", [1, 3])
def test_a_caller_that_stops_half_way_leaves_a_gap_and_no_mixture(hop: int) -> None:
    """A model that refuses one window must not make the next one of rows that do not follow each other."""
    window = RowWindow(3, hop, 2)
    for full in window.push(numbered(10)):
        assert full.first == 0
        break

    assert run(window, numbered(3), []) == [([0, 1, 2], 10, 12)]


def test_the_rows_of_a_window_are_a_view_and_cost_no_copy() -> None:
    window = RowWindow(2, 2, 2)

    first, second = [full.rows for full in window.push(numbered(4))]

    assert first is second


# --- by time ---------------------------------------------------------------------------------


def run_by_time(window: TimeWindow, times: list[float], cuts: list[int]) -> list[tuple[list[float], int, int]]:
    edges = [0, *sorted(min(cut, len(times)) for cut in cuts), len(times)]
    rows = np.array(times, np.float32).reshape(-1, 1)
    return [
        (np.arange(full.first, full.last + 1).tolist(), full.first, full.last)
        for start, end in pairwise(edges)
        if end > start
        for full in window.push(rows[start:end], np.array(times[start:end]))
        if full.rows.ravel().tolist() == rows[full.first : full.last + 1].ravel().tolist()
    ]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=50), st.lists(st.integers(0, 50), max_size=8),
    st.integers(1, 12), st.data(),
)  # fmt: skip
def test_windows_by_time_are_those_of_the_whole_series(
    steps: list[int], cuts: list[int], size: int, data: st.DataObject
) -> None:
    """In quarters of a second, which are exact."""
    hop = data.draw(st.integers(1, size))
    times = (np.cumsum(steps) / 4).tolist()
    expected = []
    begin, last = times[0], times[-1]
    while begin + size / 4 <= last:
        inside = [number for number, time in enumerate(times) if begin <= time < begin + size / 4]
        if inside:
            expected.append((inside, inside[0], inside[-1]))
        begin += hop / 4

    assert run_by_time(TimeWindow(size / 4, hop / 4, 1), times, cuts) == expected


def test_a_reset_begins_with_the_next_row() -> None:
    window = TimeWindow(1.0, 1.0, 1)
    run_by_time(window, [0.0, 0.5], [])

    assert window.reset()
    assert not window.reset()
    found = [
        full.rows.ravel().tolist() for full in window.push(np.array([[7], [8]], np.float32), np.array([0.75, 1.75]))
    ]
    assert found == [[7]]


def test_a_window_by_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.model.signal.window._MOST_ROWS_IN_TIME", 10)
    window = TimeWindow(100.0, 100.0, 1)

    with pytest.raises(ReadingGapError, match="a window by time holds over 10 rows"):
        list(window.push(np.zeros((11, 1), np.float32), np.linspace(0, 1, 11)))

    assert not window.reset()
