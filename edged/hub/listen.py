"""A listener that opens sealed results as they arrive: for `edged listen` and the demo."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable

from edged.base.errors import EdgedError, ExpiredError, UnknownKeyError
from edged.base.events import Event, event_of
from edged.base.log import RateLimited
from edged.base.nothing import nothing
from edged.broker import Broker, Delivery
from edged.formats.channel.receiver import Opened, Receiver
from edged.formats.channel.report import Report

_LOG = logging.getLogger(__name__)
_HELD = 1000
"""Most results that wait for the announcement of their epoch; the oldest go first."""

_ASK_EVERY = 10.0

_RESERVED = frozenset({"announce", "nonce", "status", "inventory"})


class Listener:
    """Subscribes to enrolled boards and passes on the results that open.

    :param prefix: the boards' ``results.prefix``.
    :param on_result: called with each result that was accepted.
    :param on_report: called with a board's name and each report of its own.
    """

    def __init__(
        self,
        broker: Broker,
        receiver: Receiver,
        prefix: str,
        on_result: Callable[[Opened], None],
        on_report: Callable[[str, Report], None] = nothing,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._broker = broker
        self._receiver = receiver
        self._prefix = prefix
        self._on_result = on_result
        self._on_report = on_report
        self._held: deque[tuple[str, bytes]] = deque(maxlen=_HELD)
        self._limited = RateLimited(_LOG)
        self._asked: dict[str, float] = {}
        broker.on_message = self.on_message

    def subscribe(self) -> None:
        """Subscribe to every enrolled board, to its announce topic by name: some brokers retain for no wildcard."""
        for device in self._receiver.devices:
            self._broker.subscribe(f"{self._prefix}/{device}/announce", 1)
            self._broker.subscribe(f"{self._prefix}/{device}/+", 1)

    def on_message(self, delivery: Delivery) -> None:
        """Handle one message. No content of a message raises."""
        _, device, level = delivery.topic.rsplit("/", 2)
        try:
            if level == "announce":
                self._announce(device, delivery.payload)
            elif level == "health":
                self._on_report(device, self._receiver.open_report(delivery.topic, delivery.payload, time.time()))
            elif level not in _RESERVED and not delivery.retain:
                self._open(delivery.topic, delivery.payload)
        except ExpiredError as error:
            self._refuse(delivery.topic, error)
            self._ask(device)
        except UnknownKeyError:
            pass  # a report that came before its epoch's announcement: the next one says more
        except EdgedError as error:
            self._refuse(delivery.topic, error)
        delivery.ack()

    def _ask(self, device: str) -> None:
        """Ask a board to show that it is alive: its next announcement echoes our nonce."""
        now = time.monotonic()
        if now - self._asked.get(device, -math.inf) > _ASK_EVERY:
            self._asked[device] = now
            self._broker.publish(f"{self._prefix}/{device}/nonce", self._receiver.question(device), qos=1)

    def _announce(self, device: str, payload: bytes) -> None:
        self._receiver.announce(device, payload, time.time())
        epoch = self._receiver.epoch(device)
        _LOG.info("%s announces epoch %d", device, epoch, extra=Event.EPOCH_ANNOUNCED.about(device=device))
        held, self._held = self._held, deque(maxlen=_HELD)
        for topic, message in held:
            try:
                self._open(topic, message)
            except EdgedError as error:
                self._refuse(topic, error)

    def _open(self, topic: str, payload: bytes) -> None:
        try:
            opened = self._receiver.open(topic, payload, time.time())
        except UnknownKeyError:
            self._held.append((topic, payload))
            return
        self._on_result(opened)

    def _refuse(self, topic: str, error: EdgedError) -> None:
        kind = type(error).__name__
        self.refused[kind] += 1
        message, event = f"{topic}: {kind}: {error.message}", event_of(error, Event.RESULT_REFUSED)
        self._limited.warning(kind, message, event, topic=topic, error=kind)
