"""Messages of boards in: opened, accepted once, and handed to the result sinks in the same transaction.

All messages of a turn are served in one transaction. Each yields an outcome, a value; once the transaction is durable
the outcomes are applied, and the messages acknowledged.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
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
    UnknownSignerError,
)
from edged.base.events import Event
from edged.broker import Broker, Delivery
from edged.formats.channel.inventory import Inventory
from edged.formats.channel.receiver import Receiver
from edged.formats.channel.report import Report
from edged.hub.boards import BoardView
from edged.hub.counters import HubCounters
from edged.hub.early import Arrived, EarlyMessages
from edged.hub.sinks import AcceptedResult, ResultSink
from edged.hub.state import HubState
from edged.hub.topics import Place

_LOG = logging.getLogger(__name__)
_ASK_EVERY = 10.0
_RETRY_SECONDS = 1.0
_ECHO_SECONDS = 1.0
"""An announcement that arrives twice within this time came through two subscriptions: those to it overlap."""


_NOT_ANNOUNCED = UnknownKeyError("its key was not announced in time")


class Announced(NamedTuple):
    """An announcement that was believed.

    :ivar epoch: its number if that is new, else None.
    :ivar opens: True if messages that wait may open now.
    """

    epoch: int | None
    opens: bool


class Status(NamedTuple):
    """A board's status topic, which anybody can write."""

    online: bool


Outcome = AcceptedResult | Report | Inventory | Status | Announced | EdgedError | None
"""Outcome of a message: an error where it was refused, None where it asks nothing of this hub."""


