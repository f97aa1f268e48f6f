"""The board's announcements: published before the first result of an epoch, and followed until the broker has them."""

from __future__ import annotations

from collections.abc import Callable

from edged.base.clock import Clock
from edged.base.errors import EdgedError, FormatError
from edged.board.health import Health
from edged.broker import Broker, Delivery, Outcome
from edged.formats.channel.announcer import Announcer
from edged.formats.cose import cbor

ANNOUNCE, NONCE = "announce", "nonce"
_NONCE_LIMITS = cbor.Limits(size=128, depth=2, items=3)
_TOO_LARGE = "stored results wait: with their epoch it is larger than what the broker takes (Maximum Packet Size)"
_NOT_TAKEN = {
    Outcome.REFUSED: "the broker refuses it, and no hub can open results: may this board publish to its own topics?",
    Outcome.POSTPONED: "the broker does not take it for now (a quota?): hubs cannot open newer results",
    Outcome.TOO_LARGE: "it is larger than what the broker takes (Maximum Packet Size), and no hub can open results",
}
_HEADERS = 16
"""Bytes of a PUBLISH packet beside topic and payload, at most."""


class Announcing:
    """Publishes what the announcer signs, and knows under which keys hubs can open results.

    :param broker: the uplink.
    :param topic: returns this board's topic that ends in a level.
    :param read_clock: returns the best known time; called with each announcement.
    :ivar clock: the time that it returned last.
    """

    def __init__(
        self,
        broker: Broker,
        announcer: Announcer,
        health: Health,
        topic: Callable[[str], str],
        read_clock: Callable[[], Clock],
    ) -> None:
        self.clock = read_clock()
        self.announcer = announcer
        self._read_clock = read_clock
        self._broker = broker
        self._health = health
        self._topic = topic(ANNOUNCE)
        self._own_topics = frozenset({self._topic, topic(NONCE)})
        self._token = 0
        """Of the announcement that the broker has not acknowledged yet; 0 for none."""
        self._openable: frozenset[bytes] = frozenset()
        """Key ids in an announcement that the broker has."""

    def is_own(self, topic: str) -> bool:
        """Return True for the topics of this board's announcements and of hubs' questions."""
        return topic in self._own_topics

    def on_own_topic(self, delivery: Delivery) -> None:
        """Handle a message on one of the board's own topics. No content of a message makes this raise."""
        try:
            if delivery.topic == self._topic:
                self.announcer.saw(delivery.payload, retained=delivery.retain)
            else:
                self.announcer.asked(*_parse_nonce(delivery.payload))
            self.announce_if_due()
        except EdgedError as error:
            self._health.refuse(error, delivery.topic)

    def announce_if_due(self) -> None:
        """Publish the announcement if one is due, ahead of the first result under a new epoch.

        While the broker is away it waits: how large it may be is known once the broker is back.
        """
        if self.announcer.due and self._broker.is_up:
            self.clock = self._read_clock()
            announcement = self.announcer.announcement(self.clock.now)
            self._openable &= self.announcer.announced
            self._token = self._broker.publish(self._topic, announcement, qos=1, retain=True)

    def on_up(self) -> None:
        """Announce once more: whether the broker still has the announcement is not known."""
        self._health.note_state("announcement", "")
        self._openable = frozenset()
        self._broker.withdraw(self._token)
        self.announcer.most_bytes = self._broker.most_bytes - len(self._topic.encode()) - _HEADERS
        self.announcer.renew()
        self.announce_if_due()

    def on_delivered(self, token: int, outcome: Outcome) -> bool:
        """Note the outcome of a message, if it was an announcement; return True if it was."""
        if token != self._token:
            return False
        self._token = 0
        if outcome in {Outcome.TAKEN, Outcome.UNHEARD}:
            self._openable = self.announcer.announced
            self._health.note_state("announcement", "")
        else:
            self._health.note_state("announcement", _NOT_TAKEN[outcome])
        return True

    def may_send(self, kid: bytes) -> bool:
        """Return True if hubs can open stored results under a key; if not, announce its epoch once there is room."""
        if kid in self._openable:
            return True
        if not self._token and kid not in self.announcer.announced and self.announcer.has_room_for(kid):
            self.announcer.renew()
        self._health.note_state("announcement", _TOO_LARGE if self.announcer.is_too_large() else "")
        self.announce_if_due()
        return False


def _parse_nonce(payload: bytes) -> tuple[bytes, bytes]:
    value = cbor.decode(payload, _NONCE_LIMITS)
    match value:
        case [bytes(hub), bytes(nonce)]:
            return hub, nonce
    raise FormatError("a hub's question is not an array of its key id and a nonce")
