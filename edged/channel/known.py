"""What a hub knows of each board: its record, its epochs, the counts that it accepted, and what was answered."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from edged.channel.epoch import MAX_COUNT
from edged.channel.result import Input, Result
from edged.cose.encrypt0 import Box
from edged.cose.keys import ContentKey
from edged.errors import FormatError, RepeatedError, ReplayError
from edged.identity import Record

_ANSWERED = 4096
"""Results of each board whose readings are remembered: more than a broker hands out again."""


@dataclass
class KnownEpoch:
    """What the hub knows of one epoch of one board; ``last`` is the highest count it may still open."""

    number: int
    serial: int
    key: ContentKey
    signs: bool
    last: int = MAX_COUNT
    boxes: dict[str, Box] = field(default_factory=dict)
    seen: bytearray = field(default_factory=bytearray)

    def new_count(self, iv: bytes) -> int:
        """Return the count of a message, which was not accepted before."""
        count = int.from_bytes(iv[:8], "big")
        if not 0 < count <= MAX_COUNT:
            raise FormatError(f"count {count} of a message is out of range")
        byte, bit = divmod(count, 8)
        if byte < len(self.seen) and self.seen[byte] >> bit & 1:
            raise ReplayError(f"count {count} of epoch {self.number} was accepted before")
        return count

    def mark(self, count: int) -> None:
        """Accept a count, once."""
        byte, bit = divmod(count, 8)
        if byte >= len(self.seen):
            self.seen.extend(bytes(byte + 1 - len(self.seen)))
        self.seen[byte] |= 1 << bit


@dataclass
class KnownDevice:
    """What the hub knows of one board.

    :ivar answered: what was answered lately, by channel, with the key id of the result.
    :ivar signs: whether it ever announced signed results.
    :ivar lapses: until when its announcement holds, Unix seconds.
    :ivar nonce: what it was asked last, and when (``asked``).
    """

    record: Record
    current: KnownEpoch | None = None
    epochs: dict[bytes, KnownEpoch] = field(default_factory=dict)
    answered: OrderedDict[tuple[str, Input], bytes] = field(default_factory=OrderedDict)
    signs: bool = False
    lapses: float = -math.inf
    nonce: bytes = b""
    asked: float = -math.inf

    def note_answered(self, channel: str, result: Result, kid: bytes) -> None:
        """Note what a result answers.

        :raises RepeatedError: it is late, and a result under another key answered the same.
        """
        what = (channel, result.input)
        before = self.answered.pop(what, kid)
        self.answered[what] = kid
        if len(self.answered) > _ANSWERED:
            self.answered.popitem(last=False)
        if result.late and before != kid:
            raise RepeatedError(f"the readings of a late result of {self.record.id} were answered before")
