"""Results under any number of epochs, through restarts, kills, rotations and outages: each reaches its hub, once."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.clock import Clock
from edged.base.errors import EdgedError
from edged.board.delivery.announcing import Announcing
from edged.board.delivery.hold import Hold
from edged.board.delivery.results import Results
from edged.board.health import Health
from edged.board.pipeline import Answered
from edged.board.state import OutboxStore
from edged.broker import Broker, Outcome, Stats
from edged.formats.channel.announce import MOST_EPOCHS, split
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.result import Plain
from edged.formats.cose.algorithms import Aead
from support.parties import ANSWER, NOW, Board, Hub, encoder
from support.serving import RamState, topic

SMALL = 3000
"""Bytes that a broker takes: a few epochs."""


class Reading:
    """The reading that a result answers. Once its sender was told that it is safe, the result must come."""

    def __init__(self, number: int) -> None:
        self.input = Plain(hashlib.sha256(number.to_bytes(8, "big")).digest())
        self.safe = False

    def mark_safe(self) -> None:
        self.safe = True


class Line:
    """A broker, and a hub behind it: what is published while it is up is heard at once, and acknowledged when told."""

    def __init__(self, world: World) -> None:
        self.is_up = False
        self.most_bytes = world.most_bytes
        self.drained_at = 0.0
        self.stats = Stats()
        self.unacknowledged: deque[int] = deque()
        self._world = world
        self._waiting: list[tuple[int, str, bytes]] = []
        self._token = 0

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> int:
        assert qos == 1
        assert retain is topic.endswith("/announce")
        self._token += 1
        self._waiting.append((self._token, topic, payload))
        self.send()
        return self._token

    def withdraw(self, token: int) -> bool:
        before = len(self._waiting)
        self._waiting = [one for one in self._waiting if one[0] != token]
        return len(self._waiting) < before

    def send(self) -> None:
        waiting, self._waiting = self._waiting, self._waiting if not self.is_up else []
        for token, level, payload in waiting if self.is_up else ():
            self._world.hears(level, payload)
            self.unacknowledged.append(token)


class World:
    """One board, its state, and a hub, which forgets whatever the newest announcement lets it forget."""

    def __init__(self, most_bytes: float = float("inf")) -> None:
        self.board, self.hub, self.state = Board(), Hub(), RamState()
        self.receiver = self.hub.receiver(self.board)
        self.readings: list[Reading] = []
        self.accepted: Counter[bytes] = Counter()
        self.refused: Counter[str] = Counter()
        self.most_announced = 0
        self.most_bytes = most_bytes
        self.now = time.monotonic()
        self.start()

    def start(self) -> None:
        """Start the board's daemon, without a connection."""
        self.line = Line(self)
        self.announcer = Announcer(
            "press-07", self.board.sign, aead=Aead.A256GCM, hubs=[self.hub.record], sign_results=False, max_age=86_400,
            begin_epoch=self.state.begin_epoch,
        )  # fmt: skip
        self.health, broker = Health(), cast("Broker", self.line)
        self.announcing = Announcing(broker, self.announcer, self.health, topic, lambda: Clock(NOW, synchronised=True))
        self.results = Results(
            broker, self.announcing, self.health, OutboxStore(self.state), topic=topic, most=10**7, longest=1e9
        )

    def hears(self, topic: str, payload: bytes) -> None:
        """Have the hub hear a message."""
        if topic.endswith("/announce"):
            self.receiver.announce("press-07", payload, NOW)
            self.most_announced = max(self.most_announced, len(split(payload)))
            assert len(payload) < self.most_bytes
            return
        try:
            self.accepted[self.receiver.open(topic, payload, NOW).result.input.digest] += 1  # type: ignore[union-attr]
        except EdgedError as error:
            self.refused[type(error).__name__] += 1

    # --- what may happen

    def answer(self) -> None:
        reading = Reading(len(self.readings))
        self.readings.append(reading)
        hold = Hold(reading.mark_safe)
        self.results.publish("c1", encoder(), Answered(ANSWER, reading.input, publish=True, redelivered=False), hold)
        hold.release()

    def rotate(self) -> None:
        self.announcer.rotate()

    def restart(self) -> None:
        self.results.stash()
        self.start()

    def kill(self) -> None:
        self.start()

    def up(self) -> None:
        if not self.line.is_up:
            self.line.is_up = True
            self.line.send()
            self.results.on_up()

    def down(self) -> None:
        if self.line.is_up:
            self.line.is_up = False
            self.line.unacknowledged.clear()
            self.results.on_down()

    def turn(self) -> None:
        self.now += 1
        self.results.turn(self.now)

    def acknowledge(self) -> None:
        for _ in range(len(self.line.unacknowledged)):
            self.results.on_delivered(self.line.unacknowledged.popleft(), Outcome.TAKEN)

    def settle(self) -> None:
        """Let everything reach the hub, and check that it did, once each."""
        self.up()
        self.turn()
        for _ in range(len(self.readings) + 10):
            self.acknowledge()
            self.turn()
        assert self.results.outbox.waiting == 0
        assert OutboxStore(self.state).epochs() == []
        assert set(self.accepted.values()) <= {1}, "something was accepted twice"
        assert {one.input.digest for one in self.readings if one.safe} <= set(self.accepted)
        assert set(self.refused) <= {"ReplayError", "RepeatedError"}
        assert self.announcer._closing == []