class Intake:
    """Handles the messages of boards.

    :param sinks: the places that accepted results go to.
    :param on_change: called with a board's name when its status, report or inventory may have changed.
    :ivar early: messages that wait for the announcement of their key.
    :ivar error: the state's failure, for as long as nothing can be accepted.
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
        self.early = EarlyMessages()
        self.error = ""
        self._receiver = receiver
        self._state = state
        self._views = views
        self._counters = counters
        self._sinks = sinks
        self._on_change = on_change
        self._batch: list[Arrived] = []
        self._asked: dict[str, float] = {}
        self._refused: dict[str, tuple[bytes, float]] = {}
        self._retry_at = 0.0

    @property
    def held(self) -> Counter[str]:
        """Numbers of messages without an outcome, by board: they wait for an announcement, or for the state."""
        return Counter(one.device for one in (*self.early, *self._batch))

    def due_in(self, now: float) -> float:
        """Return the seconds until :meth:`turn` has work to do."""
        return max(0.0, self._retry_at - now) if self._batch else math.inf

    def take(self, broker: Broker, delivery: Delivery) -> None:
        """Accept one message, for :meth:`turn` to handle."""
        _, device, level = f"//{delivery.topic}".rsplit("/", 2)
        if device in self._views:
            self._counters.of(device).heard += 1
            self._batch.append(Arrived(broker, delivery, device, level, time.monotonic()))
            return
        if level == "announce":
            self._counters.stranger(device)
        delivery.ack()

    def turn(self, now: float) -> None:
        """Handle all messages since the last call, or none of them if the state fails."""
        if not self._batch or now < self._retry_at:
            return
        batch, self._batch = self._batch, []
        retried: list[Arrived] = []
        try:
            with self._state.batch():
                outcomes, early = self._serve_all(batch, retried)
        except StateError as error:
            self._batch = retried + batch
            self._take_back(batch)
            self.error = error.message
            self._retry_at = now + _RETRY_SECONDS
            _LOG.error("%s: nothing is accepted until it works again", error.message, extra=Event.DEGRADED.about())
            return
        if self.error:
            self.error = ""
            _LOG.info("the state works again", extra=Event.RECOVERED.about())
        for arrived, outcome in outcomes:
            self._apply(arrived, outcome)
            arrived.delivery.ack()
        for arrived in early:
            self._give_up(self.early.add(arrived))

    def _serve_all(
        self, batch: Iterable[Arrived], retried: list[Arrived]
    ) -> tuple[list[tuple[Arrived, Outcome]], list[Arrived]]:
        """Return the outcomes of messages, in order, and the messages that wait for an announcement.

        Behind an announcement follow those that waited for it, then those that arrived after it.

        :param retried: the messages that waited since an earlier turn are appended to it.
        """
        outcomes: list[tuple[Arrived, Outcome]] = []
        early: list[Arrived] = []
        queue = deque(batch)
        while queue:
            arrived = queue.popleft()
            outcome = self._serve(arrived)
            if isinstance(outcome, UnknownKeyError):
                early.append(arrived)
                continue
            outcomes.append((arrived, outcome))
            if isinstance(outcome, Announced) and outcome.opens:
                waited = self.early.take(arrived.device)
                retried += waited
                waited += [one for one in early if one.device == arrived.device]
                early = [one for one in early if one.device != arrived.device]
                queue.extendleft(reversed(waited))
        return outcomes, early

    def _take_back(self, batch: Iterable[Arrived]) -> None:
        """Forget announcements that could not be made durable: they are handled once more."""
        for device in {arrived.device for arrived in batch if arrived.level == "announce"} & set(self._views):
            self._receiver.forget(device)
            self._receiver.enrol(self._views[device].record)

    def tidy(self, now: float) -> None:
        """Refuse messages that have waited too long for the announcement of their epoch."""
        self._give_up(self.early.expired(now))

    def forget(self, device: str) -> None:
        """Refuse what waits of a board that is no longer enrolled."""
        gone = self.early.take(device) + [one for one in self._batch if one.device == device]
        self._batch = [one for one in self._batch if one.device != device]
        self._give_up(gone, UnknownSignerError(f"{device} is no longer enrolled"))

    def _give_up(self, messages: Iterable[Arrived], error: EdgedError = _NOT_ANNOUNCED) -> None:
        for one in messages:
            self._counters.refuse(one.delivery.topic, one.device, error)
            one.delivery.ack()

    # --- within the transaction: nothing but the state and the receiver changes

    def _serve(self, arrived: Arrived) -> Outcome:
        _, delivery, device, level, _ = arrived
        topic, payload, now = delivery.topic, delivery.payload, time.time()
        outcome: Outcome = None  # as of a question, which other hubs ask
        try:
            match level:
                case "announce":
                    outcome = self._announce(device, payload, now)
                case "inventory":
                    outcome = self._receiver.open_inventory(topic, payload, now)
                    self._state.keep_inventory(device, outcome.encode())
                case "health":
                    outcome = self._receiver.open_report(topic, payload, now)
                case "status":
                    outcome = Status(payload == b"online")
                case "nonce":
                    pass
                case _:
                    outcome = self._accept(device, delivery, now)
        except StateError:
            raise
        except EdgedError as error:
            says_more = level == "health" and isinstance(error, UnknownKeyError)  # the next report does
            return None if says_more else error
        return outcome

    def _announce(self, device: str, payload: bytes, now: float) -> Announced:
        before = self._receiver.epoch(device)
        opens = self._receiver.announce(device, payload, now)
        epoch = self._receiver.epoch(device)
        return Announced(None if epoch == before else epoch, opens)

    def _accept(self, device: str, delivery: Delivery, now: float) -> AcceptedResult:
        if delivery.retain:
            raise FormatError("a retained message is no result: boards retain none")
        epoch = self._receiver.epoch(device)
        if (believed := self._state.believed(device)) and believed.epoch != epoch:
            raise UnknownKeyError(f"another process of this hub has heard {device} announce epoch {believed.epoch}")
        opened = self._receiver.open(delivery.topic, delivery.payload, now)
        payload = msgspec.json.encode(opened.to_json())  # what is not a number becomes null
        is_live = not opened.result.late and opened.epoch == epoch
        place = Place.of(opened)
        newest = is_live and self._state.show(device, place, opened.epoch, opened.count, payload)
        result = AcceptedResult(opened, place, payload, newest)
        for sink in self._sinks:
            sink.store(result)
        return result

    # --- after it

    def _apply(self, arrived: Arrived, outcome: Outcome) -> None:
        """Count and show a message, once its outcome is durable."""
        device, view = arrived.device, self._views[arrived.device]
        match outcome:
            case AcceptedResult():
                self._counters.of(device).opened += 1
                for sink in self._sinks:
                    sink.deliver(outcome)
                return
            case EdgedError():
                self._refuse(arrived, outcome)
                return
            case Report():
                view.note_report(outcome)
            case Inventory():
                view.inventory = outcome
            case Status():
                view.status = outcome.online
            case Announced(int(epoch), _):
                _LOG.info("%s announces epoch %d", device, epoch, extra=Event.EPOCH_ANNOUNCED.about(device=device))
        self._counters.of(device).other[arrived.level] += 1
        if isinstance(outcome, Report | Inventory | Status):
            self._on_change(device)

    def _refuse(self, arrived: Arrived, error: EdgedError) -> None:
        broker, delivery, device, level, _ = arrived
        if isinstance(error, ExpiredError):
            self._ask(broker, delivery.topic, device)
        if level == "announce" and self._is_echo(device, delivery.payload):
            self._counters.of(device).other[level] += 1
        elif isinstance(error, RepeatedError) or (delivery.dup and isinstance(error, ReplayError)):
            self._counters.of(device).repeated += 1
        else:
            self._counters.refuse(delivery.topic, device, error)

    def _is_echo(self, device: str, announcement: bytes) -> bool:
        """Return True if the same announcement was refused just now: it counts once."""
        now = time.monotonic()
        before, at = self._refused.get(device, (b"", -math.inf))
        self._refused[device] = announcement, now
        return announcement == before and now - at < _ECHO_SECONDS

    def _ask(self, broker: Broker, topic: str, device: str) -> None:
        """Ask a board to show that it is alive: its next announcement echoes our nonce."""
        now = time.monotonic()
        if now - self._asked.get(device, -math.inf) > _ASK_EVERY:
            self._asked[device] = now
            broker.publish(f"{topic.rsplit('/', 1)[0]}/nonce", self._receiver.question(device), qos=1)
