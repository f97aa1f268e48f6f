"""Values that come on several topics, joined to rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edged.formats.spec import Join
from edged.model.signal.rows import Joiner


def feed(joiner: Joiner, topic: int, value: float, time: float, width: int = 1) -> list[tuple[list[float], float]]:
    rows, times = joiner.push(topic, np.full((1, width), value, np.float32), np.array([time]))
    return [(row.tolist(), at) for row, at in zip(rows, times.tolist(), strict=True)]


def test_all_makes_a_row_once_every_topic_is_new() -> None:
    joiner = Joiner(Join(), [[0], [1]])

    assert feed(joiner, 0, 1, 0.0) == []
    assert feed(joiner, 0, 2, 1.0) == []
    assert feed(joiner, 1, 7, 2.0) == [([2, 7], 2.0)]
    assert feed(joiner, 1, 8, 3.0) == []
    assert feed(joiner, 0, 3, 4.0) == [([3, 8], 4.0)]


def test_any_makes_a_row_of_each_message_once_all_are_known() -> None:
    joiner = Joiner(Join(when="any", within="10 s"), [[0], [1]])

    assert feed(joiner, 0, 1, 0.0) == []
    assert feed(joiner, 1, 7, 1.0) == [([1, 7], 1.0)]
    assert feed(joiner, 0, 2, 2.0) == [([2, 7], 2.0)]


def test_a_topic_that_fell_silent_makes_no_row() -> None:
    joiner = Joiner(Join(when="any", within="5 s"), [[0], [1]])
    feed(joiner, 0, 1, 0.0)
    feed(joiner, 1, 7, 1.0)

    assert feed(joiner, 1, 8, 6.5) == []
    assert feed(joiner, 0, 2, 7.0) == [([2, 8], 7.0)]


def test_columns_stand_where_the_channels_do() -> None:
    joiner = Joiner(Join(), [[2, 0], [1]])
    joiner.push(0, np.array([[30, 10]], np.float32), np.array([0.0]))

    assert feed(joiner, 1, 20, 1.0) == [([10, 20, 30], 1.0)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 100)), max_size=60))
def test_all_uses_each_value_at_most_once_and_always_the_newest(messages: list[tuple[int, int]]) -> None:
    joiner = Joiner(Join(), [[0], [1], [2]])
    newest: dict[int, int] = {}
    expected, found = [], []
    for time, (topic, value) in enumerate(messages):
        found += feed(joiner, topic, value, float(time))
        newest[topic] = value
        if len(newest) == 3:
            expected.append(([newest[0], newest[1], newest[2]], float(time)))
            newest = {}
    assert found == expected
