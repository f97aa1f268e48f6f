"""Published messages, from the caller to the broker's answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from edged.base.errors import RefusedError
from edged.broker.connection import Connection
from edged.broker.options import Message, Outcome, Stats
from edged.broker.reasons import PACKET_TOO_LARGE, hint, outcome_of, why

_FORGOTTEN = 0


class _Outgoing(NamedTuple):
    token: int
    message: Message


class Publications:
    """Messages in the order in which they were published, across connections.

    :param tell: called with a token and the outcome of its message.
    :param tell_error: called with each refusal.
    """

    def __init__(
        self,
        address: object,
        stats: Stats,
        tell: Callable[[int, Outcome], None],
        tell_error: Callable[[RefusedError], None],
    ) -> None:
        self._address = address
        self._stats = stats
        self._tell = tell
        self._tell_error = tell_error
        self._token = 0
        self._waiting: deque[_Outgoing] = deque()
        self._sent: dict[int, _Outgoing] = {}
        self._too_large: deque[_Outgoing] = deque()
        self._connection: Connection | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent) + len(self._too_large)

    @property
    def unreported(self) -> bool:
        """True if :meth:`turn` has outcomes to tell."""
        return bool(self._too_large)

    def add(self, message: Message) -> int:
        """Queue a message; return its token."""
        self._token += 1
        self._waiting.append(_Outgoing(self._token, message))
        self._send()
        return self._token

    def withdraw(self, token: int) -> bool:
        """See :meth:`Broker.withdraw`."""
        for queue in (self._waiting, self._too_large):
            for outgoing in queue:
                if outgoing.token == token:
                    queue.remove(outgoing)
                    return True
        for mid, outgoing in self._sent.items():
            if outgoing.token == token:
                self._sent[mid] = outgoing._replace(token=_FORGOTTEN)
                break
        return False

    def connected(self, connection: Connection) -> None:
        """Send over a connection from now on."""
        self._connection = connection
        self._send()

    def disconnected(self) -> None:
        """Keep unacknowledged messages for the next connection, in their order."""
        self._connection = None
        self._waiting.extendleft(one for one in reversed(self._sent.values()) if one.token != _FORGOTTEN)
        self._sent.clear()

    def _send(self) -> None:
        connection = self._connection
        if connection is None or not connection.up:
            return
        limits = connection.limits
        while self._waiting and len(self._sent) < limits.window:
            outgoing = self._waiting.popleft()
            if limits.fits(outgoing.message):
                self._sent[connection.publish(outgoing.message)] = outgoing
            else:
                self._too_large.append(outgoing)

    def turn(self) -> None:
        """Tell of the messages that were too large to be sent."""
        for _ in range(len(self._too_large)):
            if self._too_large:
                self._end(self._too_large.popleft(), PACKET_TOO_LARGE)

    def acknowledged(self, mid: int, code: int) -> None:
        """Take the broker's answer."""
        outgoing = self._sent.pop(mid, None)
        if outgoing is not None:
            if outgoing.token != _FORGOTTEN:
                self._end(outgoing, code)
            self._send()

    def _end(self, outgoing: _Outgoing, code: int) -> None:
        outcome, stats = outcome_of(code), self._stats
        if outcome in (Outcome.TAKEN, Outcome.UNHEARD):
            stats.delivered += 1
            stats.unheard += outcome is Outcome.UNHEARD
        else:
            for_now = outcome is Outcome.POSTPONED
            stats.postponed += for_now
            stats.refused += not for_now
            stats.refusal = why(code)
            refuses = "does not take a message for now" if for_now else "refuses a message"
            what = f"broker {self._address}: it {refuses}, on {outgoing.message.topic}: {stats.refusal}"
            self._tell_error(RefusedError(what, hint=hint(code)))
        self._tell(outgoing.token, outcome)
