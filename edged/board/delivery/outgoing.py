"""Results on their way: sealed, then published, or stored while the broker is away, until the broker has them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from edged.base.clock import Clock
from edged.base.errors import FormatError
from edged.base.events import Event
from edged.base.nothing import nothing
from edged.board.delivery.holds import Hold
from edged.board.delivery.outbox import IN_FLIGHT, Outbox
from edged.board.health import Health
from edged.board.pipeline import Answered, Lane
from edged.board.state import OutboxStore, StoredResult
from edged.broker import Broker, Delivery, Outcome
from edged.formats.channel import StoredEpoch
from edged.formats.channel.announcer import Announcer
from edged.formats.channel.result import Answer, Input
from edged.formats.channel.result_encoder import ResultEncoder
from edged.formats.cose import cbor

ANNOUNCE, NONCE = "announce", "nonce"
_NONCE_LIMITS = cbor.Limits(size=128, depth=2, items=3)
_STALLED = 10.0
"""Seconds without an answer to a result after which further ones are stored: the broker is there, and does nothing."""
_PROBE_EVERY = 5.0
"""Seconds between two tests whether somebody subscribes to results again."""
_REFUSED = "the broker refuses it: may this board publish to its own topics?"
_TOO_LARGE = "stored results wait: with their epoch it is larger than what the broker takes (Maximum Packet Size)"
_SOON = 0.01
_HEADERS = 16
"""Bytes of a PUBLISH packet beside topic and payload, at most."""
_LIVE = 4096
"""Results on their way to a broker that is there; further ones are stored."""


class _Sent(NamedTuple):
    """A published result without an acknowledgement.

    :ivar kid: the key that sealed it.
    :ivar since: when it was sealed, monotonic seconds.
    :ivar hold: the reading that waits for it.
    """

    kid: bytes
    since: float
    channel: str
    encoder: ResultEncoder
    answer: Answer
    of: Input
    hold: Hold | None
    redelivered: bool


class Outgoing:
    """Seals results and follows them to the broker.

    :param broker: the uplink.
    :param base: first levels of this board's topics.
    :param read_clock: returns the best known time; called with each announcement.
    :param most_waiting: bytes of results that may wait for the broker; the oldest beyond are dropped and counted.
    :param longest_waiting: seconds after which a result that still waits is dropped and counted.
    """

    def __init__(
        self,
        broker: Broker,
        announcer: Announcer,
        health: Health,
        store: OutboxStore,
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
        self._own_topics = frozenset({f"{base}/{ANNOUNCE}", f"{base}/{NONCE}"})
        self._sent: dict[int, _Sent] = {}
        self._resent: dict[int, int] = {}
        self._announcement = 0
        """Token of the announcement that the broker has not acknowledged yet; 0 for none."""
        self._openable: frozenset[bytes] = frozenset()
        """Key ids in an announcement that the broker has: hubs can open results under them."""
        self._unheard = self._blocked = False
        self._probe_at = 0.0
        self.outbox = Outbox(
            store, most=most_waiting, longest=longest_waiting, epoch_of=self._epoch_of, on_gone=self._on_gone
        )
        announcer.restore(store.epochs())

    @property
    def waiting(self) -> int:
        """Number of results that the broker has not acknowledged yet, stored ones left out."""
        return len(self._sent) + self.outbox.unstored

    @property
    def congested(self) -> bool:
        """True while readings must be taken no faster than results leave: RAM and disk are full."""
        return self.outbox.unstored > _LIVE

    def publish(self, lane: Lane, answered: Answered, hold: Hold | None) -> None:
        """Seal an answer, and send it or store it.

        :param hold: the reading that waits for it.
        """
        if hold is not None:
            hold.hold()
        self._health.results += 1
        again = answered.redelivered
        self._seal(lane.config.channel, lane.encoder, answered.answer, answered.of, hold, redelivered=again)

    def _seal(
        self,
        channel: str,
        encoder: ResultEncoder,
        answer: Answer,
        of: Input,
        hold: Hold | None,
        *,
        late: bool = False,
        redelivered: bool = False,
    ) -> None:
        now = time.monotonic()
        live = self._is_live(now)
        kid, count, message = self._announcer.seal(
            channel, encoder, answer, of, late=late or not live, redelivered=redelivered
        )
        self.announce_if_due()
        topic = f"{self._base}/{channel}"
        if live:
            token = self._broker.publish(topic, message, qos=1)
            self._sent[token] = _Sent(kid, now, channel, encoder, answer, of, hold, redelivered)
        else:
            done = nothing if hold is None else hold.step_done
            self.outbox.add(StoredResult(0, kid, count, topic, message, self._wall()), now, done)

    def _is_live(self, now: float) -> bool:
        """Return True if the broker takes results, and somebody receives them."""
        if not self._broker.is_up or self._unheard or len(self._sent) >= _LIVE:
            return False
        oldest = next(iter(self._sent.values()), None)
        return oldest is None or now - oldest.since < _STALLED

    def _wall(self) -> float:
        return time.time() if self.clock.synchronised else 0.0

    def on_delivered(self, token: int, outcome: Outcome) -> None:
        """Note the outcome of a message, and release the reading that waited for it."""
        if token == self._announcement:
            self._announcement = 0
            if outcome is not Outcome.REFUSED:
                self._openable = self._announcer.announced
            return
        number = self._resent.pop(token, None)
        if number is not None:
            self._on_stored_delivered(number, outcome)
            return
        sent = self._sent.pop(token, None)
        if sent is None:
            return
        if outcome is Outcome.UNHEARD:
            self._deaf()
            again = sent.redelivered
            self._seal(sent.channel, sent.encoder, sent.answer, sent.of, sent.hold, late=True, redelivered=again)
        elif outcome is Outcome.REFUSED:
            self._health.drop(_REFUSED)
        self._announcer.delivered(sent.kid)
        if outcome is not Outcome.UNHEARD and sent.hold is not None:
            sent.hold.step_done()

    def _on_stored_delivered(self, number: int, outcome: Outcome) -> None:
        if outcome is Outcome.UNHEARD:
            self._deaf()
            self.outbox.requeue(number)
            return
        self._unheard = False
        self.outbox.sent(number, time.monotonic(), _REFUSED if outcome is Outcome.REFUSED else "")

    def _deaf(self) -> None:
        """Store results from now on: nobody subscribes to them. From time to time one is sent as a test."""
        if not self._unheard:
            self._health.trouble(
                "nobody subscribes to results: they wait in the outbox", "unheard", Event.RESULTS_UNHEARD
            )
        self._unheard = True
        self._probe_at = time.monotonic() + _PROBE_EVERY

    def _on_gone(self, kid: bytes, why: str) -> None:
        self._announcer.delivered(kid)
        if why:
            self._health.drop(why)

    def on_up(self) -> None:
        """Resume sending: the broker is connected. Whether it still has the announcement is not known."""
        self._unheard = False
        self._health.note_state("announcement", "")
        self._openable = frozenset()
        self._broker.withdraw(self._announcement)
        most = self._broker.most_bytes
        self._announcer.most_bytes = most - len(f"{self._base}/{ANNOUNCE}".encode()) - _HEADERS
        self._announcer.renew()
        self.announce_if_due()

    def turn(self, now: float) -> None:
        """Write stored results that are due, and send those that waited."""
        if self.outbox.idle:
            return
        self.outbox.turn(self._wall(), now)
        self._health.note_state("outbox", self.outbox.error)
        if not self._broker.is_up or (self._unheard and (now < self._probe_at or self._resent)):
            return
        self._blocked = False
        for result in self.outbox.next_to_send(now, self._may_send, 1 if self._unheard else IN_FLIGHT):
            token = self._broker.publish(result.topic, result.message, qos=1)
            self._resent[token] = result.number

    def due_in(self, now: float) -> float:
        """Return the seconds until :meth:`turn` has something to do."""
        if self.outbox.idle:
            return float("inf")
        sends = self._broker.is_up and not self._unheard and not self._blocked and self.outbox.unsent
        return min(_SOON if sends else float("inf"), self.outbox.due_in(now))

    def _may_send(self, kid: bytes) -> bool:
        """Return True if hubs can open stored results under a key; if not, announce its epoch once there is room."""
        if kid in self._openable:
            return True
        self._blocked = True
        if not self._announcement and kid not in self._announcer.announced and self._announcer.has_room_for(kid):
            self._announcer.renew()
        self._health.note_state("announcement", _TOO_LARGE if self._announcer.is_too_large() else "")
        self.announce_if_due()
        return False

    def seal_again(self) -> None:
        """Seal all unacknowledged results under the new epoch: hubs refuse the old one."""
        sent, self._sent = self._sent, {}
        for token, one in sent.items():
            self._broker.withdraw(token)
            self._seal(one.channel, one.encoder, one.answer, one.of, one.hold, late=True, redelivered=True)
            self._announcer.delivered(one.kid)

    def stash(self) -> None:
        """Store all unacknowledged results: the process ends, and its key with it."""
        sent, self._sent = self._sent, {}
        if sent:
            self._announcer.rotate()  # the broker may have taken one all the same: hubs tell two answers by their keys
        for token, one in sent.items():
            self._broker.withdraw(token)
            kid, count, message = self._announcer.seal(
                one.channel, one.encoder, one.answer, one.of, late=True, redelivered=True
            )
            stored = StoredResult(0, kid, count, f"{self._base}/{one.channel}", message, self._wall())
            self.outbox.add(stored, time.monotonic(), nothing if one.hold is None else one.hold.step_done)
        self.outbox.flush(time.monotonic())

    def is_own(self, topic: str) -> bool:
        """Return True for the topics of this board's announcements and of hubs' questions."""
        return topic in self._own_topics

    def on_own_topic(self, delivery: Delivery) -> None:
        """Handle a message on one of the board's own topics.

        :raises DuplicateDeviceError: another board announces under this board's identity.
        :raises FormatError: it is no hub's question.
        """
        if delivery.topic.endswith(ANNOUNCE):
            self._announcer.saw(delivery.payload, retained=delivery.retain)
        else:
            self._announcer.asked(*_parse_nonce(delivery.payload))
        self.announce_if_due()

    def announce_if_due(self) -> None:
        """Publish the announcement if one is due, ahead of the first result under a new epoch.

        While the broker is away it waits: how large it may be is known once the broker is back.
        """
        if self._announcer.due and self._broker.is_up:
            self.clock = self._read_clock()
            announcement = self._announcer.announcement(self.clock.now)
            self._openable &= self._announcer.announced
            self._announcement = self._broker.publish(f"{self._base}/{ANNOUNCE}", announcement, qos=1, retain=True)

    def _epoch_of(self, kid: bytes) -> StoredEpoch | None:
        return self._announcer.find(kid)


def _parse_nonce(payload: bytes) -> tuple[bytes, bytes]:
    value = cbor.decode(payload, _NONCE_LIMITS)
    match value:
        case [bytes(hub), bytes(nonce)]:
            return hub, nonce
    raise FormatError("a hub's question is not an array of its key id and a nonce")
