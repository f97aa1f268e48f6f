"""The outbox: in order, bounded, counted, and still there after a restart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import StateError
from edged.board.delivery.outbox import GROUP, IN_FLIGHT, Outbox
from edged.board.state import OutboxStore, State, StoredResult
from edged.formats.channel.epoch import StoredEpoch
from support.serving import RamState

KID = b"8 bytes!"


class Box:
    """An outbox over a state in RAM, and what left it."""

    def __init__(self, *, most: int = 10**6, longest: float = 1e9, state: State | None = None) -> None:
        self.state = state or RamState()
        self.gone: list[str] = []
        self.done: list[int] = []
        self.box = Outbox(
            OutboxStore(self.state),
            most=most,
            longest=longest,
            epoch_of=lambda kid: StoredEpoch(kid, 7, bytes(32), 1, signs=False, key=b"sealed", hubs=bytes(32)),
            on_gone=lambda _kid, why: self.gone.append(why),
        )

    def add(self, number: int, *, size: int = 100, stored: float = 0.0) -> None:
        result = StoredResult(0, KID, number, "edged/b/c1", number.to_bytes(size, "big"), stored)
        self.box.add(result, 0.0, lambda: self.done.append(number))

    def take(self, now: float) -> list[int]:
        """Send what may be sent, and have it acknowledged at once."""
        taken = []
        for result in list(self.box.next_to_send(now, lambda _kid: True)):
            taken.append(result.counter)
            self.box.sent(result.number, now)
        return taken


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["add", "write", "restart", "send"]), max_size=80))
def test_results_leave_once_and_in_order_whatever_happens_between(steps: list[str]) -> None:
    """A restart may lose what is not written yet, and repeats what was sent and not yet removed."""
    box, added, left = Box(), 0, []
    now = 0.0
    written = 0
    for step in steps:
        now += 1.0
        if step == "add":
            box.add(added)
            added += 1
        elif step == "write":
            box.box.turn(0.0, 1e12)
            written = added
        elif step == "restart":
            box.box.flush(now)
            written = added
            box = Box(state=box.state)
        else:
            left += box.take(now)
        assert left == sorted(set(left))
        assert box.box.waiting == added - len(left)
    box.box.flush(now)
    while taken := box.take(now := now + 1):
        left += taken
    assert left == list(range(added))
    assert written <= added
    box.box.flush(now)
    assert OutboxStore(box.state).totals() == (0, 0)
    assert OutboxStore(box.state).epochs() == []


def test_what_waits_for_a_result_is_told_once_it_is_durable() -> None:
    box = Box()
    for number in range(GROUP - 1):
        box.add(number)
    assert box.done == []
    box.add(GROUP - 1)
    assert box.done == list(range(GROUP))
    assert OutboxStore(box.state).totals()[0] == GROUP


def test_beyond_its_size_the_oldest_go_and_are_counted() -> None:
    box = Box(most=5000)
    for number in range(200):
        box.add(number)
        box.box.flush(0.0)
    left = []
    now = 0.0
    while taken := box.take(now := now + 1):
        left += taken
    assert left == list(range(200 - len(left), 200))
    assert box.gone.count("results.outbox.size is full") == 200 - len(left)
    assert 45 <= len(left) <= 50


def test_what_is_on_its_way_is_not_dropped() -> None:
    box = Box(most=1000)
    for number in range(10):
        box.add(number)
    box.box.flush(0.0)
    on_their_way = list(box.box.next_to_send(1.0, lambda _kid: True))
    for number in range(10, 20):
        box.add(number)
        box.box.flush(0.0)
    for result in on_their_way:
        box.box.sent(result.number, 1.0)
    box.box.flush(1.0)
    assert box.gone.count("") == len(on_their_way) == 10


def test_old_results_go_but_none_whose_age_nobody_knows() -> None:
    """A board without a clock stores no dates: its results would seem to be of 1970."""
    box = Box(longest=100.0)
    box.add(1, stored=1000.0)
    box.add(2, stored=1500.0)
    box.box.flush(0.0)
    box.box.turn(1550.0, 0.0)
    assert box.gone == ["it waited longer than results.outbox.age"]
    unknown = Box(longest=100.0)
    unknown.add(1)
    unknown.box.flush(0.0)
    unknown.box.turn(2e9, 0.0)
    assert unknown.gone == []


def test_no_more_is_on_its_way_than_leaves_room_for_live_results() -> None:
    box = Box()
    for number in range(3 * IN_FLIGHT):
        box.add(number)
    box.box.flush(0.0)
    assert len(list(box.box.next_to_send(10.0, lambda _kid: True))) == IN_FLIGHT
    assert list(box.box.next_to_send(20.0, lambda _kid: True)) == []


def test_what_nobody_heard_is_the_next_to_be_sent() -> None:
    box = Box()
    for number in range(3):
        box.add(number)
    box.box.flush(0.0)
    (first,) = box.box.next_to_send(1.0, lambda _kid: True, 1)
    box.box.requeue(first.number)
    assert box.take(2.0) == [0, 1, 2]


def test_a_disk_that_fails_keeps_results_in_ram_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box()

    def fail(*_: object) -> None:
        raise StateError("no space left")

    monkeypatch.setattr(OutboxStore, "add", fail)
    box.add(1)
    box.box.turn(0.0, 1.0)
    assert (box.box.error, box.done, box.box.unstored) == ("no space left", [], 1)
    monkeypatch.undo()
    box.box.turn(0.0, 10.0)
    assert (box.box.error, box.done, box.box.unstored) == ("", [1], 0)
