"""Messages of the broker on their way to the caller: each once, and no more than the caller can have in hand."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from edged.base.nothing import nothing
from edged.broker.connection import Connection
from edged.broker.lean_paho import Publish
from edged.broker.options import Delivery, Stats
from edged.broker.redelivery import RedeliveryMemory

_LOG = logging.getLogger(__name__)
_TELL_EVERY = 60.0


class Arrivals:
    """Messages across connections.

    Brokers may send more than the Receive Maximum that they were asked for (Mosquitto 2.0 does). What the caller cannot
    have in hand is turned away: neither handed out nor acknowledged, and nor is any later message of that connection,
    since their order must hold. Once half is dealt with the connection ends, so that the broker redelivers the rest.

    :param hand_out: takes each message.
    :param hand_repeated: takes each copy of a message that was handed out before.
    """

    def __init__(
        self,
        address: object,
        stats: Stats,
        hand_out: Callable[[Delivery], None],
        hand_repeated: Callable[[Delivery], None],
    ) -> None:
        self.memory = RedeliveryMemory()
        self._address = address
        self._stats = stats
        self._hand_out = hand_out
        self._hand_repeated = hand_repeated
        self._connection: Connection | None = None
        self._turns_away = self._leaves = False
        self._told_at = -math.inf

    def take(self, publish: Publish) -> None:
        """Take a message from the connection."""
        self._stats.received += 1
        topic, payload, qos, retain, dup, mid = publish
        if not qos:
            self._hand_out(Delivery(topic, payload, qos, retain, dup, nothing))
            return
        if dup and self.memory.is_repeated(topic, payload, mid):
            self._stats.repeated += 1
            self._hand_repeated(Delivery(topic, payload, qos, retain, dup, nothing))
            return
        entry = None if self._turns_away else self.memory.hand_out(topic, payload, mid)
        if entry is None:
            self._turn_away()
        else:
            self._hand_out(Delivery(topic, payload, qos, retain, dup, entry.ack))

    def _turn_away(self) -> None:
        self._stats.turned_away += 1
        self._turns_away = True
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            _LOG.warning(
                "broker %s: it sends more than can be dealt with: %d messages are in hand, the rest waits there",
                self._address,
                self.memory.in_hand,
            )

    def connected(self, connection: Connection) -> None:
        """Begin a connection."""
        self._connection = connection
        self.memory.connected(connection.acknowledge, session=connection.session)

    def disconnected(self) -> None:
        """End it."""
        self._connection = None
        self._turns_away = self._leaves = False
        self.memory.disconnected()

    def confirm(self) -> None:
        """Ping where the memory waits for it, and before the broker is left for now.

        From that ping on no acknowledgement goes out. When it is answered the broker has all acknowledgements, and what
        it redelivers is known exactly: what is in hand, what was acknowledged since, and what was turned away.
        """
        connection = self._connection
        if connection is None or connection.pinging or not connection.up:
            return
        if self._turns_away and not self._leaves and self.memory.has_fallen():
            self._leaves = True
            self.memory.freeze()
            connection.ping()
        elif self.memory.wants_ping(time.monotonic()):
            connection.ping()

    @property
    def may_leave(self) -> bool:
        """True once the connection is to end, so that the broker redelivers what was turned away."""
        return self._leaves and self._connection is not None and not self._connection.pinging
