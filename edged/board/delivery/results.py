"""Where a result goes now: on its way to the broker, into the outbox, or gone.

A result is sealed once, and stays as it was sealed. While the broker takes results, it is on its way and nothing is
written. Where the link falls or stalls, or nobody subscribes, it goes into the outbox. Its reading is let go once the
broker has it, or once it is durable. Stored results are sent in order and at a bounded rate; live ones go past them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edged.base.events import Event
from edged.board.delivery.announcing import Announcing
from edged.board.delivery.hold import Hold
from edged.board.delivery.outbox import Outbound, Outbox
from edged.board.health import Health
from edged.board.pipeline import Answered
from edged.board.state import OutboxStore
from edged.broker import Broker, Outcome
from edged.formats.channel.result_encoder import ResultEncoder

LIVE = 4096
"""Results on their way to a broker that is there; further ones are stored."""
IN_FLIGHT = 100
"""Stored results on their way at once."""
RATE = 1500.0
"""Stored results a second that are sent when the broker is back: live ones go past them."""
_BURST = 0.1
_STALLED = 10.0
"""Seconds without an answer to a result, although all that the broker sent was read: it is stuck, or not there."""
_PROBE_SECONDS = 5.0
"""From a result that nobody took to the next one that is sent as a test."""
_SOON = 0.01
_REASONS = {
    Outcome.REFUSED: "the broker refuses it, {}: may this board publish to its own topics?",
    Outcome.TOO_LARGE: "it is larger than what the broker takes (Maximum Packet Size)",
}
_PAUSES = {
    Outcome.UNHEARD: "nobody subscribes to results: they wait in the outbox",
    Outcome.POSTPONED: "the broker takes no results for now (a quota?): they wait in the outbox",
}
_NO_ANSWER = "the broker answers no result: they wait in the outbox; is the link half open, or the broker stopped?"


class Results:
    """Seals results and follows them until the broker has them.

    :param broker: the uplink.
    :param topic: returns this board's topic of a channel.
    :param most: bytes of results that may wait in the outbox; ``longest``: for how many seconds.
    """

    def __init__(
        self,
        broker: Broker,
        announcing: Announcing,
        health: Health,
        store: OutboxStore,
        *,
        topic: Callable[[str], str],
        most: int,
        longest: float,
    ) -> None:
        self.announcing = announcing
        self.outbox = Outbox(store, announcing.announcer, health, most=most, longest=longest)
        self._broker = broker
        self._announcer = announcing.announcer
        self._health = health
        self._books = health.books
        self._topic = topic
        self._flying: dict[int, Outbound] = {}
        """On their way, by token at the broker, the oldest first."""
        self._resent: set[int] = set()
        """Tokens of those that were sent from the outbox."""
        self._refused: set[str] = set()
        """Topics on which the broker refused a result."""
        self._is_paused = self._is_stalled = self._is_blocked = False
        self._probe_at = 0.0
        self._allowance = self._allowed_at = 0.0

    # --- figures

    @property
    def in_flight(self) -> int:
        """Number of results on their way to the broker."""
        return len(self._flying)

    @property
    def stored(self) -> int:
        """Number of results in the outbox that are not on their way."""
        return self.outbox.waiting - sum(one.fresh or one.number > 0 for one in self._flying.values())

    @property
    def congested(self) -> bool:
        """True while readings must be taken no faster than results leave: RAM and disk are full."""
        return self.outbox.unwritten > LIVE

    # --- one result

    def publish(self, channel: str, encoder: ResultEncoder, answered: Answered, hold: Hold | None) -> None:
        """Seal an answer, and send it or store it.

        :param hold: of the reading that waits for it.
        """
        live = self._broker.is_up and not self._is_paused and not self._is_stalled and len(self._flying) < LIVE
        kid, count, message = self._announcer.seal(
            channel, encoder, answered.answer, answered.of, late=not live, redelivered=answered.redelivered
        )
        self._books.results += 1
        self.announcing.announce_if_due()
        wall = time.time() if self.announcing.clock.synchronised else 0.0
        held = None if hold is None else hold.hold()
        result = Outbound(kid, count, self._topic(channel), message, wall, held)
        if live:
            self._send(result, time.monotonic())
        else:
            self.outbox.keep(result, time.monotonic())

    def _send(self, result: Outbound, now: float) -> int:
        result.sent = now
        token = self._broker.publish(result.topic, result.message, qos=1)
        self._flying[token] = result
        return token

    def on_delivered(self, token: int, outcome: Outcome) -> None:
        """Note the outcome of a message."""
        if self.announcing.on_delivered(token, outcome):
            return
        self._resent.discard(token)
        result = self._flying.pop(token, None)
        if result is None:
            return
        now = time.monotonic()
        if outcome in _PAUSES:
            self._pause(outcome, now)
            self.outbox.keep(result, now)
            return
        self._resume()
        why = _REASONS.get(outcome, "").format(self._broker.stats.refusal)
        if why:
            self._health.drop(why)
        else:
            self._books.delivered += 1
        if why or result.topic in self._refused:
            self._refused.add(result.topic)
            self._health.note_state(f"results {result.topic}", why)
        self.outbox.end(result, now)

    def _pause(self, outcome: Outcome, now: float) -> None:
        """Store results from now on. From time to time one is sent as a test."""
        why = _PAUSES[outcome]
        if not self._is_paused:
            self._health.trouble(why, outcome.value, Event.RESULTS_UNHEARD)
        if outcome is Outcome.POSTPONED:
            self._health.note_state("results", why)
        self._is_paused, self._probe_at = True, now + _PROBE_SECONDS

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._health.note_state("results", "")

    # --- the link

    def on_up(self) -> None:
        """Resume sending: the broker is connected."""
        self._resume()
        self.announcing.on_up()

    def on_down(self) -> None:
        """Put everything on its way into the outbox: the connection is lost, and its acknowledgements with it."""
        flying, self._flying = self._flying, {}
        self._resent.clear()
        now = time.monotonic()
        for token, result in flying.items():
            self._broker.withdraw(token)
            self.outbox.keep(result, now)
        self._note_stall(now)

    def _note_stall(self, now: float) -> None:
        """Store what is on its way where the broker leaves it without an answer; it stays on its way, too."""
        oldest = next(iter(self._flying.values()), None)
        self._is_stalled = oldest is not None and self._broker.drained_at - oldest.sent > _STALLED
        self._health.note_state("uplink", _NO_ANSWER if self._is_stalled else "")
        if self._is_stalled:
            for result in self._flying.values():
                self.outbox.store(result, now)

    # --- time

    def due_in(self, now: float) -> float:
        """Return the seconds until :meth:`turn` has work to do."""
        due = self.outbox.due_in(now)
        waits = self._is_paused or self._is_stalled or self._is_blocked or not self._broker.is_up
        return due if waits or not self.outbox.waiting or not self.stored else min(due, _SOON)

    def turn(self, now: float) -> None:
        """Write stored results that are due, and send those that waited."""
        self._note_stall(now)
        if self.outbox.is_idle:
            return
        self.outbox.turn(time.time() if self.announcing.clock.synchronised else 0.0, now)
        self._health.note_state("outbox", self.outbox.error)
        if not self._broker.is_up or self._is_stalled:
            return
        if self._is_paused:
            if now >= self._probe_at and not self._resent:
                self._send_stored(now, 1)
        else:
            self._send_stored(now, IN_FLIGHT)

    def _send_stored(self, now: float, most: int) -> None:
        """Send stored results in order, at a bounded rate. All wait for those whose epoch hubs do not know yet."""
        self._is_blocked = False
        self._allowance = min(self._allowance + (now - self._allowed_at) * RATE, RATE * _BURST)
        self._allowed_at = now
        while self._allowance >= 1 and len(self._resent) < most:
            result = self.outbox.take_next()
            if result is None:
                return
            if not self.announcing.may_send(result.kid):
                self.outbox.keep(result, now)
                self._is_blocked = True
                return
            self._allowance -= 1
            self._resent.add(self._send(result, now))

    def stash(self) -> None:
        """Store all results on their way: the process ends."""
        self.on_down()
        self.outbox.flush(time.monotonic())

    def start_over(self) -> None:
        """Go on after the disk has lost the stored results: those in RAM are stored anew, the others dropped."""
        self.outbox.start_over(time.monotonic(), self._flying.values())
