"""The hub's intake, without brokers: what comes in one turn, in whatever order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import StateError
from edged.base.nothing import nothing
from edged.broker import Broker, BrokerOptions, Delivery
from edged.formats.channel.receiver import Receiver
from edged.hub.boards import BoardView
from edged.hub.counters import Counts, HubCounters
from edged.hub.intake import Intake
from edged.hub.sinks import AcceptedResult, ResultSink
from edged.hub.state import HubState
from support.parties import Board, Hub, seal


class CollectingSink(ResultSink):
    def __init__(self) -> None:
        self.results: list[AcceptedResult] = []
        self.fails = False

    def store(self, _result: AcceptedResult) -> None:
        if self.fails:
            raise StateError("the disk is full")

    def deliver(self, result: AcceptedResult) -> None:
        self.results.append(result)


class Receiving:
    """A board whose messages arrive at an intake."""

    def __init__(self, directory: Path) -> None:
        self.board, self.hub = Board(), Hub()
        self.announcer = self.board.announcer(self.hub)
        self.acknowledged: list[int] = []
        self.sink = CollectingSink()
        self.broker = Broker(BrokerOptions(url="mqtt://localhost"))
        self.state = HubState(directory)
        self.counters = HubCounters()
        self.now = time.monotonic()
        receiver = Receiver(self.hub.key, self.hub.name, [self.board.record], self.state)
        self.views = {self.board.name: BoardView(self.board.record)}
        self.intake = Intake(receiver, self.state, self.views, self.counters, [self.sink], nothing)
        self.arrived = 0

    def arrives(self, level: str, payload: bytes) -> None:
        """Hand in a message; its acknowledgement appends its number, from 0, to ``acknowledged``."""
        number = self.arrived
        self.arrived += 1
        topic = f"edged/{self.board.name}/{level}"
        done = partial(self.acknowledged.append, number)
        self.intake.take(self.broker, Delivery(topic, payload, 1, retain=False, dup=False, ack=done))

    def announced(self) -> None:
        """Hand in the board's announcement."""
        self.arrives("announce", self.announcer.announcement(time.time()))

    def turn(self) -> None:
        """Handle what has arrived."""
        self.now += 1
        self.intake.turn(self.now)

    def fail(self) -> None:
        """Make the state fail from now on."""
        self.sink.fails = True

    def recover(self) -> None:
        """Have the state work again."""
        self.sink.fails = False

    def rotate(self) -> None:
        """Have the board begin a new epoch, and answer under it."""
        self.announcer.rotate()
        self.answered()

    def answered(self) -> None:
        """Have a result arrive, ahead of the announcement of its epoch or behind it."""
        self.arrives("c1", seal(self.announcer))

    def other(self) -> None:
        """Have all else arrive that may."""
        for level in ("status", "nonce", "health", "inventory", "c1"):
            self.arrives(level, b"online")
        self.arrives("c1", seal(self.announcer, "c2"))

    def check_books(self) -> None:
        """Check that each message has ended in one count, or waits."""
        for counts, held in (
            (self.counters.all, self.intake.held.total()),
            (self.counters.boards.get(self.board.name, Counts()), self.intake.held[self.board.name]),
        ):
            ends = counts.opened + counts.repeated + counts.refused.total() + counts.other.total()
            assert counts.heard == self.arrived == ends + held
        assert len(self.acknowledged) == len(set(self.acknowledged)) == self.arrived - self.intake.held.total()


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Receiving]:
    receiving = Receiving(tmp_path)
    with closing(receiving.state), closing(receiving.broker):
        yield receiving


def test_results_that_come_ahead_of_their_announcement_in_one_turn_open_after_it(receiving: Receiving) -> None:
    """As after a restart of the hub: what waited at the broker, then what stands retained there."""
    for _ in range(10):
        receiving.arrives("c1", seal(receiving.announcer))
    receiving.announced()
    receiving.arrives("c1", seal(receiving.announcer))
    receiving.turn()
    assert [one.opened.count for one in receiving.sink.results] == list(range(1, 12))
    assert sorted(receiving.acknowledged) == list(range(12))
    assert receiving.intake.held.total() == 0


