"""What a hub knows of each board while it runs: its record, the epochs that it announces, and until when that holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edged.base.errors import FormatError
from edged.formats.channel.epoch import MAX_COUNT
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import ContentKey
from edged.formats.identity import Record


@dataclass
class KnownEpoch:
    """What the hub knows of one epoch of one board.

    :ivar last: the highest count it may still open.
    :ivar inventory: count of the newest inventory that came under it.
    """

    number: int
    serial: int
    key: ContentKey
    signs: bool
    last: int = MAX_COUNT
    inventory: int = 0
    boxes: dict[str, Box] = field(default_factory=dict)


def count_of(iv: bytes) -> int:
    """Return the count of a message.

    :raises FormatError: it is out of range.
    """
    count = int.from_bytes(iv[:8], "big")
    if not 0 < count <= MAX_COUNT:
        raise FormatError(f"count {count} of a message is out of range")
    return count


@dataclass
class KnownDevice:
    """What the hub knows of one board.

    :ivar payload: the announcement that was believed last, as it came.
    :ivar lapses: until when it holds, Unix seconds.
    :ivar nonce: what it was asked last, and when (``asked``).
    """

    record: Record
    current: KnownEpoch | None = None
    epochs: dict[bytes, KnownEpoch] = field(default_factory=dict)
    payload: bytes = b""
    lapses: float = -math.inf
    nonce: bytes = b""
    asked: float = -math.inf
