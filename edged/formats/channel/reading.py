"""Sealed readings: a sensor's key, its counts, and the rule that each count is accepted once."""

from __future__ import annotations

import os
import time
from collections import defaultdict

import msgspec

from edged.base.errors import ReplayError
from edged.formats.channel import MarkKey
from edged.formats.cose import cbor
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import ContentKey

CLOCK_COUNTS = 1 << 48
"""A count from here on is a clock's: microseconds since 1970. Below, it is a counter that the sensor keeps."""

_DAY = 86_400 * 1_000_000
_SALT_SIZE = 4


def reading_aad(sensor: str, channel: str) -> bytes:
    """Return the external_aad of a sealed reading: the last two levels of the topic that it arrives on."""
    return cbor.encode(["edged.reading.1", sensor, channel])


def names_of(topic: str) -> tuple[str, str]:
    """Return the last two levels of ``topic``, which sealed messages bind; a single level counts as both."""
    levels = topic.rsplit("/", 2)
    return levels[-2] if len(levels) > 1 else levels[0], levels[-1]


class ReadingSealer:
    """The sensor's side: seals readings for one topic, counting with its clock, never at or below the last count."""

    def __init__(self, key: ContentKey, topic: str) -> None:
        self._box = Box(key, reading_aad(*names_of(topic)))
        self._last = 0

    def seal(self, reading: bytes) -> bytes:
        """Seal one reading."""
        self._last = max(time.time_ns() // 1000, self._last + 1)
        return self._box.seal(self._last.to_bytes(8, "big") + os.urandom(_SALT_SIZE), reading)


class OpenedReading(msgspec.Struct, frozen=True):
    """A reading that opened: what it is counted by, its count, and the reading itself."""

    key: MarkKey
    count: int
    payload: bytes


class ReadingOpener:
    """The board's side for one sensor key and topic: opens readings. :class:`ReplayGuard` says whether they are new."""

    def __init__(self, key: ContentKey, topic: str, reader: str) -> None:
        sensor, channel = names_of(topic)
        self._box = Box(key, reading_aad(sensor, channel))
        self.mark = MarkKey(key.kid, sensor, channel, reader)

    def open(self, message: bytes, limit: int) -> OpenedReading:
        """Open a message of at most ``limit`` bytes.

        :raises FormatError: it is not a sealed reading.
        :raises UnknownKeyError: another key sealed it.
        :raises DecryptionError: it was altered, or sealed for another topic.
        """
        iv, payload = self._box.open(message, limit)
        return OpenedReading(self.mark, int.from_bytes(iv[:8], "big"), payload)


class ReplayGuard:
    """Accepts each count of a sensor once: only above the last one accepted.

    :param marks: the last accepted counts that outlived the previous run.
    """

    def __init__(self, marks: dict[MarkKey, int]) -> None:
        self._marks = dict(marks)
        self._open: defaultdict[MarkKey, dict[int, None]] = defaultdict(dict)
        self._settled: dict[MarkKey, int] = {}

    def check(self, key: MarkKey, count: int, *, clock_synchronised: bool) -> None:
        """Check a count, and accept nothing yet.

        :raises ReplayError: it is not above the last, or is a clock's that lies more than a day ahead.
        """
        if count <= self._marks.get(key, -1):
            raise ReplayError(f"count {count} of sensor key {key.kid.hex()} was accepted before")
        if clock_synchronised and count >= CLOCK_COUNTS and count > time.time_ns() // 1000 + _DAY:
            raise ReplayError(
                f"count {count} of sensor key {key.kid.hex()} lies over a day ahead of this board's clock"
            )

    def accept(self, key: MarkKey, count: int) -> None:
        """Accept a count that was checked, for as long as this process lives."""
        self._marks[key] = max(count, self._marks.get(key, -1))
        self._open[key][count] = None

    def settle(self, key: MarkKey, count: int) -> None:
        """Accept a count for good, once all below it are: what it was read for is done.

        A count below it may still wait for its result. To be handed out again after a crash, it must not be refused.
        """
        self._open[key].pop(count, None)
        self._settled[key] = self._settled_to(key)

    def take_settled(self) -> dict[MarkKey, int]:
        """Return what was settled since the last call, to be stored."""
        settled, self._settled = self._settled, {}
        return settled

    def settled(self) -> dict[MarkKey, int]:
        """Return what every key is settled up to."""
        return {key: self._settled_to(key) for key in self._marks}

    def _settled_to(self, key: MarkKey) -> int:
        waiting = self._open[key]
        return next(iter(waiting)) - 1 if waiting else self._marks[key]
