"""What outlives connections: subscriptions, messages that the broker does not have yet, and the patience to come back."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from edged.broker.connection import MQTT5, MQTT311, TAKEN_OVER, UNSUPPORTED_VERSION, Connection
from edged.broker.dial import Dialling
from edged.broker.options import Address, BrokerOptions, Delivery, Message
from edged.errors import BrokerError

_LOG = logging.getLogger(__name__)
_LONGEST_SLEEP = 1.0
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
_STABLE = 5.0
"""Seconds after which a connection counts as one that holds."""
_TAKEOVERS, _TAKEOVERS_WITHIN = 3, 60.0
_NO_SUBSCRIBER, _FAILURE = 16, 128


@dataclass
class Stats:
    """Counts since the start.

    :ivar unheard: messages that the broker took (MQTT 5) although nobody subscribes to them.
    """

    connections: int = 0
    received: int = 0
    delivered: int = 0
    refused: int = 0
    unheard: int = 0


class _Outgoing(NamedTuple):
    token: int
    message: Message


def _ignore(*_: object) -> None:
    pass


class Broker:
    """A broker, whether it is there or not. It has no thread: :meth:`run_once` does all work and all callbacks.

    Only :meth:`wake` may be called from other threads and from signal handlers. Callbacks may publish, subscribe and
    acknowledge, and must not call :meth:`run_once` or :meth:`close`.

    :ivar on_message: takes each message.
    :ivar on_up: called when a connection stands, after its subscriptions were asked for.
    :ivar on_down: called when a connection that stood is lost.
    :ivar on_delivered: takes a token of :meth:`publish`, once, and whether the broker has the message (else it refused it).
    :ivar on_error: takes everything that goes wrong: :class:`BrokerError`, and what other callbacks raise. Must not raise.
    :ivar last_error: the last reason for being without a connection.
    :raises ConfigError: the URL cannot be used.
    """

    def __init__(self, options: BrokerOptions) -> None:
        self.on_message: Callable[[Delivery], None] = _ignore
        self.on_up: Callable[[], None] = _ignore
        self.on_down: Callable[[], None] = _ignore
        self.on_delivered: Callable[[int, bool], None] = _ignore
        self.on_error: Callable[[Exception], None] = _log_error
        self.last_error: BrokerError | None = None
        self.stats = Stats()
        self._options = options
        self._address = Address.parse(options.url)
        self._connection: Connection | None = None
        self._dialling: Dialling | None = None
        self._retry_at: float | None = None
        self._failures = 0
        self._protocol = MQTT5
        self._takeovers: deque[float] = deque(maxlen=_TAKEOVERS)
        self._subscriptions: dict[str, int] = {}
        self._unwanted: set[str] = set()
        self._token = 0
        self._waiting: deque[_Outgoing] = deque()
        self._sent: dict[int, _Outgoing] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    # --- what the caller asks for

    @property
    def is_up(self) -> bool:
        """Whether a connection stands."""
        return self._connection is not None and self._connection.up

    @property
    def tried(self) -> bool:
        """Whether the first attempt to connect has come to an end, good or bad."""
        return bool(self.stats.connections) or self.last_error is not None

    @property
    def pending(self) -> int:
        """Messages that were published, and that the broker has not acknowledged yet."""
        return len(self._waiting) + len(self._sent)

    def describe(self) -> str:
        """Say in a few words how things stand."""
        if self._connection is not None and self._connection.up:
            return f"connected to {self._address}, {self._connection}"
        return "not connected" if self.last_error is None else f"not connected: {self.last_error.message}"

    def connect(self) -> None:
        """Connect, and connect again whenever the connection is lost, until :meth:`close`. Returns at once."""
        self._retry_at = time.monotonic()

    def subscribe(self, topic: str, qos: int) -> None:
        """Receive what matches ``topic``, now and on all connections to come."""
        if self._subscriptions.get(topic) == qos:
            return  # asking again would bring retained messages again
        self._subscriptions[topic] = qos
        self._unwanted.discard(topic)
        if self._connection is not None and self._connection.up:
            self._connection.subscribe([(topic, qos)])

    def unsubscribe(self, topic: str) -> None:
        """Take back a subscription, also from a session that the broker keeps."""
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

    def wake(self) -> None:
        """Have :meth:`run_once` return at once."""
        with contextlib.suppress(OSError):  # closed meanwhile
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Hand what waits to the operating system, say goodbye and disconnect. Blocks for about three seconds at most."""
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
        """Wait up to ``timeout`` seconds (at most one) for something to do, and do it."""
        connection = self._connection
        if connection is None:
            self._dial_when_due()
        else:
            connection.flush()
        readable = self._wait(min(timeout, _LONGEST_SLEEP))
        if connection is not None:
            connection.turn(readable=readable)
            if connection.lost is not None:
                self._after_loss(connection, connection.lost)
        elif self._dialling is not None and self._dialling.outcome is not None:
            self._after_dialling(self._dialling)

    def _wait(self, timeout: float) -> bool:
        """Return whether the connection has something to read."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        connection = self._connection
        if connection is not None:
            poll.register(connection, select.POLLIN | (select.POLLOUT if connection.wants_write else 0))
            if connection.wants_turn:
                timeout = 0
        ready = poll.poll(max(0.0, timeout) * 1000)
        readable = False
        for descriptor, events in ready:
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
            elif events & ~select.POLLOUT:
                readable = True
        return readable

    def _dial_when_due(self) -> None:
        if self._dialling is None and self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._dialling = Dialling(self._options, self.wake)

    def _after_dialling(self, dialling: Dialling) -> None:
        self._dialling = None
        outcome = dialling.outcome
        if isinstance(outcome, BrokerError):
            self._fail(outcome)
        elif outcome is not None:
            self._connection = Connection(outcome, self._options, self._protocol, self)

    def _after_loss(self, connection: Connection, error: BrokerError) -> None:
        self._connection = None
        self._waiting.extendleft(reversed(self._sent.values()))
        self._sent.clear()
        if not connection.up_since:
            self._protocol, tried = MQTT5, self._protocol
            if tried == MQTT5 and connection.silent or connection.code == UNSUPPORTED_VERSION:
                self._protocol = MQTT311
                self._retry_at = time.monotonic()
                return
        self._fail(error)
        self._call(self.on_down)

    def _fail(self, error: BrokerError) -> None:
        ...

    # --- what the connection reports

    def on_connected(self) -> None:
        ...


def _log_error(error: Exception) -> None:
    _LOG.error("%s", error)
