"""A short conversation with a broker: ask, and wait for each answer within bounds."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from paho.mqtt.enums import MQTTProtocolVersion

from edged.base.errors import BrokerError
from edged.base.nothing import nothing
from edged.broker.connection import MQTT5, MQTT311, Connection, Events
from edged.broker.dial import Dialling
from edged.broker.lean_paho import Publish
from edged.broker.limits import Filter
from edged.broker.options import Address, BrokerOptions, Delivery, Message
from edged.broker.reasons import is_failure, why
from edged.broker.wire import Wire

ANSWER_WITHIN = 10.0
"""The longest wait for what must come, in seconds."""
_SHORTEST_SILENCE, _LONGEST_SILENCE = 0.4, 2.0
_SILENCE = 4  # round trips


class Talk:
    """A connection that lasts until its block ends.

    :param protocol: the first version to try; 3.1.1 follows if the broker does not speak 5.
    :ivar heard: messages that arrived and are not acknowledged.
    :ivar seconds: from nothing to being accepted.
    :raises BrokerError: the broker cannot be reached within ``timeout`` seconds, or refuses.
    """

    def __init__(self, options: BrokerOptions, timeout: float, protocol: MQTTProtocolVersion = MQTT5) -> None:
        self.heard: list[Delivery] = []
        self._granted: dict[str, int | None] = {}
        self._answers: dict[int, int] = {}
        self._slowest = 0.0
        self._address = Address.parse(options.url)
        began = time.monotonic()
        try:
            self._connection = self._connect(options, protocol, began + timeout)
        except _OtherVersionError:
            self._connection = self._connect(options, MQTT311, began + timeout)
        self.seconds = time.monotonic() - began

    def _connect(self, options: BrokerOptions, protocol: MQTTProtocolVersion, deadline: float) -> Connection:
        dialled = threading.Event()
        dialling = Dialling(options, dialled.set)
        if not dialled.wait(deadline - time.monotonic()):
            dialling.abandon()
            raise self._silent()
        wire = dialling.outcome
        if not isinstance(wire, Wire):
            raise wire or self._silent()
        events = Events(nothing, self._on_publish, self._answers.__setitem__, self._on_subscribed, nothing, nothing)
        asked = time.monotonic()
        self._connection = connection = Connection(wire, options, protocol, events)
        self.wait(lambda: connection.up, deadline - asked)
        if connection.up:
            self._slowest = max(self._slowest, time.monotonic() - asked)
            return connection
        if connection.lost is None:
            connection.close()
            raise self._silent()
        raise _OtherVersionError if connection.other_version and protocol == MQTT5 else connection.lost

    def _silent(self) -> BrokerError:
        return BrokerError(
            f"broker {self._address}: no answer in time", hint="check the network, and the broker's load"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.stands:
            self._connection.close()

    def __str__(self) -> str:
        return f"connected to {self._address}, {self._connection}"

    @property
    def protocol(self) -> MQTTProtocolVersion:
        """The version of MQTT that is spoken."""
        return self._connection.protocol

    @property
    def stands(self) -> bool:
        """True until the broker ends it."""
        return self._connection.lost is None

    @property
    def retains(self) -> bool:
        """False if the broker has said that it retains nothing."""
        return self._connection.limits.retains

    # --- questions

    def subscribe(self, topic: str, qos: int = 1) -> int | None:
        """Return the QoS that is granted; None for a refusal, and if the connection ends upon it.

        :raises BrokerError: the broker does not answer.
        """
        self._granted.pop(topic, None)
        self._connection.subscribe([Filter(topic, qos)])
        if not self._answered(lambda: topic in self._granted) and self.stands:
            raise self._silent()
        return self._granted.get(topic)

    def unsubscribe(self, topic: str) -> None:
        """End a subscription."""
        self._connection.unsubscribe([topic])

    def publish(self, topic: str, payloads: Sequence[bytes], *, retain: bool = False) -> str:
        """Publish with QoS 1, no faster than the broker allows; return the reason if it does not take them all."""
        mids: list[int] = []
        connection = self._connection
        deadline = time.monotonic() + ANSWER_WITHIN

        def unanswered() -> int:
            return sum(mid not in self._answers for mid in mids)

        for payload in payloads:
            self.wait(lambda: unanswered() < connection.limits.window, deadline - time.monotonic())
            if connection.lost is not None or time.monotonic() > deadline:
                break
            mids.append(connection.publish(Message(topic, payload, 1, retain)))
        self.wait(lambda: not unanswered(), deadline - time.monotonic())
        if connection.lost is not None:
            return "it ends the connection upon a message there"
        if unanswered() or len(mids) < len(payloads):
            return "it does not acknowledge messages there"
        refusals = [self._answers[mid] for mid in mids if is_failure(self._answers[mid])]
        return f"it refuses messages there: {why(refusals[0])}" if refusals else ""

    def hears(self, topic: str, payload: bytes) -> bool:
        """Wait for a message as long as for any answer: to be wrong about it would be a false alarm."""
        return self._answered(lambda: self._has(topic, payload))

    def hears_soon(self, topic: str, payload: bytes) -> bool:
        """Wait for a message that may well not come, as long as it may take judging by other answers."""
        return self.wait(lambda: self._has(topic, payload), self._patience)

    def _has(self, topic: str, payload: bytes) -> bool:
        return any((one.topic, one.payload) == (topic, payload) for one in self.heard)

    def acknowledge(self) -> None:
        """Acknowledge all messages heard, and forget them."""
        for delivery in self.heard:
            delivery.ack()
        self.heard.clear()

    def settle(self) -> None:
        """Wait until no more messages arrive."""
        count = -1
        while count != len(self.heard):
            count = len(self.heard)
            self.wait(lambda before=count: len(self.heard) != before, self._patience)  # type: ignore[misc]

    # --- waiting

    def _answered(self, until: Callable[[], bool]) -> bool:
        """Wait for an answer, and note how long it took."""
        asked = time.monotonic()
        answered = self.wait(until, ANSWER_WITHIN)
        self._slowest = max(self._slowest, time.monotonic() - asked)
        return answered

    @property
    def _patience(self) -> float:
        return min(max(_SHORTEST_SILENCE, _SILENCE * self._slowest), _LONGEST_SILENCE)

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        """Serve the connection until a condition holds, it ends, or time is up; return True if the condition holds."""
        deadline = time.monotonic() + seconds
        connection = self._connection
        while not until():
            left = deadline - time.monotonic()
            if left <= 0 or connection.lost is not None:
                return False
            connection.flush()
            poll = select.poll()
            poll.register(connection, select.POLLIN | (select.POLLOUT if connection.unsent else 0))
            ready = poll.poll(0 if connection.unread else min(left, 1.0) * 1000)
            readable = any(events & ~select.POLLOUT for _, events in ready)
            connection.turn(readable=readable, now=time.monotonic())
        return True

    def _on_publish(self, publish: Publish) -> None:
        topic, payload, qos, retain, dup, mid = publish
        ack = partial(self._connection.acknowledge, mid) if qos else nothing
        self.heard.append(Delivery(topic, payload, qos, retain, dup, ack))

    def _on_subscribed(self, one: Filter, code: int) -> None:
        self._granted[one.topic] = None if is_failure(code) else code


class _OtherVersionError(Exception):
    """The broker does not speak MQTT 5."""
