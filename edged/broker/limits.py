"""The limits of a broker, as its CONNACK says them (MQTT 5.0, section 3.2.2.3); 3.1.1 says none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from edged.broker.options import Message

MOST_UNACKNOWLEDGED = 1000
"""Messages that are sent ahead of their acknowledgement, unless the broker takes fewer."""
_SUBSCRIBE_HEADER = 8


class Filter(NamedTuple):
    """A subscription.

    :ivar retained: the broker sends the messages that it retains for the topic (MQTT 5; 3.1.1 always does).
    """

    topic: str
    qos: int
    retained: bool = True


@dataclass(frozen=True)
class BrokerLimits:
    """The limits of one connection.

    :ivar window: messages that may be sent ahead of their acknowledgement.
    :ivar most_bytes: bytes of a packet.
    :ivar most_qos: the highest QoS of a message.
    :ivar retains: messages may be retained.
    :ivar keepalive: seconds of silence that the broker accepts; 0 for any.
    """

    window: int = MOST_UNACKNOWLEDGED
    most_bytes: float = math.inf
    most_qos: int = 1
    retains: bool = True
    keepalive: int = 0

    @classmethod
    def read(cls, properties: object) -> BrokerLimits:
        """Return the limits in a CONNACK's properties, as paho parsed them."""
        return cls(
            window=min(MOST_UNACKNOWLEDGED, getattr(properties, "ReceiveMaximum", MOST_UNACKNOWLEDGED)),
            most_bytes=getattr(properties, "MaximumPacketSize", math.inf),
            most_qos=getattr(properties, "MaximumQoS", 1),
            retains=bool(getattr(properties, "RetainAvailable", 1)),
            keepalive=getattr(properties, "ServerKeepAlive", 0),
        )

    def fits(self, message: Message) -> bool:
        """Return True if the broker takes a packet of this size."""
        if self.most_bytes == math.inf:
            return True
        qos = min(message.qos, self.most_qos)
        size = 2 + len(message.topic.encode()) + 2 * (qos > 0) + 1 + len(message.payload)
        return 1 + max(1, math.ceil(size.bit_length() / 7)) + size <= self.most_bytes

    def fits_filter(self, one: Filter) -> bool:
        """Return True if a SUBSCRIBE with one filter is of a size that the broker takes."""
        return _size(one) <= self.most_bytes - _SUBSCRIBE_HEADER

    def portions(self, filters: Iterable[Filter]) -> Iterator[list[Filter]]:
        """Yield filters in lists that a SUBSCRIBE may hold; one that no SUBSCRIBE may hold stands by itself."""
        some: list[Filter] = []
        room = whole = self.most_bytes - _SUBSCRIBE_HEADER
        for one in filters:
            size = _size(one)
            if some and size > room:
                yield some
                some, room = [], whole
            some.append(one)
            room -= size
        if some:
            yield some


def _size(one: Filter) -> int:
    return 2 + len(one.topic.encode()) + 1
