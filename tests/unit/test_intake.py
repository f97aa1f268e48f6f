"""The hub's intake, without brokers: what comes in one turn, in whatever order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from edged.base.nothing import nothing
from edged.broker import Broker, BrokerOptions, Delivery
from edged.formats.channel.receiver import Receiver
from edged.hub.boards import BoardView
from edged.hub.counters import HubCounters
from edged.hub.intake import Intake
from edged.hub.sinks import AcceptedResult, ResultSink
from edged.hub.state import HubState
from support.parties import Board, Hub, seal


class CollectingSink(ResultSink):
    def __init__(self) -> None:
        self.results: list[AcceptedResult] = []

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
        receiver = Receiver(self.hub.key, self.hub.name, [self.board.record], self.state)
        views = {self.board.name: BoardView(self.board.record)}
        self.intake = Intake(receiver, self.state, views, HubCounters(), [self.sink], nothing)
        self._arrived = 0

    def arrives(self, level: str, payload: bytes) -> None:
        """Have a message arrive; its acknowledgement appends its number, from 0, to ``acknowledged``."""
        number = self._arrived
        self._arrived += 1
        topic = f"edged/{self.board.name}/{level}"
        done = partial(self.acknowledged.append, number)
        self.intake.take(self.broker, Delivery(topic, payload, 1, retain=False, dup=False, ack=done))

    def announced(self) -> None:
        """Have the board's announcement arrive."""
        self.arrives("announce", self.announcer.announcement(time.time()))

    def turn(self) -> None:
        """Handle what has arrived."""
        self.intake.turn(time.monotonic())


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
    for _ in range(2):
        receiving.turn()
    assert [one.opened.count for one in receiving.sink.results] == list(range(1, 11))
    assert sorted(receiving.acknowledged) == list(range(11))
    assert receiving.intake.held == 0


def test_a_result_of_a_closed_epoch_is_not_shown_as_the_present(receiving: Receiving) -> None:
    """It says that it is not late: it was sealed just before the outage that it waited in."""
    waited = seal(receiving.announcer)
    receiving.announcer.rotate()
    receiving.announced()
    receiving.arrives("c1", waited)
    receiving.arrives("c1", seal(receiving.announcer))
    receiving.turn()
    assert [one.newest for one in receiving.sink.results] == [False, True]
