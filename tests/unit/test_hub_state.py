"""What a hub must not forget: bits of counts, across processes that share them and transactions that come to nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import StateError
from edged.formats.channel import Believed
from edged.formats.channel.epoch import MAX_COUNT
from edged.formats.channel.ledger import ANSWERED
from edged.hub.state import HubState
from edged.hub.topics import Place

KID, OTHER = b"k" * 8, b"o" * 8
counts = st.integers(1, MAX_COUNT)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[HubState]:
    state = HubState(tmp_path)
    yield state
    state.close()


class BrokenOffError(Exception):
    """Ends a transaction."""


def break_off() -> None:
    raise BrokenOffError


@settings(max_examples=30)
@given(st.sets(counts, max_size=40), st.sets(counts, max_size=40))
def test_what_was_marked_is_marked_and_nothing_else_also_for_another_process(marked: set[int], asked: set[int]) -> None:
    with TemporaryDirectory() as directory:
        one, other = HubState(Path(directory)), HubState(Path(directory), "b")
        try:
            for number, count in enumerate(marked):
                state = (one, other)[number % 2]
                with state.batch():
                    assert not state.is_marked("press", KID, count)
                    state.mark("press", KID, count)
            for state in (one, other):
                with state.batch():
                    assert {count for count in marked | asked if state.is_marked("press", KID, count)} == marked
                    assert not any(state.is_marked("press", OTHER, count) for count in marked)
                    assert not any(state.is_marked("press-2", KID, count) for count in marked)
        finally:
            one.close()
            other.close()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.sets(counts, min_size=1, max_size=5)), max_size=10))
def test_a_batch_that_is_broken_off_has_marked_nothing(batches: list[tuple[bool, set[int]]]) -> None:
    with TemporaryDirectory() as directory:
        state = HubState(Path(directory))
        kept: set[int] = set()
        tried: set[int] = set()
        try:
            for good, marks in batches:
                tried |= marks
                try:
                    with state.batch():
                        for count in marks:
                            state.mark("press", KID, count)
                        if not good:
                            break_off()
                    kept |= marks
                except BrokenOffError:
                    pass
            with state.batch():
                assert {count for count in tried if state.is_marked("press", KID, count)} == kept
        finally:
            state.close()


def test_everything_of_a_batch_that_is_broken_off_is_gone(state: HubState) -> None:
    with pytest.raises(BrokenOffError), state.batch():  # noqa: PT012  the batch is what is tried
        state.believe("press", Believed(1, 1, KID, signs=False))
        state.answer("press", b"what", 7, redelivered=False)
        state.queue("topic", b"payload", retain=True)
        state.show("press", Place("c1"), 1, 1, b"{}")
        state.keep_inventory("press", b"")
        state.note_published("topic")
        break_off()
    with state.batch():
        assert state.believed("press") is None
        assert state.answer("press", b"what", 8, redelivered=True)
    assert (state.queued(0, 10), state.shown(), state.inventories(), state.published()) == ([], [], {}, [])


def test_all_of_it_is_there_after_a_restart(tmp_path: Path) -> None:
    state = HubState(tmp_path)
    with state.batch():
        state.believe("press", Believed(7, 2, KID, signs=True))
        state.mark("press", KID, 4096)
        state.answer("press", b"what", 7, redelivered=False)
    state.close()

    state = HubState(tmp_path)
    with state.batch():
        assert state.believed("press") == (7, 2, KID, True)
        assert [state.is_marked("press", KID, count) for count in (4095, 4096, 4097)] == [False, True, False]
        assert not state.answer("press", b"what", 8, redelivered=True)
    state.close()


def test_epochs_that_are_named_stay_and_others_are_forgotten(state: HubState) -> None:
    kids = [bytes([number]) * 8 for number in range(40)]
    with state.batch():
        for kid in kids:
            state.mark("press", kid, 1)
        state.mark("other", kids[0], 1)
        state.forget_epochs("press", kids[30:])
        assert [kid for kid in kids if state.is_marked("press", kid, 1)] == kids[30:]
    with state.batch():
        assert [kid for kid in kids if state.is_marked("press", kid, 1)] == kids[30:]
        assert state.is_marked("other", kids[0], 1)


def test_a_mark_of_an_epoch_that_is_forgotten_in_the_same_batch_is_not_written(state: HubState) -> None:
    with state.batch():
        state.mark("press", KID, 1)
        state.forget_epochs("press", [])
    with state.batch():
        assert not state.is_marked("press", KID, 1)


def test_answers_are_pruned_the_oldest_first_and_each_board_by_itself(state: HubState) -> None:
    with state.batch():
        state.answer("other", b"what", 7, redelivered=False)
        for number in range(ANSWERED + 1024):
            state.answer("press", number.to_bytes(4, "big"), 7, redelivered=False)
    (held,) = state.db.execute("SELECT count(*) FROM answers WHERE device = 'press'").fetchone()
    assert ANSWERED <= held <= ANSWERED + 512
    with state.batch():
        assert not state.answer("press", (1024).to_bytes(4, "big"), 8, redelivered=True)
        assert state.answer("press", (0).to_bytes(4, "big"), 8, redelivered=True)
        assert not state.answer("other", b"what", 8, redelivered=True)


def test_a_redelivered_answer_is_remembered_behind_all_that_waits_in_a_long_outbox(state: HubState) -> None:
    """The board died with its last reading in hand: the outbox ends with the answer that was given again since."""
    with state.batch():
        assert state.answer("press", b"last", 8, redelivered=True)
        for number in range(3 * ANSWERED):
            state.answer("press", number.to_bytes(4, "big"), 7, redelivered=False)
        assert not state.answer("press", b"last", 7, redelivered=False)


def test_a_database_of_the_first_layout_opens(tmp_path: Path) -> None:
    HubState(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "hub.db")) as old:
        old.executescript(
            "DROP TABLE answers; CREATE TABLE answered (number INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL,"
            " what BLOB NOT NULL, kid BLOB NOT NULL, UNIQUE (device, what)) STRICT; PRAGMA user_version = 1"
        )
    with closing(HubState(tmp_path)) as state, state.batch():
        assert state.answer("press", b"what", 7, redelivered=False)


def test_each_process_has_a_queue_of_its_own_in_order(tmp_path: Path) -> None:
    one, other = HubState(tmp_path), HubState(tmp_path, "b")
    for number in range(6):
        state = (one, other)[number % 2]
        with state.batch():
            state.queue(f"t{number}", b"", retain=number < 3)
    assert [(row.topic, row.retain) for row in one.queued(0, 10)] == [("t0", True), ("t2", True), ("t4", False)]
    first, second, _ = other.queued(0, 10)
    assert [row.topic for row in other.queued(first.number, 1)] == ["t3"]
    with other.batch():
        other.unqueue([second.number])
    assert (one.count_queued(), other.count_queued()) == (3, 2)
    with one.batch():
        assert one.drop_oldest(1) == 2
    assert [row.topic for row in one.queued(0, 10)] == ["t4"]
    assert other.count_queued() == 2
    one.close()
    other.close()


def test_nothing_is_dropped_of_a_queue_that_is_short_enough(state: HubState) -> None:
    with state.batch():
        for _ in range(5):
            state.queue("t", b"", retain=False)
        assert [state.drop_oldest(keep) for keep in (6, 5, 4, 1)] == [0, 0, 1, 3]


def test_what_is_queued_for_a_topic_that_was_taken_away_is_not_retained(state: HubState) -> None:
    with state.batch():
        state.queue("edged-hub/press/c1", b"", retain=True)
        state.queue("edged-hub/press/c10", b"", retain=True)
        state.unretain("edged-hub/press/c1")
    assert [row.retain for row in state.queued(0, 10)] == [False, True]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=20))
def test_the_newest_result_is_shown_whatever_the_order(order: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as directory:
        state = HubState(Path(directory))
        best = (0, 0)
        try:
            for epoch, count in order:
                with state.batch():
                    assert state.show("press", Place("c1"), epoch, count, f"{epoch} {count}".encode()) is (
                        (epoch, count) > best
                    )
                best = max(best, (epoch, count))
            assert state.shown() == [("press", Place("c1"), f"{best[0]} {best[1]}".encode())]
        finally:
            state.close()


def test_a_place_or_a_board_is_forgotten_and_what_was_accepted_stays(state: HubState) -> None:
    with state.batch():
        for place in (Place("c1"), Place("c1", "a")):
            state.show("press", place, 1, 1, b"{}")
            state.show("other", place, 1, 1, b"{}")
        state.keep_inventory("press", b"x")
        state.mark("press", KID, 1)
        state.forget("press", Place("c1"))
    assert [row[:2] for row in state.shown() if row[0] == "press"] == [("press", Place("c1", "a"))]
    assert state.inventories() == {"press": b"x"}
    with state.batch():
        state.forget("press")
        assert state.is_marked("press", KID, 1)
    assert [row[0] for row in state.shown()] == ["other", "other"]
    assert state.inventories() == {}


def test_removed_configurations_are_told_once(state: HubState) -> None:
    with state.batch():
        assert state.removed_config("a") == b""
        state.keep_removed_config("a", b"1")
        assert state.removed_config("a") == b"1"
        state.keep_removed_config("a", b"2")
        assert state.take_removed_configs() == [("a", b"2")]
        assert state.take_removed_configs() == []


def test_last_configuration_of_a_board_is_kept_until_there_is_none(state: HubState) -> None:
    with state.batch():
        state.keep_configuration("press", b"1")
        state.keep_configuration("press", b"2")
    assert state.configurations() == {"press": b"2"}
    with state.batch():
        state.keep_configuration("press", None)
    assert state.configurations() == {}


def test_damage_is_an_error_of_the_state(tmp_path: Path) -> None:
    HubState(tmp_path).close()
    (tmp_path / "hub.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StateError):
        HubState(tmp_path)