STEPS = st.sampled_from(
    ["answer"] * 4 + ["rotate", "restart", "kill", "up", "down", "turn", "turn", "acknowledge", "acknowledge"]
)


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, max_size=60), st.sampled_from([float("inf"), SMALL]))
def test_no_result_is_lost_and_none_accepted_twice_whatever_happens(steps: list[str], most_bytes: float) -> None:
    world = World(most_bytes)
    for step in steps:
        getattr(world, step)()
    world.settle()


@pytest.mark.parametrize("most_bytes", [float("inf"), SMALL])
@pytest.mark.parametrize("closed_by", ["restart", "kill", "rotate"])
def test_results_of_forty_five_epochs_all_open(closed_by: str, most_bytes: float) -> None:
    """Of more than 32 epochs results were dropped: an announcement has room for no more."""
    world = World(most_bytes)
    for _ in range(45):
        world.answer()
        world.turn()
        getattr(world, closed_by)()
    world.settle()
    assert len(world.accepted) == 45
    assert world.refused == {}
    assert world.most_announced == MOST_EPOCHS if most_bytes > SMALL else 1 < world.most_announced < MOST_EPOCHS


def test_killed_between_the_acknowledgement_a_new_announcement_and_the_removal_of_a_result() -> None:
    """The hub had forgotten what it accepted under the epoch, and accepted the same message once more."""
    world = World()
    world.answer()
    world.turn()
    world.restart()
    world.up()
    world.acknowledge()
    world.turn()
    assert sum(world.accepted.values()) == 1
    world.acknowledge()  # its removal waits to be written
    world.rotate()
    world.announcing.announce_if_due()
    world.kill()
    world.settle()
    assert world.refused == {"ReplayError": 1}


def test_an_epoch_is_announced_and_acknowledged_before_its_results_are_sent() -> None:
    world = World()
    world.answer()
    world.turn()
    world.restart()
    world.up()
    for _ in range(3):
        world.turn()
    assert not world.accepted
    world.acknowledge()
    world.turn()
    assert len(world.accepted) == 1


def test_where_the_broker_takes_no_closed_epoch_the_board_says_so() -> None:
    world = World(SMALL)
    world.most_bytes = 800
    world.answer()
    world.turn()
    world.restart()
    world.most_bytes = float("inf")
    world.up()
    world.acknowledge()
    world.turn()
    assert "announcement" in world.health.faults


def test_epochs_whose_results_were_lost_with_the_disk_are_announced_no_more() -> None:
    world = World()
    for _ in range(40):
        world.answer()
        world.turn()
        world.rotate()
    world.results.start_over()
    assert world.announcer._closing == []