def test_a_result_of_a_closed_epoch_is_not_shown_as_the_present(receiving: Receiving) -> None:
    """It says that it is not late: it was sealed just before the outage that it waited in."""
    waited = seal(receiving.announcer)
    receiving.announcer.rotate()
    receiving.announced()
    receiving.arrives("c1", waited)
    receiving.arrives("c1", seal(receiving.announcer))
    receiving.turn()
    assert [one.newest for one in receiving.sink.results] == [False, True]


def test_what_waited_for_an_announcement_opens_ahead_of_what_came_behind_it(receiving: Receiving) -> None:
    """Otherwise the newest result of a channel would be shown first, and the others as late ones."""
    for _ in range(3):
        receiving.answered()
    receiving.turn()
    assert receiving.intake.held.total() == 3
    receiving.announced()
    receiving.answered()
    receiving.turn()
    assert [(one.opened.count, one.newest) for one in receiving.sink.results] == [(n, True) for n in range(1, 5)]


def test_more_results_than_may_wait_all_open_if_their_announcement_comes_in_the_same_turn(receiving: Receiving) -> None:
    """The bound holds from one turn to the next: after a restart, brokers hand out what waited ahead of what they retain."""
    for _ in range(700):
        receiving.answered()
    receiving.announced()
    receiving.turn()
    assert len(receiving.sink.results) == 700
    for _ in range(700):
        receiving.rotate()
    receiving.turn()
    assert 400 < receiving.intake.held.total() < 600
    receiving.check_books()


def test_what_is_taken_out_of_a_turn_that_fails_is_where_it_was(receiving: Receiving) -> None:
    """Messages that waited, those that the turn would have added, and those that it would have given up."""
    receiving.answered()
    receiving.turn()
    receiving.rotate()
    receiving.announced()
    receiving.fail()
    for _ in range(3):
        receiving.turn()
        assert (receiving.intake.held.total(), receiving.acknowledged) == (3, [])
    receiving.recover()
    receiving.turn()
    assert [one.opened.epoch for one in receiving.sink.results] == [1, 2]
    receiving.check_books()


def test_a_turn_whose_state_fails_is_handled_once_more_with_what_had_waited(receiving: Receiving) -> None:
    receiving.answered()
    receiving.turn()
    receiving.announced()
    receiving.answered()
    receiving.fail()
    receiving.turn()
    assert (receiving.acknowledged, receiving.intake.held.total(), receiving.intake.error) == (
        [],
        3,
        "the disk is full",
    )
    receiving.recover()
    receiving.turn()
    receiving.turn()
    assert sorted(one.opened.count for one in receiving.sink.results) == [1, 2]
    assert (receiving.intake.held.total(), receiving.intake.error) == (0, "")
    receiving.check_books()


def test_what_waits_of_a_board_that_is_removed_is_refused(receiving: Receiving) -> None:
    """A status of it in the same turn ended the hub."""
    receiving.answered()
    receiving.turn()
    receiving.arrives("status", b"online")
    del receiving.views[receiving.board.name]
    receiving.intake.forget(receiving.board.name)
    receiving.turn()
    assert receiving.counters.all.refused == {"UnknownSignerError": 2}
    receiving.check_books()


def test_what_a_broker_counts_as_delivered_while_it_waits_is_shown(
    receiving: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broker, "limits_redelivery", True)
    receiving.answered()
    receiving.turn()
    assert (receiving.acknowledged, receiving.intake.held_acknowledged) == ([0], 1)
    receiving.announced()
    receiving.turn()
    assert (receiving.acknowledged, receiving.intake.held_acknowledged) == ([0, 1], 0)


STEPS = st.sampled_from(["answered"] * 3 + ["announced", "rotate", "other", "turn", "turn", "fail", "recover"])


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=30))
def test_each_message_ends_in_one_count_and_is_acknowledged_once(steps: list[str]) -> None:
    with TemporaryDirectory() as directory:
        receiving = Receiving(Path(directory))
        with closing(receiving.state), closing(receiving.broker):
            for step in steps:
                getattr(receiving, step)()
                receiving.check_books()
            receiving.recover()
            receiving.announced()
            for _ in range(3):
                receiving.turn()
            receiving.check_books()
            receiving.intake.tidy(time.monotonic() + 3600)
            assert receiving.intake.held.total() == 0
            receiving.check_books()
