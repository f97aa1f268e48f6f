"""Quarantine: a message that fails repeatedly, or kills the process, is taken out, so that the next one flows."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Sequence

from edged.base.errors import StateError
from edged.base.events import Event
from edged.board.delivery.lines import InLine
from edged.board.pipeline import Lane, Message
from edged.board.state import Quarantined, QuarantineStore
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, Aead
from edged.formats.cose.encrypt import seal
from edged.formats.cose.keys import ContentKey
from edged.formats.identity import Record

_LOG = logging.getLogger(__name__)
ATTEMPTS = 3
_RETRY_AFTER = 0.1
_WARY_MESSAGES, _MOST_WARY = 100, 1000
_WARY_SECONDS = 30.0
"""After a crash, this many redelivered messages are noted before they are touched, for this many seconds at most.

Only messages in hand when the process dies are suspected: a board that loses its power three times while messages wait
for their acknowledgement must lose none of them.
"""
_MOST_RETRIES = 100
_LARGEST = 256 * 1024
"""Bytes that are kept of a quarantined message."""


def quarantine_aad(digest: bytes) -> bytes:
    """Return the external_aad of a quarantined message."""
    return cbor.encode(["edged.set-aside.1", digest])


class Quarantine:
    """Counts attempts: in RAM for messages that raise, on disk for messages that kill.

    :param hubs: hubs that quarantined messages are sealed to: a stolen board holds no readings.
    :param crashes: number of runs in a row that ended without a shutdown.
    """

    def __init__(self, store: QuarantineStore, hubs: Sequence[Record], crashes: int) -> None:
        self.hubs = hubs
        self.count = 0
        self._store = store
        self._left = min(crashes * _WARY_MESSAGES, _MOST_WARY)
        self._doubts_row_log = crashes > 1
        self._wary = crashes > 0
        self._until = time.monotonic() + _WARY_SECONDS
        self._retries: deque[tuple[float, InLine]] = deque()
        self._in_hand: list[bytes] = []
        self._served: list[bytes] = []

    # --- messages that kill

    def admits(self, message: Message, *, replayed: bool = False) -> bool:
        """Return True if a message may be served; quarantine one that has killed the process too often.

        :param replayed: it comes from the row log, which is suspected after the second crash only.
        """
        if not self._left or not message.redelivered or (replayed and not self._doubts_row_log):
            return True
        self._left -= 1
        try:
            before = self._store.begin(message.digest, self._served)
        except StateError:
            return True  # the trouble with the disk is reported elsewhere
        self._served.clear()
        self._in_hand.append(message.digest)
        if before + 1 < ATTEMPTS:
            return True
        self._put_aside(message, f"the process died {before + 1} times over it")
        return False

    @property
    def watching(self) -> bool:
        """True while messages are in hand that would be suspected if the process died now."""
        return bool(self._in_hand)

    def all_served(self) -> None:
        """Clear the messages in hand of suspicion: they can do no more harm."""
        self._served += self._in_hand
        self._in_hand.clear()

    def turn(self) -> None:
        """Store which messages were served: a later death is not their fault."""
        if not self._served:
            return
        try:
            self._store.end(self._served)
        except StateError as error:
            _LOG.warning("%s", error.message, extra=Event.STATE_TROUBLE.about())
        self._served.clear()

    def is_calm(self, now: float) -> bool:
        """End all suspicion once redelivered messages did no harm; return True when that has just happened."""
        if not self._wary or now < self._until:
            return False
        self._wary, self._left = False, 0
        try:
            self._store.clear()
        except StateError as error:
            _LOG.warning("%s", error.message, extra=Event.STATE_TROUBLE.about())
        return True

    # --- messages that raise

    @property
    def retries(self) -> int:
        """Number of messages that wait for another attempt."""
        return len(self._retries)

    def failed(self, lane: Lane, one: InLine, error: Exception) -> bool:
        """Note an unforeseen failure; the message is retried a little later. Return True if it was set aside instead.

        :param one: the attempt that failed; its hold lets go with the next one, or now.
        """
        config, message = lane.config, one.message
        _LOG.error(
            "model %s: attempt %d on a message of %s",
            config.name,
            one.attempt,
            message.topic,
            exc_info=error,
            extra=Event.READING_FAILED.about(
                model=config.name, channel=config.channel, topic=message.topic, error=type(error).__name__
            ),
        )
        if one.attempt < ATTEMPTS and len(self._retries) < _MOST_RETRIES:
            self._retries.append((time.monotonic() + _RETRY_AFTER, one._replace(attempt=one.attempt + 1)))
            return False
        self._put_aside(message, f"{config.name}: {type(error).__name__}: {error}")
        one.hold.release()
        return True

    def due(self, now: float) -> list[InLine]:
        """Return the messages to retry now."""
        due = []
        while self._retries and self._retries[0][0] <= now:
            due.append(self._retries.popleft()[1])
        return due

    def due_in(self, now: float) -> float:
        """Return the seconds until :meth:`due` returns something."""
        return self._retries[0][0] - now if self._retries else float("inf")

    def _put_aside(self, message: Message, why: str) -> None:
        self.count += 1
        _LOG.error(
            "a message of %s is set aside: %s (`edged status` lists it)",
            message.topic,
            why,
            extra=Event.SET_ASIDE.about(topic=message.topic),
        )
        key = ContentKey.generate(Aead.A256GCM)
        kept = message.payload[:_LARGEST]
        sealed = seal(
            key, os.urandom(IV_SIZE), kept, quarantine_aad(message.digest), [hub.sealing_key for hub in self.hubs]
        )
        size = len(message.payload)
        record = Quarantined(0, time.time(), message.topic, message.digest, size, why[:200], cbor.encode(sealed.cose()))
        try:
            self._store.set_aside(record)
        except StateError as error:
            _LOG.warning("%s", error.message, extra=Event.STATE_TROUBLE.about())
