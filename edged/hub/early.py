"""Messages that arrived ahead of the announcement of their epoch: they wait for it, within one budget."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from edged.base.nothing import nothing
from edged.broker import Broker, Delivery

_BUDGET = 4 << 20
_EACH = 8192
"""Bytes that each message counts for beside its own: some 500 are held, fewer than brokers hand out ahead of their
acknowledgement where they speak MQTT 5."""
_SECONDS = 600.0


class Arrived(NamedTuple):
    """A message of an enrolled board.

    :ivar level: last level of its topic.
    :ivar since: time of arrival, monotonic seconds.
    """

    broker: Broker
    delivery: Delivery
    device: str
    level: str
    since: float

    @property
    def cost(self) -> int:
        """Bytes of the budget that it takes."""
        return _EACH + len(self.delivery.payload)


class EarlyMessages:
    """Messages that wait for an announcement, by board.

    Above the budget the board with the most bytes loses its oldest message: a board that floods loses its own.

    """

    def __init__(self) -> None:
        self._boards: dict[str, deque[Arrived]] = {}
        self._cost = 0

    def __iter__(self) -> Iterator[Arrived]:
        return itertools.chain(*self._boards.values())

    @property
    def acknowledged(self) -> int:
        """Number of messages that their broker counts as delivered: they are lost if the hub dies now."""
        return sum(one.delivery.ack is nothing for one in self)

    def add(self, arrived: Arrived) -> list[Arrived]:
        """Hold a message; return those that are given up to make room.

        A broker that hands out few messages ahead of their acknowledgement gets it at once: a handful would stop it.
        """
        if arrived.broker.limits_redelivery:
            arrived.delivery.ack()
            arrived = arrived._replace(delivery=arrived.delivery._replace(ack=nothing))
        self._boards.setdefault(arrived.device, deque()).append(arrived)
        self._cost += arrived.cost
        given_up = []
        while self._cost > _BUDGET:
            given_up.append(self._pop(max(self._boards, key=self._cost_of)))
        return given_up

    def take(self, device: str) -> list[Arrived]:
        """Remove and return all messages of a board, in the order in which they arrived."""
        self._cost -= self._cost_of(device)
        return list(self._boards.pop(device, ()))

    def expired(self, now: float) -> list[Arrived]:
        """Remove and return the messages that have waited too long."""
        return [self._pop(one.device) for one in list(self) if now - one.since > _SECONDS]

    def _cost_of(self, device: str) -> int:
        return sum(one.cost for one in self._boards.get(device, ()))

    def _pop(self, device: str) -> Arrived:
        held = self._boards[device]
        oldest = held.popleft()
        self._cost -= oldest.cost
        if not held:
            del self._boards[device]
        return oldest
