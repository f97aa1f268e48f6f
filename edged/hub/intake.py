"""Messages of boards in: opened, accepted once, and handed to the result sinks in the same transaction.

All messages of a turn are served in one transaction. Each yields an outcome, a value; once the transaction is durable
the outcomes are applied, and the messages acknowledged.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from edged.base.errors import (
    EdgedError,
    RepeatedError,
    ReplayError,
    StateError,
    UnknownKeyError,
    UnknownSignerError,
)
from edged.base.events import Event
from edged.base.nothing import nothing
from edged.broker import Broker, Delivery
from edged.formats.channel import hub
from edged.formats.channel.held import Message
from edged.formats.channel.hub import NOT_ANNOUNCED, Announced, Opener, Status
from edged.formats.channel.inventory import Inventory
from edged.formats.channel.reading import names_of
from edged.formats.channel.receiver import Opened, Receiver
from edged.formats.channel.report import Report
from edged.hub.boards import BoardView
from edged.hub.counters import HubCounters
from edged.hub.sinks import AcceptedResult, ResultSink
from edged.hub.state import HubState
from edged.hub.topics import Place

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0

Outcome = hub.Outcome | AcceptedResult
"""Outcome of a message, as the state keeps it."""


class Delivered(Message, kw_only=True, eq=False):
    """A message of an enrolled board.

    :ivar ack: acknowledges it; :func:`nothing` once that is done.
    """

    broker: Broker
    dup: bool
    ack: Callable[[], None]

    def acknowledge(self) -> None:
        """Acknowledge it, unless that was done."""
        ack, self.ack = self.ack, nothing
        ack()


class Intake:
    """Handles the messages of boards.

    :param sinks: the places that accepted results go to.
    :param on_change: called with a board's name when its status, report or inventory may have changed.
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
        self.error = ""
        self._opener: Opener[Delivered] = Opener(receiver)
        self._receiver = receiver
        self._state = state
        self._views = views
        self._counters = counters
        self._sinks = sinks
        self._on_change = on_change
        self._batch: list[Delivered] = []
        self._retry_at = 0.0

    @property
    def held(self) -> Counter[str]:
        """Numbers of messages without an outcome, by board: they wait for an announcement, or for the state."""
        return Counter(one.device for one in (*self._opener.held, *self._batch))

    @property
    def held_acknowledged(self) -> int:
        """Number of held messages that their broker counts as delivered: they are lost if the hub dies now."""
        return sum(one.ack is nothing for one in self._opener.held)

    def due_in(self, now: float) -> float:
        """Return the seconds until :meth:`turn` has work to do."""
        return max(0.0, self._retry_at - now) if self._batch else math.inf

    def take(self, broker: Broker, delivery: Delivery) -> None:
        """Accept one message, for :meth:`turn` to handle."""
        topic, payload, _, retained, dup, ack = delivery
        device, level = names_of(topic)
        if device in self._views:
            self._counters.of(device).heard += 1
            self._batch.append(
                Delivered(
                    topic=topic,
                    payload=payload,
                    retained=retained,
                    since=time.monotonic(),
                    broker=broker,
                    dup=dup,
                    ack=ack,
                )
            )
            return
        if level == "announce":
            self._counters.stranger(device)
        ack()

    def turn(self, now: float) -> None:
        """Handle all messages since the last call, or none of them if the state fails."""
        if not self._batch or now < self._retry_at:
            return
        batch, self._batch = self._batch, []
        held = self._opener.held.copy()
        try:
            with self._state.batch():
                outcomes = [
                    (one, self._store(one.device, outcome))
                    for message in batch
                    for one, outcome in self._opener.open(message, time.time())
                ]
        except StateError as error:
            self._opener.held, self._batch = held, batch
            self._take_back(batch)
            self.error = error.message
            self._retry_at = now + _RETRY_SECONDS
            _LOG.error("%s: nothing is accepted until it works again", error.message, extra=Event.DEGRADED.about())
            return
        if self.error:
            self.error = ""
            _LOG.info("the state works again", extra=Event.RECOVERED.about())
        for message, outcome in outcomes:
            self._apply(message, outcome)
        self._give_up(self._opener.held.surplus())

    def _take_back(self, batch: Iterable[Delivered]) -> None:
        """Forget announcements that could not be made durable: they are handled once more."""
        for device in {message.device for message in batch if message.level == "announce"} & set(self._views):
            self._receiver.forget(device)
            self._receiver.enrol(self._views[device].record)

    def tidy(self, now: float) -> None:
        """Refuse messages that have waited too long for the announcement of their epoch."""
        self._give_up(self._opener.held.expired(now))

    def forget(self, device: str) -> None:
        """Refuse what waits of a board that is no longer enrolled."""
        gone = self._opener.held.take(device) + [one for one in self._batch if one.device == device]
        self._batch = [one for one in self._batch if one.device != device]
        self._give_up(gone, UnknownSignerError(f"{device} is no longer enrolled"))

    def _give_up(self, messages: Iterable[Delivered], error: EdgedError = NOT_ANNOUNCED) -> None:
        for one in messages:
            self._counters.refuse(one.topic, one.device, error)
            one.acknowledge()

    # --- within the transaction: nothing but the state, the receiver and what is held changes

    def _store(self, device: str, outcome: hub.Outcome) -> Outcome:
        if isinstance(outcome, Opened):
            return self._accept(device, outcome)
        if isinstance(outcome, Inventory):
            self._state.keep_inventory(device, outcome.encode())
        return outcome

    def _accept(self, device: str, opened: Opened) -> AcceptedResult:
        payload = msgspec.json.encode(opened.to_json())  # what is not a number becomes null
        is_live = not opened.result.late and opened.epoch == self._receiver.epoch(device)
        place = Place.of(opened)
        newest = is_live and self._state.show(device, place, opened.epoch, opened.count, payload)
        result = AcceptedResult(opened, place, payload, newest)
        for sink in self._sinks:
            sink.store(result)
        return result

    # --- after it

    def _apply(self, message: Delivered, outcome: Outcome) -> None:
        """Count, show and acknowledge a message, once its outcome is durable."""
        device, view = message.device, self._views[message.device]
        match outcome:
            case AcceptedResult():
                self._counters.of(device).opened += 1
                for sink in self._sinks:
                    sink.deliver(outcome)
            case UnknownKeyError():
                # it is held; a broker that hands out few messages ahead of their acknowledgement would hand out no more
                if message.broker.limits_redelivery:
                    message.acknowledge()
                return
            case EdgedError():
                self._refuse(message, outcome)
            case _:
                self._counters.of(device).other[message.level] += 1
                self._show(view, outcome)
        message.acknowledge()

    def _show(self, view: BoardView, outcome: Outcome) -> None:
        device = view.record.id
        match outcome:
            case Report():
                view.note_report(outcome)
            case Inventory():
                view.inventory = outcome
            case Status():
                view.status = outcome.online
            case Announced(int(epoch), _):
                _LOG.info("%s announces epoch %d", device, epoch, extra=Event.EPOCH_ANNOUNCED.about(device=device))
        if isinstance(outcome, Report | Inventory | Status):
            self._on_change(device)

    def _refuse(self, message: Delivered, error: EdgedError) -> None:
        if (question := self._opener.question(message, error)) is not None:
            message.broker.publish(*question, qos=1)
        counts = self._counters.of(message.device)
        if self._opener.is_echo(message):
            counts.other[message.level] += 1
        elif isinstance(error, RepeatedError) or (message.dup and isinstance(error, ReplayError)):
            counts.repeated += 1
        else:
            self._counters.refuse(message.topic, message.device, error)
