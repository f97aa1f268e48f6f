"""Messages in, sealed results out, and each message acknowledged when what it is owed has been done.

A row is acknowledged once it is in its window. A whole window is acknowledged once the broker has its result: if the
board dies before, the broker hands the window out again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edged.broker import Broker, Delivery, topic_matches
from edged.channel.announcer import Announcer
from edged.channel.reading import ReplayGuard
from edged.clock import Clock
from edged.cose import cbor
from edged.daemon.health import Health
from edged.errors import EdgedError, FormatError, ModelError, ReadingError, TrustError
from edged.pipeline import Lane, Reading

ANNOUNCE, NONCE, STATUS = "announce", "nonce", "status"
_NONCE_LIMITS = cbor.Limits(size=128, depth=2, items=3)
_TOPICS_CACHED = 1024

_Window = tuple[str, str, bytes | int]
"""What a whole window is known by until its result is safe: channel, topic, and the reading's name."""


class _Debt:
    """A message's acknowledgement, given once everybody who still needs the message has let go."""

    __slots__ = ("_acknowledge", "_holders")

    def __init__(self, acknowledge: Callable[[], None]) -> None:
        self._acknowledge = acknowledge
        self._holders = 1

    def hold(self) -> None:
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._acknowledge()


@dataclass
class _Sent:
    """A result on its way.

    :ivar kid: the key that sealed it.
    :ivar size: in bytes.
    :ivar since: when it was sealed, monotonic seconds.
    :ivar window: the window whose acknowledgement waits for it.
    """

    kid: bytes
    size: int
    since: float
    window: _Window | None
    reading: Reading


class Traffic:
    """Serves lanes over one broker.

    :param read_clock: the time as well as the board knows it, read again with each announcement.
    :param most_waiting: bytes of results that may wait for the broker; what comes beyond is dropped and counted.
    :param longest_waiting: seconds after which a result that still waits is dropped and counted.
    """

    def __init__(
        self,
        broker: Broker,
        announcer: Announcer,
        guard: ReplayGuard,
        health: Health,
        *,
        prefix: str,
        most_waiting: int,
        longest_waiting: float,
        read_clock: Callable[[], Clock],
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.clock = read_clock()
        self._read_clock = read_clock
        self._broker = broker
        self._announcer = announcer
        self._guard = guard
        self._health = health
        self._base = f"{prefix}/{announcer.device}"
        self._most_waiting = most_waiting
        self._longest_waiting = longest_waiting
        self._waiting_bytes = 0
        self._sent: dict[int, _Sent] = {}
        self._windows: dict[_Window, list[_Debt]] = {}
        self._matching: dict[str, list[Lane]] = {}

    def topic(self, level: str) -> str:
        """Return the topic of this board's that ends in ``level``: a channel, or one of the reserved words."""
        return f"{self._base}/{level}"

    @property
    def waiting(self) -> int:
        """Results that the broker has not acknowledged yet."""
        return len(self._sent)

    def set_lanes(self, lanes: Mapping[str, Lane]) -> None:
        """Serve these lanes, by channel."""
        self.lanes = dict(lanes)
        self._matching.clear()

    def on_message(self, delivery: Delivery) -> None:
        """Serve one message. Nothing that a message can hold raises."""
        level = delivery.topic.removeprefix(f"{self._base}/")
        if level in (ANNOUNCE, NONCE):
            self._on_own_topic(level, delivery)
            delivery.ack()
            return
        debt = _Debt(delivery.ack)
        self._health.messages += 1
        for lane in self._lanes_of(delivery.topic):
            try:
                self._serve(lane, delivery, debt)
            except (ReadingError, TrustError, FormatError, ModelError) as error:
                self._health.refuse(error, delivery.topic)
        debt.release()

    def _lanes_of(self, topic: str) -> list[Lane]:
        lanes = self._matching.get(topic)
        if lanes is None:
            lanes = [lane for lane in self.lanes.values() if topic_matches(lane.config.topic, topic)]
            if len(self._matching) >= _TOPICS_CACHED:
                self._matching.clear()
            self._matching[topic] = lanes
        return lanes

    def _serve(self, lane: Lane, delivery: Delivery, debt: _Debt) -> None:
        reading = lane.open(delivery.topic, delivery.payload)
        window = (lane.config.channel, reading.topic, reading.name) if lane.holds_whole_windows else None
        if window is not None and window in self._windows:
            debt.hold()  # handed out again while its result is on its way: that result settles this copy too
            self._windows[window].append(debt)
            return
        for answer, of in lane.answer(reading, clock_synchronised=self.clock.synchronised):
            if self._waiting_bytes >= self._most_waiting:
                self._health.drop("results.outbox.size is full")
                continue
            kid, message = self._announcer.seal(
                lane.config.channel, lane.encoder, answer, of, late=not self._broker.is_up
            )
            self.announce_if_due()
            token = self._broker.publish(self.topic(lane.config.channel), message, qos=1)
            self._sent[token] = _Sent(kid, len(message), time.monotonic(), window, reading)
            self._waiting_bytes += len(message)
            self._health.results += 1
            if window is not None:
                debt.hold()
                self._windows[window] = [debt]
                return
        self._settle(reading)

    def _settle(self, reading: Reading) -> None:
        if reading.sealed is not None:
            self._guard.settle(reading.sealed.key, reading.sealed.count)

    def on_delivered(self, token: int, taken: bool) -> None:  # noqa: FBT001  the broker's callback
        """Note that the broker has a message, or will not have it: what waited for it is acknowledged."""
        sent = self._sent.pop(token, None)
        if sent is None:
            return
        self._waiting_bytes -= sent.size
        self._announcer.delivered(sent.kid)
        if not taken:
            self._health.drop("the broker refuses it: may this board publish to its own topics?")
        if sent.window is not None:
            self._settle(sent.reading)
            for debt in self._windows.pop(sent.window, ()):
                debt.release()

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
            self._broker.publish(self.topic(ANNOUNCE), self._announcer.announcement(self.clock.now), qos=1, retain=True)

    def _on_own_topic(self, level: str, delivery: Delivery) -> None:
        try:
            if level == ANNOUNCE:
                self._announcer.saw(delivery.payload, retained=delivery.retain)
            else:
                hub, nonce = _parse_nonce(delivery.payload)
                self._announcer.asked(hub, nonce)
            self.announce_if_due()
        except EdgedError as error:
            self._health.refuse(error, delivery.topic)


def _parse_nonce(payload: bytes) -> tuple[bytes, bytes]:
    value = cbor.decode(payload, _NONCE_LIMITS)
    match value:
        case [bytes(hub), bytes(nonce)]:
            return hub, nonce
    raise FormatError("a hub's question is not an array of its key id and a nonce")
