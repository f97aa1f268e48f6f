"""What a broker answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MOST_AT_ONCE = 64
"""Unacknowledged messages beyond which nobody asks."""
REDELIVERED_WITHIN = 3.0
"""Seconds after which nobody waits for what was not acknowledged."""


class Redelivery(Enum):
    """What becomes of a message that was handed out and not acknowledged, once its client is back."""

    NONE = "none"
    """It does not come again within `REDELIVERED_WITHIN`."""
    BEHIND = "behind"
    """It comes again behind what was sent later."""
    UNMARKED = "unmarked"
    """It comes again in its place, but without DUP."""
    MARKED = "marked"
    """It comes again in its place, with DUP."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What a broker does with messages, seen from a client that may publish and subscribe.

    :ivar qos: granted where 1 was asked for.
    :ivar wildcards: ``+`` brings what matches.
    :ivar retained: a retained message reaches who subscribes to its very topic.
    :ivar retained_by_wildcard: and who subscribes to ``+``.
    :ivar at_once: unacknowledged messages that it hands to one client at a time; None for `MOST_AT_ONCE` or more.
    :ivar keeps: a message that was sent while the client was away reaches it when it is back.
    """

    qos: int
    wildcards: bool
    retained: bool
    retained_by_wildcard: bool
    at_once: int | None
    keeps: bool
    redelivery: Redelivery


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What a broker that took this client is like.

    :ivar description: how the connection stands.
    :ivar seconds: from nothing to being accepted.
    :ivar base: first levels of the board's own topics.
    :ivar granted: the QoS granted for each of the sensors' topic filters; None where it is refused.
    :ivar barred: why the client cannot use the board's own topics; empty if it can.
    :ivar behaviour: None where that kept it from being seen.
    """

    description: str
    seconds: float
    base: str
    granted: dict[str, int | None]
    barred: str
    behaviour: Behaviour | None

    def __str__(self) -> str:
        return f"{self.description}, {self.seconds * 1000:.0f} ms"
