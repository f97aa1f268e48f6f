"""Results that came before the announcement of their epoch: kept for a while, unacknowledged, within one budget."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from edged.broker import Broker, Delivery

_BUDGET = 4 << 20
_EACH = 8192
"""Bytes that each message counts for beside its own: some 500 are held, fewer than brokers hand out ahead of their
acknowledgement where they speak MQTT 5."""
_SECONDS = 600.0


class Arrived(NamedTuple):
    """A message of an enrolled board.

    :ivar level: last level of its topic.
    :ivar since: when it came, monotonic seconds.
    """

    broker: Broker
    delivery: Delivery
    device: str
    level: str
    since: float


class Held:
    """What is held. Where it is too much, the board that holds the most loses its oldest: a flood is its own loss."""

    def __init__(self) -> None:
        self._boards: dict[str, deque[Arrived]] = {}
        self._costs: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._boards.values()))

    def add(self, arrived: Arrived) -> list[Arrived]:
        """Hold a message; return those that are given up for it.

        A broker that hands out few messages ahead of their acknowledgement gets it at once: a handful would stop it.
        """
        if arrived.broker.limits_redelivery:
            arrived.delivery.ack()
            arrived = arrived._replace(delivery=arrived.delivery._replace(ack=_nothing_to_acknowledge))
        self._boards.setdefault(arrived.device, deque()).append(arrived)
        self._costs[arrived.device] = self._costs.get(arrived.device, 0) + _cost(arrived)
        given_up = []
        while sum(self._costs.values()) > _BUDGET:
            given_up.append(self._pop(max(self._costs, key=self._costs.__getitem__)))
        return given_up

    def take(self, device: str) -> list[Arrived]:
        """Return all that is held of a board, and hold it no longer."""
        self._costs.pop(device, None)
        return list(self._boards.pop(device, ()))

    def expired(self, now: float) -> list[Arrived]:
        """Return what has waited too long, and hold it no longer."""
        return [
            self._pop(device)
            for device, held in list(self._boards.items())
            for one in list(held)
            if now - one.since > _SECONDS
        ]

    def _pop(self, device: str) -> Arrived:
        held = self._boards[device]
        oldest = held.popleft()
        self._costs[device] -= _cost(oldest)
        if not held:
            del self._boards[device], self._costs[device]
        return oldest


def _cost(arrived: Arrived) -> int:
    return _EACH + len(arrived.delivery.payload)


def _nothing_to_acknowledge() -> None:
    pass
