"""A broker across connections: subscriptions, unacknowledged messages, reconnecting."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from paho.mqtt.reasoncodes import ReasonCode

from edged.base.errors import BrokerError, RefusedError, TakeoverError
from edged.base.events import Event, event_of
from edged.base.nothing import nothing
from edged.broker.connection import MQTT5, MQTT311, Connection, Events
from edged.broker.dial import Backoff, Dialling
from edged.broker.options import Address, BrokerOptions, Delivery, Message, Outcome, Stats

_LOG = logging.getLogger(__name__)
_LONGEST_SLEEP = 1.0
_NO_SUBSCRIBER = 16


class _Outgoing(NamedTuple):
    token: int
    message: Message


class Broker:
    """A broker, connected or not. It has no thread: :meth:`run_once` does all work and all callbacks.

    Only :meth:`wake` may be called from other threads and from signal handlers. Callbacks may publish, subscribe and
    acknowledge, and must not call :meth:`run_once` or :meth:`close`.

    :ivar on_message: called with each message.
    :ivar on_up: called when connected, after the subscriptions were requested.
    :ivar on_down: called when an established connection is lost.
    :ivar on_delivered: called once with each token of :meth:`publish`, and the outcome of its message.
    :ivar on_error: called with each :class:`BrokerError`, and each exception of other callbacks. Must not raise.
    :ivar last_error: the reason for the last failure to connect or loss of a connection.
    :raises ConfigError: the URL cannot be used.
    """

    def __init__(self, options: BrokerOptions) -> None:
        self.on_message: Callable[[Delivery], None] = nothing
        self.on_up: Callable[[], None] = nothing
        self.on_down: Callable[[], None] = nothing
        self.on_delivered: Callable[[int, Outcome], None] = nothing
        self.on_error: Callable[[Exception], None] = _log_error
        self.last_error: BrokerError | None = None
        self.stats = Stats()
        self._options = options
        self._address = Address.parse(options.url)
        self._connection: Connection | None = None
        self._dialling: Dialling | None = None
        self._retry_at: float | None = None
        self._backoff = Backoff()
        self._protocol = MQTT5
        self._spoke_mqtt5 = False
        self._subscriptions: dict[str, int] = {}
        self._unwanted: set[str] = set()
        self._token = 0
        self._waiting: deque[_Outgoing] = deque()
        self._sent: dict[int, _Outgoing] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    # --- requests of the caller

    @property
    def is_up(self) -> bool:
        """True while connected."""
        return self._connection is not None and self._connection.up

    @property
    def tried(self) -> bool:
        """True once the first attempt to connect has succeeded or failed."""
        return bool(self.stats.connections) or self.last_error is not None

    @property
    def pending(self) -> int:
        """Number of published messages that the broker has not acknowledged yet."""
        return len(self._waiting) + len(self._sent)

    @property
    def limits_redelivery(self) -> bool:
        """True if the broker may deliver few messages ahead of their acknowledgement: MQTT 5 alone can ask for more."""
        return self._connection is not None and self._connection.protocol != MQTT5

    @property
    def most_bytes(self) -> float:
        """Bytes of a packet that the broker takes, as far as it says so."""
        return math.inf if self._connection is None else self._connection.most_bytes

    def describe(self) -> str:
        """Describe the connection in a few words."""
        if self._connection is not None and self._connection.up:
            return f"connected to {self._address}, {self._connection}"
        return "not connected" if self.last_error is None else f"not connected: {self.last_error.message}"

    def connect(self) -> None:
        """Connect, and reconnect whenever the connection is lost, until :meth:`close`. Returns at once."""
        self._retry_at = time.monotonic()

    def subscribe(self, topic: str, qos: int) -> None:
        """Receive messages that match ``topic``, on this connection and all later ones."""
        if self._subscriptions.get(topic) == qos:
            return  # asking again would bring retained messages again
        self._subscriptions[topic] = qos
        self._unwanted.discard(topic)
        if self._connection is not None and self._connection.up:
            self._connection.subscribe([(topic, qos)])

    def unsubscribe(self, topic: str) -> None:
        """End a subscription, also in a session that the broker keeps."""
        if self._subscriptions.pop(topic, None) is None:
            return
        if self._connection is not None and self._connection.up:
            self._connection.unsubscribe([topic])
        else:
            self._unwanted.add(topic)

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> int:
        """Queue a message and return a token for :attr:`on_delivered`. Never blocks, and needs no connection.

        A message whose acknowledgement was lost with its connection is sent again. How many may wait is the caller's
        business: :attr:`pending`.
        """
        self._token += 1
        self._waiting.append(_Outgoing(self._token, Message(topic, payload, qos, retain)))
        self._send_waiting()
        return self._token

    def withdraw(self, token: int) -> bool:
        """Take back an unsent message; return True if it was still unsent."""
        for outgoing in self._waiting:
            if outgoing.token == token:
                self._waiting.remove(outgoing)
                return True
        return False

    def wake(self) -> None:
        """Make :meth:`run_once` return at once."""
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Write queued packets and disconnect. Blocks for about three seconds at most."""
        self._retry_at = None
        if self._dialling is not None:
            self._dialling.abandon()
            self._dialling = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)

    # --- the loop

    def run_once(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds (at most one) for socket events, and process them."""
        run_once((self,), timeout)

    def prepare(self, poll: select.poll) -> float:
        """Register descriptors with ``poll``; return the longest time to wait."""
        poll.register(self._wake, select.POLLIN)
        connection = self._connection
        if connection is not None:
            connection.flush()
            poll.register(connection, select.POLLIN | (select.POLLOUT if connection.unsent else 0))
            return 0.0 if connection.unread else _LONGEST_SLEEP
        self._dial_if_due()
        if self._retry_at is not None and self._dialling is None:
            return self._retry_at - time.monotonic()
        return _LONGEST_SLEEP

    def turn(self, ready: Mapping[int, int]) -> None:
        """Process socket events.

        :param ready: events by descriptor, as poll(2) gives them.
        """
        if self._wake in ready:
            os.eventfd_read(self._wake)
        connection = self._connection
        if connection is None:
            self._take_dialled()
            return
        connection.turn(readable=bool(ready.get(connection.fileno(), 0) & ~select.POLLOUT))
        if connection.lost is not None:
            self._after_loss(connection, connection.lost)

    def _dial_if_due(self) -> None:
        if self._dialling is None and self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._dialling = Dialling(self._options, self.wake)

    def _take_dialled(self) -> None:
        if self._dialling is None or self._dialling.outcome is None:
            return
        outcome, self._dialling = self._dialling.outcome, None
        if isinstance(outcome, BrokerError):
            self._retry_later(outcome)
        else:
            events = Events(self._on_connected, self._on_delivery, self._on_acknowledged, self._on_subscribed)
            self._connection = Connection(outcome, self._options, self._protocol, events)

    def _after_loss(self, connection: Connection, error: BrokerError) -> None:
        self._connection = None
        self._waiting.extendleft(reversed(self._sent.values()))
        self._sent.clear()
        if connection.other_version and connection.protocol == MQTT5 and not self._spoke_mqtt5:
            self._protocol = MQTT311
            self._retry_at = time.monotonic()
            return
        self._protocol = MQTT5  # a broker that was busy, or has been updated, is not held to the old version
        if connection.up_since:
            now = time.monotonic()
            self._backoff.note_loss(now, now - connection.up_since, connection.code)
            if self._backoff.contested(now):
                error = TakeoverError(
                    f"broker {self._address}: another client seems to use the client id {self._options.client_id!r}: "
                    "each takes the connection from the other",
                    hint="is this board's card a copy? give each board a name and keys of its own",
                )
            self._call(self.on_down)
        self._retry_later(error)

    def _retry_later(self, error: BrokerError) -> None:
        self.last_error = error
        self._retry_at = time.monotonic() + self._backoff.delay()
        self.on_error(error)

    # --- reports of the connection

    def _on_connected(self) -> None:
        connection = self._connection
        if connection is None:
            return
        self.stats.connections += 1
        self._spoke_mqtt5 = self._spoke_mqtt5 or connection.protocol == MQTT5
        if self._unwanted:
            connection.unsubscribe(self._unwanted)
            self._unwanted.clear()
        if self._subscriptions:
            connection.subscribe(self._subscriptions.items())
        _LOG.info("broker %s: connected, %s", self._address, connection, extra=Event.BROKER_UP.about())
        self._call(self.on_up)
        self._send_waiting()

    def _on_delivery(self, delivery: Delivery) -> None:
        self.stats.received += 1
        self._call(self.on_message, delivery)

    def _on_acknowledged(self, mid: int, code: ReasonCode) -> None:
        outgoing = self._sent.pop(mid, None)
        if outgoing is None:
            return
        outcome = Outcome.TAKEN
        if code.is_failure:
            outcome = Outcome.REFUSED
            self.stats.refused += 1
            self.on_error(
                RefusedError(f"broker {self._address}: it refuses a message on {outgoing.message.topic}: {code}")
            )
        else:
            self.stats.delivered += 1
            if code.value == _NO_SUBSCRIBER:
                outcome = Outcome.UNHEARD
                self.stats.unheard += 1
        self._call(self.on_delivered, outgoing.token, outcome)
        self._send_waiting()

    def _on_subscribed(self, topic: str, code: ReasonCode) -> None:
        if code.is_failure:
            self.on_error(
                RefusedError(
                    f"broker {self._address}: it refuses the subscription to {topic}: {code}",
                    hint="see what the broker allows this client (its ACL)",
                )
            )

    def _send_waiting(self) -> None:
        connection = self._connection
        if connection is None or not connection.up:
            return
        while self._waiting and len(self._sent) < connection.window:
            outgoing = self._waiting.popleft()
            self._sent[connection.publish(outgoing.message)] = outgoing

    def _call(self, callback: Callable[..., None], *args: object) -> None:
        try:
            callback(*args)
        except Exception as error:  # noqa: BLE001  an exception must not pass through paho
            self.on_error(error)


def run_once(brokers: Iterable[Broker], timeout: float) -> None:
    """Wait up to ``timeout`` seconds (at most one) for socket events of any broker, and process them."""
    brokers = tuple(brokers)
    poll = select.poll()
    longest = min(timeout, *[broker.prepare(poll) for broker in brokers])
    ready = dict(poll.poll(max(0.0, longest) * 1000))
    for broker in brokers:
        broker.turn(ready)


def _log_error(error: Exception) -> None:
    event = event_of(error, Event.INTERNAL_ERROR)
    _LOG.error("%s", error, extra=event.about(error=type(error).__name__))
