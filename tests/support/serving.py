"""A daemon's traffic without its process: messages in by a call, and everything that comes out at hand."""

from __future__ import annotations

import math
import sqlite3
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from edged.base.clock import Clock
from edged.board.daemon.reports import entries
from edged.board.delivery.announcing import Announcing
from edged.board.delivery.path import MessagePath
from edged.board.delivery.quarantine import Quarantine
from edged.board.delivery.results import Results
from edged.board.delivery.row_log import RowLog
from edged.board.health import Health
from edged.board.pipeline import Lane
from edged.board.state import OutboxStore, QuarantineStore, RowStore, State
from edged.broker import Broker, Delivery, Outcome, Stats
from edged.formats.channel.reading import ReplayGuard
from support.parties import NOW, Board, Hub

BASE = "edged/press-07"


def topic(level: str) -> str:
    """Return the board's topic that ends in a level."""
    return f"{BASE}/{level}"


def total(books: Mapping[str, int | Mapping[str, int]], *names: str) -> int:
    """Return the sum of some entries of the books."""
    values = (books[name] for name in names)
    return sum(value if isinstance(value, int) else sum(value.values()) for value in values)


class RamState(State):
    """A state in RAM, closed when it is collected: any thread may do that."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"), in_memory=True)
        self.close()
        self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._prepare()
        weakref.finalize(self, self.db.close)


class FakeBroker:
    """Takes what is published, and acknowledges nothing by itself."""

    def __init__(self) -> None:
        self.is_up = True
        self.most_bytes = math.inf
        self.drained_at = 0.0
        self.stats = Stats()
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
        rate: float | None = None,
        crashes: int = 0,
    ) -> None:
        self.state = state or RamState()
        self.guard = guard or ReplayGuard({})
        self.broker = FakeBroker()
        self.health = Health()
        self.board, self.hub = Board(), Hub()
        self.announcer = self.board.announcer(self.hub)
        broker = cast("Broker", self.broker)
        self.announcing = Announcing(broker, self.announcer, self.health, topic, lambda: Clock(NOW, synchronised=True))
        self.outgoing = Results(
            broker, self.announcing, self.health, OutboxStore(self.state), topic=topic, most=most_waiting, longest=60.0
        )
        self.woken: list[None] = []
        self.rows = RowLog(RowStore(self.state))
        self.quarantine = Quarantine(QuarantineStore(self.state), [self.hub.record], crashes)
        self.path = MessagePath(
            self.outgoing, self.guard, self.health, self.quarantine, self.rows,
            rate=rate, slow=slow, wake=lambda: self.woken.append(None),
        )  # fmt: skip
        self.acknowledged: list[int] = []
        self._number = 0

    def serve(self, lanes: Mapping[str, Lane]) -> None:
        """Serve these lanes."""
        self.path.threads.rest()
        self.path.set_lanes(lanes)

    def deliver(self, payload: bytes, topic: str, *, retain: bool = False, dup: bool = False, qos: int = 1) -> int:
        """Hand in a message; return the number that ``acknowledged`` will hold."""
        self._number = number = self._number + 1
        acknowledge = lambda: self.acknowledged.append(number)  # noqa: E731
        self.path.on_message(Delivery(topic, payload, qos, retain, dup=dup, ack=acknowledge))
        return number

    def check_books(self) -> None:
        """Check that each reading, window and result stands in exactly one entry."""
        books = entries(self.health, self.path, self.outgoing)
        assert books["readings"] == total(books, "accepted", "repeated", "refused", "set_aside", "waiting")
        assert books["windows"] == total(books, "silent", "failed") + self.health.books.results
        assert total(books, "results", "restored") == total(books, "delivered", "dropped", "stored", "in_flight")

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
