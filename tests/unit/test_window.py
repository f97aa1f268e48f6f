"""Rows into windows, however they arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ConfigError
from edged.signal import spec
from edged.signal.window import Window

Floats = npt.NDArray[np.float32]


def rows(first: int, count: int) -> Floats:
    """Return rows that each hold their own number, and its negative."""
    numbers = np.arange(first, first + count, dtype=np.float32)
    return np.stack([numbers, -numbers], axis=1)


def push(window: Window, first: int, count: int) -> list[tuple[list[float], int, int]]:
    return [(full.rows[:, 0].tolist(), full.first, full.last) for full in window.push(rows(first, count))]


@given(st.integers(1, 12), st.data(), st.lists(st.integers(0, 30), max_size=12))
def test_windows_do_not_depend_on_how_rows_were_cut_into_messages(
    size: int, data: st.DataObject, cuts: list[int]
) -> None:
    hop = data.draw(st.integers(1, size))
    window = Window(size, hop, 2)
    found, at = [], 0
    for count in cuts:
        found += push(window, at, count)
        at += count

    assert found == [(list(range(i, i + size)), i, i + size - 1) for i in range(0, at - size + 1, hop)]


def test_every_channel_stays_in_its_column() -> None:
    (full,) = Window(3, 3, 2).push(rows(0, 3))

    assert full.rows.tolist() == [[0, 0], [1, -1], [2, -2]]
    assert full.rows.dtype == np.float32


def test_reset_begins_anew_and_goes_on_counting() -> None:
    window = Window(3, 1, 2)
    push(window, 0, 4)
    window.reset()

    assert push(window, 4, 2) == []
    assert push(window, 6, 1) == [([4, 5, 6], 4, 6)]


def test_caller_that_stops_half_way_leaves_a_gap_and_no_window_twice() -> None:
    """A model may refuse a window: rows behind it are lost, and the numbers of later ones stay right."""
    window = Window(3, 3, 2)
    windows = window.push(rows(0, 8))
    next(windows)

    assert push(window, 8, 2) == []
    assert push(window, 10, 1) == [([8, 9, 10], 8, 10)]


def test_a_window_does_not_keep_what_it_was_given() -> None:
    window, given_rows = Window(2, 2, 2), rows(0, 1)
    list(window.push(given_rows))
    given_rows[:] = 99

    assert push(window, 1, 1) == [([0, 1], 0, 1)]


@pytest.mark.parametrize(("size", "hop"), [(0, None), (-1, None), (1_000_001, None), (3, 0), (3, 4)])
def test_manifest_with_another_size_or_hop_is_refused(size: int, hop: int | None) -> None:
    with pytest.raises(ConfigError, match=r"window\.(size|hop): between 1 and"):
        spec.Window(size=size, hop=hop)


def test_windows_stand_side_by_side_by_default() -> None:
    assert spec.Window(size=300).step == 300
    assert spec.Window(size=300, hop=150).step == 150
