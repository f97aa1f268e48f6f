"""When a message is acknowledged, and what happens to results that nobody takes."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from edged.broker import Broker, Delivery
from edged.channel.reading import ReadingSealer, ReplayGuard
from edged.channel.receiver import Receiver
from edged.clock import Clock
from edged.cose import cbor
from edged.cose.algorithms import Aead
from edged.cose.keys import ContentKey
from edged.daemon.health import Health
from edged.daemon.outgoing import Outgoing
from edged.daemon.traffic import Traffic
from support.lanes import TOPIC, FakeModel, lane
from support.parties import NOW, Board, Hub

BASE = "edged/press-07"
WINDOW = np.zeros((4, 2), "<f4").tobytes()
ROW = np.zeros((1, 2), "<f4").tobytes()


class FakeBroker:
    """Takes what is published, and acknowledges nothing by itself."""

    def __init__(self) -> None:
        self.is_up = True
        self.published: list[tuple[str, bytes]] = []

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> int:
        assert (qos, retain) in {(1, False), (1, True)}
        self.published.append((topic, payload))
        return len(self.published)

    def withdraw(self, token: int) -> bool:
        return token > 0


class Running:
    """A daemon's traffic with one lane, and what came of it."""

    def __init__(self, *, sensor: ContentKey | None = None, most_waiting: int = 10**6, **table: Any) -> None:
        self.guard = ReplayGuard({})
        self.broker = FakeBroker()
        self.health = Health()
        self.board, self.hub = Board(), Hub()
        self.announcer = self.board.announcer(self.hub)
        self.outgoing = Outgoing(
            cast("Broker", self.broker),
            self.announcer,
            self.health,
            base=BASE,
            most_waiting=most_waiting,
            longest_waiting=60.0,
            read_clock=lambda: Clock(NOW, synchronised=True),
        )
        self.traffic = Traffic(
            self.outgoing, self.announcer, self.guard, self.health, base=BASE, slow=0.005, wake=lambda: None
        )
        self.lane, self.model = lane(FakeModel(), sensor=sensor, guard=self.guard, **table)
        self.traffic.set_lanes({"c1": self.lane})
        self.acknowledged: list[int] = []
        self._number = 0

    def deliver(self, payload: bytes, topic: str = TOPIC, *, retain: bool = False) -> int:
        """Hand in a message; return the number that ``acknowledged`` will hold."""
        self._number = number = self._number + 1
        acknowledge = lambda: self.acknowledged.append(number)  # noqa: E731
        self.traffic.on_message(Delivery(topic, payload, 1, retain, dup=False, ack=acknowledge))
        return number

    @property
    def results(self) -> list[tuple[int, bytes]]:
        """Tokens and payloads of the results that were published."""
        sent = enumerate(self.broker.published, 1)
        return [(token, payload) for token, (topic, payload) in sent if topic.endswith("/c1")]


def test_a_window_is_acknowledged_once_the_broker_has_its_result() -> None:
    running = Running(each="window")
    number = running.deliver(WINDOW)
    ((token, _),) = running.results
    assert running.acknowledged == []
    running.outgoing.on_delivered(token, taken=True)
    assert running.acknowledged == [number]


def test_a_row_is_acknowledged_once_it_is_in_its_window() -> None:
    running = Running()
    assert [running.deliver(ROW) for _ in range(3)] == running.acknowledged
    assert running.results == []
    assert running.deliver(ROW) in running.acknowledged
    assert len(running.results) == 1


def test_a_window_handed_out_again_is_answered_once_and_both_copies_are_acknowledged() -> None:
    """The connection was lost before the result was acknowledged: the broker sends the window again."""
    running = Running(each="window")
    copies = [running.deliver(WINDOW), running.deliver(WINDOW)]
    ((token, _),) = running.results
    running.outgoing.on_delivered(token, taken=True)
    assert running.acknowledged == copies


def test_a_sealed_windows_count_is_stored_only_when_its_result_is_safe() -> None:
    """A board that dies in between must take the window when it is handed out again."""
    key = ContentKey.generate(Aead.A256GCM)
    running = Running(each="window", sensor=key)
    running.deliver(ReadingSealer(key, TOPIC).seal(WINDOW))
    assert running.guard.take_settled() == {}
    ((token, _),) = running.results
    running.outgoing.on_delivered(token, taken=True)
    assert len(running.guard.take_settled()) == 1


def test_a_replayed_row_is_refused_counted_and_acknowledged() -> None:
    key = ContentKey.generate(Aead.A256GCM)
    running = Running(sensor=key)
    message = ReadingSealer(key, TOPIC).seal(ROW)
    numbers = [running.deliver(message), running.deliver(message)]
    assert running.acknowledged == numbers
    assert running.health.refused == {"ReplayError": 1}


@pytest.mark.parametrize("payload", [b"", b"junk!", bytes(10_000), WINDOW + ROW])
def test_a_message_that_cannot_be_used_is_counted_and_acknowledged(payload: bytes) -> None:
    running = Running(each="window")
    assert running.deliver(payload) in running.acknowledged
    assert running.health.refused.total() == 1
    assert running.results == []


def test_a_runtime_that_fails_on_a_window_stops_nothing() -> None:
    running = Running(each="window")
    running.model.fails = True
    assert running.deliver(WINDOW) in running.acknowledged
    running.model.fails = False
    running.deliver(WINDOW)
    assert len(running.results) == 1
    assert running.health.refused == {"ModelError": 1}


def test_results_beyond_the_outbox_are_dropped_and_counted() -> None:
    running = Running(each="window", most_waiting=1)
    running.deliver(WINDOW)
    running.deliver(np.ones((4, 2), "<f4").tobytes())
    assert len(running.results) == 1
    assert running.health.dropped == 1


def test_results_that_wait_too_long_are_dropped_and_counted() -> None:
    running = Running(each="window")
    number = running.deliver(WINDOW)
    running.outgoing.drop_outdated(1e12)
    assert (running.health.dropped, running.outgoing.waiting) == (1, 0)
    assert running.acknowledged == [number]


def test_a_result_sealed_without_a_broker_says_that_it_is_late() -> None:
    running = Running(each="window")
    receiver: Receiver = running.hub.receiver(running.board)
    running.broker.is_up = False
    running.deliver(WINDOW)
    announced = next(payload for topic, payload in running.broker.published if topic.endswith("/announce"))
    receiver.announce("press-07", announced, NOW)
    assert receiver.open("edged/press-07/c1", running.results[0][1], NOW).result.late


def test_the_announcement_stands_before_the_first_result_of_its_epoch() -> None:
    running = Running(each="window")
    running.deliver(WINDOW)
    running.announcer.rotate()
    running.deliver(np.ones((4, 2), "<f4").tobytes())
    assert [topic.rsplit("/", 1)[1] for topic, _ in running.broker.published] == ["announce", "c1", "announce", "c1"]


def test_a_hubs_question_is_answered_and_junk_in_its_place_is_counted() -> None:
    running = Running()
    running.deliver(b"junk", "edged/press-07/nonce")
    assert running.health.refused == {"FormatError": 1}
    question = cbor.encode([running.hub.key.public.thumbprint, bytes(16)])
    running.deliver(question, "edged/press-07/nonce")
    assert running.announcer.announcement(NOW).count(bytes(16)) == 1
