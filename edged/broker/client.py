"""A broker across connections: what the caller wants of it, reconnecting, messages handed out once."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from edged.base.errors import BrokerError, TakeoverError
from edged.base.events import Event, event_of
from edged.base.nothing import nothing
from edged.broker.arrivals import Arrivals
from edged.broker.connection import MQTT5, MQTT311, Connection, Events
from edged.broker.dial import Backoff, Dialling
from edged.broker.faults import Faults
from edged.broker.limits import BrokerLimits, Filter
from edged.broker.options import Address, BrokerOptions, Delivery, Message, Outcome, Stats
from edged.broker.publications import Publications
from edged.broker.reasons import QOS_NOT_SUPPORTED, RECEIVE_MAXIMUM_EXCEEDED, RETAIN_NOT_SUPPORTED
from edged.broker.subscriptions import Subscriptions

_LOG = logging.getLogger(__name__)
_LONGEST_SLEEP = 1.0


class Broker:
    """A broker, connected or not. It has no thread: :meth:`run_once` does all work and all callbacks.

    Only :meth:`wake` may be called from other threads and from signal handlers. Callbacks may publish, subscribe and
    acknowledge, and must not call :meth:`run_once` or :meth:`close`.

    Each message of QoS 1 must be acknowledged at some time. While 4,096 of them, or 32 MiB, are in the caller's hand,
    further ones are left to the broker.

    :ivar on_message: called with each message, once.
    :ivar on_repeated: called with each copy of a message that the caller has got already. It is acknowledged with it.
    :ivar on_up: called when connected, after the subscriptions were requested.
    :ivar on_down: called when an established connection is lost.
    :ivar on_delivered: called once with each token of :meth:`publish`, and the outcome of its message.
    :ivar on_error: called with each :class:`BrokerError`, and each exception of other callbacks. Must not raise.
    :ivar last_error: the reason for the last failure to connect or loss of a connection.
    :raises ConfigError: the URL cannot be used.
    """

    def __init__(self, options: BrokerOptions) -> None:
        self.on_message: Callable[[Delivery], None] = nothing
        self.on_repeated: Callable[[Delivery], None] = nothing
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
        self._expects_session = False
        self._faults = Faults(options.client_id)
        self._drained_at = -math.inf
        self._arrivals = Arrivals(self._address, self.stats, self._hand_out, self._hand_repeated)
        self._subscriptions = Subscriptions(self._address, self._tell_error)
        self._publications = Publications(self._address, self.stats, self._tell_delivered, self._tell_error)
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
        return len(self._publications)

    @property
    def limits_redelivery(self) -> bool:
        """True if the broker may deliver few messages ahead of their acknowledgement: MQTT 5 alone can ask for more."""
        return self._connection is not None and self._connection.protocol != MQTT5

    @property
    def most_bytes(self) -> float:
        """Bytes of a packet that the broker takes, as far as it says so."""
        return math.inf if self._connection is None else self._connection.limits.most_bytes

    @property
    def drained_at(self) -> float:
        """Monotonic time when everything that had arrived by then was handled."""
        return self._drained_at if self._connection is None else self._connection.drained_at

    @property
    def faults(self) -> Mapping[str, str]:
        """What is wrong with this link, and what to do, by part; empty if it works as it should."""
        limits = BrokerLimits() if self._connection is None else self._connection.limits
        refused = {f"subscription {topic}": fault for topic, fault in self._subscriptions.faults.items()}
        return refused | self._faults.describe(limits)

    def describe(self) -> str:
        """Describe the connection in a few words."""
        if self._connection is not None and self._connection.up:
            return f"connected to {self._address}, {self._connection}"
        return "not connected" if self.last_error is None else f"not connected: {self.last_error.message}"

    def connect(self) -> None:
        """Connect, and reconnect whenever the connection is lost, until :meth:`close`. Returns at once."""
        self._retry_at = time.monotonic()

    def remember(self, topic: str, payload: bytes) -> None:
        """Take a message for delivered: an earlier process has dealt with it, and its acknowledgement may be lost."""
        self._arrivals.memory.remember(topic, payload)

    def subscribe(self, topic: str, qos: int, *, retained: bool = True) -> None:
        """Receive messages that match ``topic``, on this connection and all later ones.

        :param retained: first receive those that the broker retains; before MQTT 5 they come in any case.
        """
        self._subscriptions.add(Filter(topic, qos, retained))

    def unsubscribe(self, topic: str) -> None:
        """End a subscription, also in a session that the broker keeps."""
        self._subscriptions.remove(topic)

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> int:
        """Queue a message and return a token for :attr:`on_delivered`. Never blocks, and needs no connection.

        A message whose acknowledgement was lost with its connection is sent again. How many may wait is the caller's
        business: :attr:`pending`. A broker that takes QoS 0 only, or retains nothing, gets it so.
        """
        return self._publications.add(Message(topic, payload, qos, retain))

    def withdraw(self, token: int) -> bool:
        """Take back a message; return True if it was still unsent. No outcome is reported, and it is not sent again."""
        return self._publications.withdraw(token)

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
            self._forget_connection(self._connection)
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
            self._arrivals.confirm()
            connection.flush()
            poll.register(connection, select.POLLIN | (select.POLLOUT if connection.unsent else 0))
            return 0.0 if connection.unread or self._publications.unreported else connection.due_in
        self._dial_if_due()
        if self._retry_at is not None and self._dialling is None:
            return self._retry_at - time.monotonic()
        return _LONGEST_SLEEP

    def turn(self, ready: Mapping[int, int], now: float) -> None:
        """Process socket events.

        :param ready: events by descriptor, as poll(2) gives them.
        :param now: when it gave them (monotonic).
        """
        if self._wake in ready:
            os.eventfd_read(self._wake)
        self._publications.turn()
        connection = self._connection
        if connection is None:
            self._take_dialled()
            return
        connection.turn(readable=bool(ready.get(connection.fileno(), 0) & ~select.POLLOUT), now=now)
        self._subscriptions.turn(now)
        if connection.lost is not None:
            self._after_loss(connection, connection.lost)
        elif self._arrivals.may_leave:
            self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        """Disconnect, so that the broker redelivers what was turned away, and reconnect at once."""
        connection.leave(RECEIVE_MAXIMUM_EXCEEDED)
        self._forget_connection(connection)
        self._call(self.on_down)
        self._retry_at = time.monotonic()

    def _dial_if_due(self) -> None:
        if self._dialling is None and self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._dialling = Dialling(self._options, self.wake)

    def _take_dialled(self) -> None:
        if self._dialling is None or self._dialling.outcome is None:
            return
        outcome, self._dialling = self._dialling.outcome, None
        if isinstance(outcome, BrokerError):
            self._backoff.note_restart()
            self._retry_later(outcome)
        else:
            events = Events(
                self._on_connected,
                self._arrivals.take,
                self._publications.acknowledged,
                self._subscriptions.answered,
                self._arrivals.memory.pinged,
                self._arrivals.memory.ponged,
            )
            self._connection = Connection(outcome, self._options, self._protocol, events)

    def _forget_connection(self, connection: Connection) -> None:
        self._connection = None
        self._drained_at = connection.drained_at
        self._arrivals.disconnected()
        self._subscriptions.disconnected()
        self._publications.disconnected()

    def _after_loss(self, connection: Connection, error: BrokerError) -> None:
        self._forget_connection(connection)
        if connection.other_version and connection.protocol == MQTT5 and not self._spoke_mqtt5:
            self._protocol = MQTT311
            self._retry_at = time.monotonic()
            return
        if self._has_adapted_will(connection.code):
            self._retry_at = time.monotonic()
            return
        self._protocol = MQTT5  # a broker that was busy, or has been updated, is not held to the old version
        if connection.up_since:
            now = time.monotonic()
            self._backoff.note_loss(now, now - connection.up_since, connection.code)
            if self._backoff.contested(now):
                self._faults.rival_at = now
                error = self._takeover()
            self._call(self.on_down)
        else:
            self._backoff.note_restart()
        self._retry_later(error)

    def _has_adapted_will(self, code: int) -> bool:
        """Return True if the broker refused the will, and one is left that it may accept."""
        will = self._options.will
        if will is None:
            return False
        if code == RETAIN_NOT_SUPPORTED:
            fitting = will._replace(retain=False)
        elif code == QOS_NOT_SUPPORTED:
            fitting = will._replace(qos=0)
        else:
            return False
        self._options = replace(self._options, will=fitting)
        return fitting != will

    def _takeover(self) -> TakeoverError:
        return TakeoverError(
            f"broker {self._address}: another client seems to use the client id {self._options.client_id!r}: "
            "each takes the connection from the other",
            hint="is this board's card a copy? give each board a name and keys of its own; if not, the broker ends the "
            "connection over a message that it forbids: see edged check",
        )

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
        if connection.session:
            self._faults.session_lost_at = -math.inf
        elif self._expects_session:
            self.stats.sessions_lost += 1
            self._backoff.note_restart()
            self._faults.session_lost_at = time.monotonic()
            _LOG.warning("broker %s: it did not keep the session: messages may be lost there", self._address)
        self._expects_session = not self._options.clean
        self._arrivals.connected(connection)
        self._subscriptions.connected(connection)
        _LOG.info("broker %s: connected, %s", self._address, connection, extra=Event.BROKER_UP.about())
        self._call(self.on_up)
        self._publications.connected(connection)

    def _hand_out(self, delivery: Delivery) -> None:
        try:
            self.on_message(delivery)
        except Exception as error:  # noqa: BLE001  an exception must not pass through paho
            self.on_error(error)

    def _hand_repeated(self, delivery: Delivery) -> None:
        self._call(self.on_repeated, delivery)

    def _tell_delivered(self, token: int, outcome: Outcome) -> None:
        self._call(self.on_delivered, token, outcome)

    def _tell_error(self, error: BrokerError) -> None:
        self.on_error(error)

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
    now = time.monotonic()
    for broker in brokers:
        broker.turn(ready, now)


def _log_error(error: Exception) -> None:
    event = event_of(error, Event.INTERNAL_ERROR)
    _LOG.error("%s", error, extra=event.about(error=type(error).__name__))
