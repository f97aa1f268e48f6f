"""Sealed messages: results from boards to hubs, readings from sensors to boards, and the announcements between them.

What is here needs nothing else of this package: the values that stores keep of a channel, and bounds of configurations.
"""

from __future__ import annotations

from typing import NamedTuple

MOST_HUBS = 64
"""Hubs of a board."""
MOST_CHANNELS = 64
"""Channels of a board, here and at a hub."""


class MarkKey(NamedTuple):
    """The key of a sensor's count: key id, the two names that its messages bind, and the reader.

    :ivar reader: channel of the model that reads: several may read one topic, and each accepts a count once.
    """

    kid: bytes
    sensor: str
    channel: str
    reader: str


class StoredEpoch(NamedTuple):
    """An epoch as it is stored: all that its announcement needs once the board no longer has the key.

    :ivar key: the channel key as it was sealed to the hubs, an encoded COSE_Encrypt.
    :ivar hubs: thumbprints of those hubs, sorted, one behind the other (32 bytes each).
    """

    kid: bytes
    number: int
    commitment: bytes
    aead: int
    signs: bool
    key: bytes
    hubs: bytes


class Believed(NamedTuple):
    """The newest announcement of a board that was believed.

    :ivar kid: of its channel key.
    :ivar signs: True if any announcement of the board promised signed results.
    """

    epoch: int
    serial: int
    kid: bytes
    signs: bool
