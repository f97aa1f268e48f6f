"""The local broker: results as JSON, queued durably, and published in order until that broker has each of them."""

from __future__ import annotations

import logging
import math

from edged.base.errors import StateError
from edged.base.events import Event
from edged.broker import Broker, Outcome
from edged.hub.counters import HubCounters
from edged.hub.sinks import AcceptedResult, ResultSink
from edged.hub.state import HubState
from edged.hub.topics import Topics

_LOG = logging.getLogger(__name__)
_IN_FLIGHT = 500
_REMOVE_SECONDS = 0.5
_MOST_REMOVED = 500
_RETRY_SECONDS = 1.0


class Republisher(ResultSink):
    """Publishes results at the local broker.

    :param prefix: first levels of the topics.
    :param most: messages that may be queued; the oldest beyond are dropped and counted.
    :ivar open: True once publishing is allowed at all.
    """

    def __init__(self, local: Broker, state: HubState, counters: HubCounters, prefix: str, most: int) -> None:
        self.open = False
        self._local = local
        self._state = state
        self._counters = counters
        self._prefix = prefix
        self._most = most
        self._last = 0
        self._more = True
        self._sent: dict[int, int] = {}
        self._done: list[int] = []
        self._done_at = 0.0
        self._retry_at = 0.0

    def store(self, result: AcceptedResult) -> None:
        """See :class:`ResultSink`. A newest result is published retained."""
        topics = Topics.of(self._prefix, result.opened.device)
        topic = topics.result(result.place) if result.newest else topics.late(result.place)
        if result.newest:
            self._state.note_published(topic)
        self._state.queue(topic, result.payload, retain=result.newest)

    def deliver(self, _result: AcceptedResult) -> None:
        """See :class:`ResultSink`: the queue holds it already."""
        self._more = True

    def read_queue(self) -> None:
        """Look into the queue in the next turn: after a connection, messages of an earlier run may wait there."""
        self._more = True

    def turn(self, now: float) -> None:
        """See :class:`ResultSink`: publish queued messages, and remove delivered ones from the queue."""
        if now < self._retry_at:
            return
        try:
            if self._done and (len(self._done) >= _MOST_REMOVED or now >= self._done_at):
                with self._state.batch():
                    self._state.unqueue(self._done)
                self._done.clear()
            if self.open and self._more and self._local.is_up and len(self._sent) < _IN_FLIGHT:
                self._send(_IN_FLIGHT - len(self._sent))
        except StateError as error:
            _LOG.error("%s", error.message, extra=Event.STATE_TROUBLE.about())
            self._retry_at = now + _RETRY_SECONDS

    def _send(self, room: int) -> None:
        queued = self._state.queued(self._last, room)
        self._more = len(queued) == room
        for one in queued:
            self._last = one.number
            token = self._local.publish(one.topic, one.payload, qos=1, retain=one.retain)
            self._sent[token] = one.number

    def due_in(self, now: float) -> float:
        """See :class:`ResultSink`."""
        if self.open and self._more and self._local.is_up and len(self._sent) < _IN_FLIGHT:
            return 0.0
        return self._done_at - now if self._done else math.inf

    def on_delivered(self, token: int, outcome: Outcome, now: float) -> None:
        """Count a delivered or refused message. One without subscribers counts as delivered: it is retained."""
        number = self._sent.pop(token, None)
        if number is None:
            return
        if outcome is Outcome.REFUSED:
            self._counters.dropped += 1
        else:
            self._counters.published += 1
        if not self._done:
            self._done_at = now + _REMOVE_SECONDS
        self._done.append(number)

    def tidy(self) -> None:
        """Drop the oldest messages beyond the limit."""
        if self._state.count_queued() - len(self._done) > self._most:
            with self._state.batch():
                dropped = self._state.drop_oldest(self._most)
            self._counters.dropped += dropped
            if dropped:
                _LOG.warning(
                    "%d messages were dropped: the local broker is away for too long (local.queue)",
                    dropped,
                    extra=Event.RESULT_DROPPED.about(),
                )

    def close(self) -> None:
        """See :class:`ResultSink`: what was delivered leaves the queue, whenever it would have been due."""
        self.turn(math.inf)
