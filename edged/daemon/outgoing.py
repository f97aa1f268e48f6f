"""Results on their way: sealed, handed to the broker, bounded in size and age, and counted off when it has them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from edged.broker import Broker
from edged.channel.announcer import Announcer
from edged.clock import Clock
from edged.daemon.debts import Owed
from edged.daemon.health import Health
from edged.pipeline import Answered, Lane

ANNOUNCE = "announce"


class _Sent(NamedTuple):
    """A result on its way.

    :ivar kid: the key that sealed it.
    :ivar size: in bytes.
    :ivar since: when it was sealed, monotonic seconds.
    :ivar owed: the reading whose acknowledgement waits for it.
    """

    kid: bytes
    size: int
    since: float
    owed: Owed | None


class Outgoing:
    """Seals results and follows them to the broker.

    :param base: first levels of this board's topics.
    :param read_clock: the time as well as the board knows it, read again with each announcement.
    :param most_waiting: bytes of results that may wait for the broker; what comes beyond is dropped and counted.
    :param longest_waiting: seconds after which a result that still waits is dropped and counted.
    """

    def __init__(
        self,
        broker: Broker,
        announcer: Announcer,
        health: Health,
        *,
        base: str,
        most_waiting: int,
        longest_waiting: float,
        read_clock: Callable[[], Clock],
    ) -> None:
        self.clock = read_clock()
        self._read_clock = read_clock
        self._broker = broker
        self._announcer = announcer
        self._health = health
        self._base = base
        self._most_waiting = most_waiting
        self._longest_waiting = longest_waiting
        self._waiting_bytes = 0
        self._sent: dict[int, _Sent] = {}

    @property
    def waiting(self) -> int:
        """Results that the broker has not acknowledged yet."""
        return len(self._sent)

    def publish(self, lane: Lane, answered: Answered, owed: Owed | None) -> None:
        """Seal an answer and send it.

        :param owed: the reading that waits for it.
        """
        if self._waiting_bytes >= self._most_waiting:
            self._health.drop("results.outbox.size is full")
            return
        channel = lane.config.channel
        kid, message = self._announcer.seal(
            channel, lane.encoder, answered.answer, answered.of, late=not self._broker.is_up
        )
        self.announce_if_due()
        token = self._broker.publish(f"{self._base}/{channel}", message, qos=1)
        if owed is not None:
            owed.hold()
        self._sent[token] = _Sent(kid, len(message), time.monotonic(), owed)
        self._waiting_bytes += len(message)
        self._health.results += 1

    def on_delivered(self, token: int, taken: bool) -> None:  # noqa: FBT001  the broker's callback
        """Note that the broker has a message, or will not have it: what waited for it is acknowledged."""
        sent = self._sent.pop(token, None)
        if sent is None:
            return
        self._waiting_bytes -= sent.size
        self._announcer.delivered(sent.kid)
        if not taken:
            self._health.drop("the broker refuses it: may this board publish to its own topics?")
        if sent.owed is not None:
            sent.owed.step_done()

    def drop_outdated(self, now: float) -> None:
        """Drop results that have waited too long for the broker, the oldest first."""
        for token, sent in list(self._sent.items()):
            if now - sent.since <= self._longest_waiting:
                return
            if self._broker.withdraw(token):
                self._health.drop("it waited for the broker longer than results.outbox.age")
                self.on_delivered(token, taken=True)

    def announce_if_due(self) -> None:
        """Publish the announcement where a new one is due: ahead of the first result under a new epoch."""
        if self._announcer.due:
            self.clock = self._read_clock()
            announcement = self._announcer.announcement(self.clock.now)
            self._broker.publish(f"{self._base}/{ANNOUNCE}", announcement, qos=1, retain=True)
