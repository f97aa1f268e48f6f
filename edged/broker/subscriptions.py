"""Subscriptions across connections, and those that the broker refuses."""

from __future__ import annotations

import time
from collections.abc import Callable

from edged.base.errors import RefusedError
from edged.broker.connection import Connection
from edged.broker.limits import Filter
from edged.broker.reasons import is_failure, why

_RETRY_SECONDS = 60.0
_HINT = "see what the broker allows this client (its ACL)"


class Subscriptions:
    """The topic filters that the caller wants.

    :param tell_error: called with each refusal.
    :ivar faults: what is wrong with a filter's subscription, in words.
    """

    def __init__(self, address: object, tell_error: Callable[[RefusedError], None]) -> None:
        self.faults: dict[str, str] = {}
        self._address = address
        self._tell_error = tell_error
        self._wanted: dict[str, Filter] = {}
        self._unwanted: set[str] = set()
        self._connection: Connection | None = None
        self._retry_at = 0.0

    def add(self, one: Filter) -> None:
        """Subscribe, on this connection and all later ones."""
        if self._wanted.get(one.topic) == one:
            return  # asking again would bring retained messages again
        self._wanted[one.topic] = one
        self._unwanted.discard(one.topic)
        if self._connection is not None:
            self._connection.subscribe([one])

    def remove(self, topic: str) -> None:
        """Unsubscribe, also in a session that the broker keeps."""
        if self._wanted.pop(topic, None) is None:
            return
        self.faults.pop(topic, None)
        if self._connection is not None:
            self._connection.unsubscribe([topic])
        else:
            self._unwanted.add(topic)

    def connected(self, connection: Connection) -> None:
        """Subscribe over a new connection."""
        self._connection = connection
        if self._unwanted:
            connection.unsubscribe(self._unwanted)
            self._unwanted.clear()
        if self._wanted:
            connection.subscribe(self._wanted.values())

    def disconnected(self) -> None:
        """Wait for the next connection."""
        self._connection = None

    def turn(self, now: float) -> None:
        """Ask again for what was refused, once a minute: somebody may have corrected the broker's ACL."""
        if self.faults and self._connection is not None and now >= self._retry_at:
            self._retry_at = now + _RETRY_SECONDS
            self._connection.subscribe([self._wanted[topic] for topic in self.faults])

    def answered(self, one: Filter, code: int) -> None:
        """Take the broker's answer."""
        if self._wanted.get(one.topic) != one:
            return
        if is_failure(code):
            self.faults[one.topic] = f"the broker refuses the subscription to {one.topic}: {why(code)}; {_HINT}"
            error = f"broker {self._address}: it refuses the subscription to {one.topic}: {why(code)}"
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            self._tell_error(RefusedError(error, hint=_HINT))
        elif code < one.qos:
            self.faults[one.topic] = (
                f"the broker grants QoS {code} for {one.topic}: it may lose messages; allow it QoS 1 there"
            )
        else:
            self.faults.pop(one.topic, None)
