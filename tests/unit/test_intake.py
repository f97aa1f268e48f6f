"""The hub's intake, without brokers: what comes in one turn, in whatever order."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from edged.base.nothing import nothing
from edged.broker import Broker, BrokerOptions, Delivery
from edged.formats.channel.receiver import Opened, Receiver
from edged.hub.boards import BoardView
from edged.hub.counters import HubCounters
from edged.hub.intake import Intake
from edged.hub.sinks import AcceptedResult, ResultSink
from edged.hub.state import HubState
from support.parties import Board, Hub, seal


class CollectingSink(ResultSink):
    def __init__(self) -> None:
        self.opened: list[Opened] = []

    def deliver(self, result: AcceptedResult) -> None:
        self.opened.append(result.opened)


def test_results_that_come_ahead_of_their_announcement_in_one_turn_open_after_it(tmp_path: Path) -> None:
    """As after a restart of the hub: what waited at the broker, then what stands retained there."""
    board, hub = Board(), Hub()
    announcer = board.announcer(hub)
    acknowledged: list[int] = []
    sink = CollectingSink()
    broker = Broker(BrokerOptions(url="mqtt://localhost"))
    with closing(HubState(tmp_path)) as state, closing(broker):
        receiver = Receiver(hub.key, hub.name, [board.record], state)
        intake = Intake(
            receiver,
            state,
            {board.name: BoardView(board.record)},
            HubCounters(),
            [sink],
            nothing,
        )

        def arrives(number: int, level: str, payload: bytes) -> None:
            topic = f"edged/{board.name}/{level}"
            intake.take(
                broker, Delivery(topic, payload, 1, retain=False, dup=False, ack=lambda: acknowledged.append(number))
            )

        for number in range(10):
            arrives(number, "c1", seal(announcer))
        arrives(10, "announce", announcer.announcement(time.time()))
        for _ in range(2):
            intake.turn(time.monotonic())
        assert [one.count for one in sink.opened] == list(range(1, 11))
        assert sorted(acknowledged) == list(range(11))
        assert intake.held == 0
