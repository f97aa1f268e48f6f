"""A daemon's traffic without its process: messages in by a call, and everything that comes out at hand."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from edged.base.clock import Clock
from edged.board.delivery.inbox import Inbox
from edged.board.delivery.inference import Inference
from edged.board.delivery.outgoing import Outgoing
from edged.board.delivery.quarantine import Quarantine
from edged.board.delivery.row_log import RowLog
from edged.board.health import Health
from edged.board.pipeline import Lane
from edged.board.state import OutboxStore, QuarantineStore, RowStore, State
from edged.broker import Broker, Delivery, Outcome
from edged.config.board import Limits
from edged.formats.channel.reading import ReplayGuard
from support.parties import NOW, Board, Hub

BASE = "edged/press-07"


class RamState(State):
    """A state in RAM, closed with its last user."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"), in_memory=True)

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # another thread than the one that made it collects garbage
            self.close()


class FakeBroker:
    """Takes what is published, and acknowledges nothing by itself."""

    def __init__(self) -> None:
        self.is_up = True
        self.most_bytes = math.inf
        self.published: list[tuple[str, bytes]] = []

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> int:
        assert (qos, retain) in {(1, False), (1, True)}
        self.published.append((topic, payload))
        return len(self.published)

    def withdraw(self, token: int) -> bool:
        return token > 0


class Serving:
    """Traffic over lanes, with a state in RAM.

    :param crashes: how many runs before this one ended without a goodbye.
    """

    def __init__(
        self,
        *,
        guard: ReplayGuard | None = None,
        state: State | None = None,
        most_waiting: int = 10**6,
        slow: float = 0.005,
        limits: Limits | None = None,
        crashes: int = 0,
    ) -> None:
        self.state = state or RamState()
        self.guard = guard or ReplayGuard({})
        self.broker = FakeBroker()
        self.health = Health()
        self.board, self.hub = Board(), Hub()
        self.announcer = self.board.announcer(self.hub)
        self.outgoing = Outgoing(
            cast("Broker", self.broker),
            self.announcer,
            self.health,
            OutboxStore(self.state),
            base=BASE,
            most_waiting=most_waiting,
            longest_waiting=60.0,
            read_clock=lambda: Clock(NOW, synchronised=True),
        )
        self.woken: list[None] = []
        self.inference = Inference(self.outgoing, self.health, slow=slow, wake=lambda: self.woken.append(None))
        self.rows = RowLog(RowStore(self.state))
        self.quarantine = Quarantine(QuarantineStore(self.state), [self.hub.record], crashes)
        self.inbox = Inbox(
            self.inference, self.outgoing, self.guard, self.health, self.quarantine, self.rows, limits or Limits()
        )
        self.acknowledged: list[int] = []
        self._number = 0

    def serve(self, lanes: Mapping[str, Lane]) -> None:
        """Serve these lanes."""
        self.inference.set_lanes(lanes)

    def deliver(self, payload: bytes, topic: str, *, retain: bool = False, dup: bool = False, qos: int = 1) -> int:
        """Hand in a message; return the number that ``acknowledged`` will hold."""
        self._number = number = self._number + 1
        acknowledge = lambda: self.acknowledged.append(number)  # noqa: E731
        self.inbox.on_message(Delivery(topic, payload, qos, retain, dup=dup, ack=acknowledge))
        return number

    def results_of(self, channel: str) -> list[tuple[int, bytes]]:
        """Return tokens and payloads of the results that were published on a channel."""
        sent = enumerate(self.broker.published, 1)
        return [(token, payload) for token, (topic, payload) in sent if topic == f"{BASE}/{channel}"]

    def announced(self) -> None:
        """Acknowledge the newest announcement, as the broker."""
        sent = enumerate(self.broker.published, 1)
        self.taken(max(token for token, (topic, _) in sent if topic == f"{BASE}/announce"))

    def taken(self, token: int, outcome: Outcome = Outcome.TAKEN) -> None:
        """Have the broker acknowledge a result."""
        self.outgoing.on_delivered(token, outcome)
