"""The outbox: in order, bounded, counted, and still there after a restart."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import StateError
from edged.board.delivery.hold import Hold
from edged.board.delivery.outbox import GROUP, Outbound, Outbox
from edged.board.health import Health
from edged.board.state import OutboxStore, State
from edged.formats.channel import StoredEpoch
from edged.formats.channel.announcer import Announcer
from support.serving import RamState

KID = b"8 bytes!"


class FakeAnnouncer:
    """Knows one epoch, and counts the results whose way has ended."""

    def __init__(self) -> None:
        self.ended = 0

    def find(self, kid: bytes) -> StoredEpoch:
        return StoredEpoch(kid, 7, bytes(32), 1, signs=False, key=b"sealed", hubs=bytes(32))

    def restore(self, epochs: object) -> None:
        del epochs

    def delivered(self, _kid: bytes) -> None:
        self.ended += 1


class Box:
    """An outbox over a state in RAM, and what left it."""

    def __init__(self, *, most: int = 10**6, longest: float = 1e9, state: State | None = None) -> None:
        self.state = state or RamState()
        self.health = Health()
        self.announcer = FakeAnnouncer()
        self.done: list[int] = []
        self.box = Outbox(
            OutboxStore(self.state), cast("Announcer", self.announcer), self.health, most=most, longest=longest
        )

    def add(self, number: int, *, size: int = 100, stored: float = 0.0) -> None:
        hold = Hold(lambda: self.done.append(number))
        self.box.keep(Outbound(KID, number, "edged/b/c1", number.to_bytes(size, "big"), stored, hold), 0.0)

    def send(self, most: int = 1000) -> list[Outbound]:
        """Take what may be sent."""
        sent: list[Outbound] = []
        while len(sent) < most and (result := self.box.take_next()) is not None:
            result.sent = 1.0
            sent.append(result)
        return sent

    def take(self, now: float) -> list[int]:
        """Send what may be sent, and have it acknowledged at once."""
        sent = self.send(100)
        for result in sent:
            self.box.end(result, now)
        return [one.count for one in sent]

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.health.books.dropped)


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
    assert box.dropped == {"results.outbox.size is full": 200 - len(left)}
    assert 45 <= len(left) <= 50


def test_a_result_on_its_way_is_not_dropped_and_others_make_room() -> None:
    box = Box(most=1000)
    for number in range(10):
        box.add(number)
    box.box.flush(0.0)
    on_their_way = box.send(5)
    for number in range(10, 20):
        box.add(number)
        box.box.flush(0.0)
    for result in on_their_way:
        box.box.end(result, 1.0)
    box.box.flush(1.0)
    left = box.take(2.0)
    assert left == list(range(20 - len(left), 20))
    assert box.dropped == {"results.outbox.size is full": 15 - len(left)}


def test_old_results_go_but_none_whose_age_nobody_knows() -> None:
    """A board without a clock stores no dates: its results would seem to be of 1970."""
    box = Box(longest=100.0)
    box.add(1, stored=1000.0)
    box.add(2, stored=1500.0)
    box.box.flush(0.0)
    box.box.turn(1550.0, 0.0)
    assert box.dropped == {"it waited longer than results.outbox.age": 1}
    unknown = Box(longest=100.0)
    unknown.add(1)
    unknown.box.flush(0.0)
    unknown.box.turn(2e9, 0.0)
    assert unknown.dropped == {}


def test_a_result_that_nobody_heard_is_the_next_to_be_sent() -> None:
    box = Box()
    for number in range(3):
        box.add(number)
    box.box.flush(0.0)
    first, second = box.send(2)
    box.box.keep(second, 1.0)
    box.box.keep(first, 1.0)
    assert box.take(2.0) == [0, 1, 2]


def test_a_result_that_is_stored_while_it_is_on_its_way_is_not_sent_twice() -> None:
    box = Box()
    slow = Outbound(KID, 1, "edged/b/c1", b"slow", 0.0, sent=1.0)
    box.box.store(slow, 1.0)
    box.box.flush(1.0)
    assert slow.number
    assert box.take(2.0) == []
    box.box.keep(slow, 2.0)  # its link has fallen
    assert box.take(3.0) == [1]


def test_a_result_that_arrives_before_it_was_written_is_not_written() -> None:
    box = Box()
    slow = Outbound(KID, 1, "edged/b/c1", b"slow", 0.0, sent=1.0)
    box.box.store(slow, 1.0)
    box.box.end(slow, 1.0)
    box.box.flush(1.0)
    assert (box.box.waiting, box.box.size, OutboxStore(box.state).totals()) == (0, 0, (0, 0))
    assert box.announcer.ended == 1


def test_after_the_disk_was_lost_results_in_ram_are_stored_anew_and_the_others_counted() -> None:
    box = Box()
    for number in range(5):
        box.add(number)
    box.box.flush(0.0)
    (first,) = box.send(1)
    box.state.db.execute("DELETE FROM outbox")
    box.box.start_over(1.0, [first])
    box.box.flush(1.0)
    box.box.keep(first, 1.0)
    left = box.take(2.0)
    assert left[0] == 0
    assert len(left) + sum(box.dropped.values()) == 5


def test_a_disk_that_fails_keeps_results_in_ram_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box()

    def fail(*_: object) -> None:
        raise StateError("no space left")

    monkeypatch.setattr(OutboxStore, "add", fail)
    box.add(1)
    box.box.turn(0.0, 1.0)
    assert (box.box.error, box.done, box.box.unwritten) == ("no space left", [], 1)
    monkeypatch.undo()
    box.box.turn(0.0, 10.0)
    assert (box.box.error, box.done, box.box.unwritten) == ("", [1], 0)
