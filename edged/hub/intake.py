"""Messages of boards in: opened, accepted once, and handed to the result sinks in the same transaction.

Messages are acknowledged once that transaction is durable. A result under a key that was not announced yet waits,
unacknowledged and within one budget, for the announcement.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from edged.base.errors import (
    EdgedError,
    ExpiredError,
    FormatError,
    RepeatedError,
    ReplayError,
    StateError,
    UnknownKeyError,
)
from edged.base.events import Event
from edged.base.nothing import nothing
from edged.broker import Broker, Delivery
from edged.formats.channel.receiver import Receiver
from edged.hub.boards import BoardView
from edged.hub.counters import HubCounters
from edged.hub.sinks import AcceptedResult, ResultSink
from edged.hub.state import HubState

_LOG = logging.getLogger(__name__)
_ASK_EVERY = 10.0
_RETRY_SECONDS = 1.0
_ECHO_SECONDS = 1.0
"""An announcement that arrives twice within this time came through two subscriptions: those to it overlap."""

_BUDGET = 4 << 20
_EACH = 8192
"""Bytes that each message counts for beside its own: some 500 are held, fewer than brokers hand out ahead of their
acknowledgement where they speak MQTT 5."""
_SECONDS = 600.0


class Arrived(NamedTuple):
    """A message of an enrolled board.

    :ivar level: last level of its topic.
    :ivar since: time of arrival, monotonic seconds.
    """

    broker: Broker
    delivery: Delivery
    device: str
    level: str
    since: float


class EarlyResults:
    """Results that arrived before the announcement of their epoch.

    Above the budget the board with the most bytes loses its oldest result: a board that floods loses its own.
    """

    def __init__(self) -> None:
        self._boards: dict[str, deque[Arrived]] = {}
        self._costs: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._boards.values()))

    def add(self, arrived: Arrived) -> list[Arrived]:
        """Hold a message; return those that are given up to make room.

        A broker that hands out few messages ahead of their acknowledgement gets it at once: a handful would stop it.
        """
        if arrived.broker.limits_redelivery:
            arrived.delivery.ack()
            arrived = arrived._replace(delivery=arrived.delivery._replace(ack=nothing))
        self._boards.setdefault(arrived.device, deque()).append(arrived)
        self._costs[arrived.device] = self._costs.get(arrived.device, 0) + _cost(arrived)
        given_up = []
        while sum(self._costs.values()) > _BUDGET:
            given_up.append(self._pop(max(self._costs, key=self._costs.__getitem__)))
        return given_up

    def take(self, device: str) -> list[Arrived]:
        """Remove and return all messages of a board."""
        self._costs.pop(device, None)
        return list(self._boards.pop(device, ()))

    def expired(self, now: float) -> list[Arrived]:
        """Remove and return the messages that have waited too long."""
        return [
            self._pop(device)
            for device, held in list(self._boards.items())
            for one in list(held)
            if now - one.since > _SECONDS
        ]

    def _pop(self, device: str) -> Arrived:
        held = self._boards[device]
        oldest = held.popleft()
        self._costs[device] -= _cost(oldest)
        if not held:
            del self._boards[device], self._costs[device]
        return oldest


def _cost(arrived: Arrived) -> int:
    return _EACH + len(arrived.delivery.payload)


class Intake:
    """Handles the messages of boards.

    :param sinks: the places that accepted results go to.
    :param on_change: called with a board's name when its status, report or inventory may have changed.
    """

    def __init__(
        self,
        receiver: Receiver,
        state: HubState,
        views: dict[str, BoardView],
        counters: HubCounters,
        sinks: Sequence[ResultSink],
        on_change: Callable[[str], None],
    ) -> None:
        self._receiver = receiver
        self._state = state
        self._views = views
        self._counters = counters
        self._sinks = sinks
        self._on_change = on_change
        self._batch: list[Arrived] = []
        self._early = EarlyResults()
        self._asked: dict[str, float] = {}
        self._refused: dict[str, tuple[bytes, float]] = {}
        self._retry_at = 0.0
        self._after: list[Callable[[], None]] = []
        self._levels: dict[str, Callable[[str, Delivery], None]] = {
            "announce": self._announce,
            "inventory": self._inventory,
            "status": self._status,
            "health": self._report,
            "nonce": nothing,  # hubs speak there, not boards
        }
        self.error = ""

    @property
    def waiting(self) -> bool:
        """True if :meth:`turn` has work to do."""
        return bool(self._batch)

    @property
    def held(self) -> int:
        """Results that wait for their epoch's announcement."""
        return len(self._early)

    def take(self, broker: Broker, delivery: Delivery) -> None:
        """Accept one message, for :meth:`turn` to handle."""
        _, device, level = f"//{delivery.topic}".rsplit("/", 2)
        if device not in self._views:
            if level == "announce":
                self._counters.stranger(device)
            delivery.ack()
            return
        self._batch.append(Arrived(broker, delivery, device, level, time.monotonic()))

    def turn(self, now: float) -> None:
        """Handle all messages since the last call, or none of them if the state fails."""
        if not self._batch or now < self._retry_at:
            return
        batch = self._batch
        try:
            with self._state.batch():
                settled = [arrived for arrived in batch if self._serve(arrived)]
        except StateError as error:
            self._after.clear()
            self._take_back(batch)
            self.error = error.message
            self._retry_at = now + _RETRY_SECONDS
            _LOG.error("%s: nothing is accepted until it works again", error.message, extra=Event.DEGRADED.about())
            return
        if self.error:
            self.error = ""
            _LOG.info("the state works again", extra=Event.RECOVERED.about())
        self._batch = []
        after, self._after = self._after, []
        for act in after:
            act()
        for arrived in settled:
            arrived.delivery.ack()

    def _take_back(self, batch: Iterable[Arrived]) -> None:
        """Forget announcements that could not be made durable: they are handled once more."""
        for device in {arrived.device for arrived in batch if arrived.level == "announce"} & set(self._views):
            self._receiver.forget(device)
            self._receiver.enrol(self._views[device].record)

    def tidy(self, now: float) -> None:
        """Refuse results that have waited too long for the announcement of their epoch."""
        self._give_up(self._early.expired(now))

    def _give_up(self, messages: Iterable[Arrived]) -> None:
        for one in messages:
            error = UnknownKeyError(f"{one.device} has not announced the key of a result")
            self._counters.refuse(one.delivery.topic, one.device, error)
            one.delivery.ack()

    def _serve(self, arrived: Arrived) -> bool:
        """Handle one message; return False if it waits for an announcement."""
        broker, delivery, device, level, _ = arrived
        try:
            self._levels.get(level, self._result)(device, delivery)
        except StateError:
            raise
        except UnknownKeyError:
            if level != "health":  # the next report says more
                self._after.append(lambda: self._give_up(self._early.add(arrived)))
                return False
        except EdgedError as error:
            if isinstance(error, ExpiredError):
                self._after.append(lambda: self._ask(broker, delivery.topic, device))
            if level != "announce" or not self._is_echo(device, delivery.payload):
                self._refuse(delivery.topic, device, error, redelivered=delivery.dup)
        return True

    def _is_echo(self, device: str, announcement: bytes) -> bool:
        """Return True if the same announcement was refused just now: it counts once."""
        now = time.monotonic()
        before, at = self._refused.get(device, (b"", -math.inf))
        self._refused[device] = announcement, now
        return announcement == before and now - at < _ECHO_SECONDS

    def _refuse(self, topic: str, device: str, error: EdgedError, *, redelivered: bool = False) -> None:
        if isinstance(error, RepeatedError) or (redelivered and isinstance(error, ReplayError)):
            self._after.append(lambda: self._counters.repeated(device))
        else:
            self._after.append(lambda: self._counters.refuse(topic, device, error))

    def _announce(self, device: str, delivery: Delivery) -> None:
        before = self._receiver.epoch(device)
        self._receiver.announce(device, delivery.payload, time.time())
        epoch = self._receiver.epoch(device)
        if epoch != before:
            _LOG.info("%s announces epoch %d", device, epoch, extra=Event.EPOCH_ANNOUNCED.about(device=device))
        # looked at afterwards: results that came ahead of it in the same turn are held by then
        self._after.append(lambda: self._retry_early(device))

    def _retry_early(self, device: str) -> None:
        self._batch += self._early.take(device)

    def _inventory(self, device: str, delivery: Delivery) -> None:
        inventory = self._receiver.open_inventory(delivery.topic, delivery.payload, time.time())
        self._state.keep_inventory(device, inventory.encode())

        def shown() -> None:
            self._views[device].inventory = inventory
            self._on_change(device)

        self._after.append(shown)

    def _status(self, device: str, delivery: Delivery) -> None:
        def shown() -> None:
            self._views[device].status = delivery.payload == b"online"
            self._on_change(device)

        self._after.append(shown)

    def _report(self, device: str, delivery: Delivery) -> None:
        report = self._receiver.open_report(delivery.topic, delivery.payload, time.time())

        def shown() -> None:
            self._views[device].note_report(report)
            self._on_change(device)

        self._after.append(shown)

    def _result(self, device: str, delivery: Delivery) -> None:
        if delivery.retain:
            raise FormatError("a retained message is no result: boards retain none")
        if (believed := self._state.believed(device)) and believed.epoch != self._receiver.epoch(device):
            raise UnknownKeyError(f"another process of this hub has heard {device} announce epoch {believed.epoch}")
        opened = self._receiver.open(delivery.topic, delivery.payload, time.time())
        payload = msgspec.json.encode(opened.to_json())  # what is not a number becomes null
        is_live = not opened.result.late and opened.epoch == self._receiver.epoch(device)
        newest = is_live and self._state.show(device, opened.channel, opened.epoch, opened.count, payload)
        result = AcceptedResult(opened, payload, newest)
        for sink in self._sinks:
            sink.store(result)

        def shown() -> None:
            self._counters.opened(opened.device)
            for sink in self._sinks:
                sink.deliver(result)

        self._after.append(shown)

    def _ask(self, broker: Broker, topic: str, device: str) -> None:
        """Ask a board to show that it is alive: its next announcement echoes our nonce."""
        now = time.monotonic()
        if now - self._asked.get(device, -math.inf) > _ASK_EVERY:
            self._asked[device] = now
            broker.publish(f"{topic.rsplit('/', 1)[0]}/nonce", self._receiver.question(device), qos=1)
