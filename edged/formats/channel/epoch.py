"""A board's epochs: the channel key that seals, and what stays of an epoch once it is closed.

A channel key is made fresh, never stored, and used for at most 2^20 messages. It never outlives the process that made
it, so its nonces cannot repeat and no counter has to survive a power cut: 8 bytes of count, then 4 random bytes that
are the same throughout the epoch. A closed epoch seals nothing more; its results are still on their way, and hubs need
its announcement to open them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import NamedTuple, Self

from edged.base.errors import StateError
from edged.formats.channel.announce import LIMITS, MOST_HUBS
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import Encrypt
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import ContentKey, Signer
from edged.formats.cose.sign1 import sign

MAX_COUNT = 1 << 20
_SALT_SIZE = 4


def result_aad(device: str, channel: str) -> bytes:
    """Return the external_aad of a sealed result."""
    return cbor.encode(["edged.result.1", device, channel])


def signed_result_aad(device: str, channel: str, kid: bytes, iv: bytes) -> bytes:
    """Return the external_aad of the device's signature over a result."""
    return cbor.encode(["edged.signed-result.1", device, channel, kid, iv])


def health_aad(device: str) -> bytes:
    """Return the external_aad of what a board says of itself."""
    return cbor.encode(["edged.health.1", device])


def inventory_aad(device: str) -> bytes:
    """Return the external_aad of a board's inventory."""
    return cbor.encode(["edged.inventory.1", device])


def signed_inventory_aad(device: str, kid: bytes, iv: bytes) -> bytes:
    """Return the external_aad of the device's signature over its inventory."""
    return cbor.encode(["edged.signed-inventory.1", device, kid, iv])


class Epoch:
    """The sealing side of one epoch.

    :param key: a fresh key, used by nobody else.
    :param signer: signs each result inside its seal, where that is configured.
    :ivar number: the epoch's number, durable before it was announced.
    :ivar count: count of the last message that was sealed; the first is 1.
    :ivar born: time of its begin, monotonic seconds.
    """

    def __init__(self, device: str, number: int, key: ContentKey, signer: Signer | None) -> None:
        self.device = device
        self.number = number
        self.key = key
        self.count = 0
        self.born = time.monotonic()
        self._signer = signer
        self._salt = os.urandom(_SALT_SIZE)
        self._boxes: dict[str, Box] = {}
        self._health = Box(key, health_aad(device))

    @property
    def signs(self) -> bool:
        """True if the device signs each result inside its seal."""
        return self._signer is not None

    @property
    def spent(self) -> bool:
        """True if no further message may be sealed."""
        return self.count >= MAX_COUNT

    def seal(self, channel: str, result: bytes) -> bytes:
        """Seal one encoded result for ``channel`` under the next count.

        :raises StateError: the epoch is spent; begin a new one.
        """
        iv = self._next_iv()
        box = self._boxes.get(channel)
        if box is None:
            box = self._boxes[channel] = Box(self.key, result_aad(self.device, channel))
        if self._signer is not None:
            result = sign(result, signed_result_aad(self.device, channel, self.key.kid, iv), self._signer)
        return box.seal(iv, result)

    def seal_health(self, report: bytes) -> bytes:
        """Seal what the board says of itself under the next count.

        :raises StateError: the epoch is spent; begin a new one.
        """
        return self._health.seal(self._next_iv(), report)

    def seal_inventory(self, inventory: bytes) -> bytes:
        """Seal what the board serves under the next count.

        :raises StateError: the epoch is spent; begin a new one.
        """
        iv = self._next_iv()
        if self._signer is not None:
            inventory = sign(inventory, signed_inventory_aad(self.device, self.key.kid, iv), self._signer)
        return Box(self.key, inventory_aad(self.device)).seal(iv, inventory)

    def _next_iv(self) -> bytes:
        if self.spent:
            raise StateError(f"epoch {self.number} has sealed its {MAX_COUNT} messages")
        self.count += 1
        return self.count.to_bytes(8, "big") + self._salt


class StoredEpoch(NamedTuple):
    """An epoch as it is stored: all that its announcement needs once the board no longer has the key.

    :ivar key: the channel key as it was sealed to the hubs, an encoded COSE_Encrypt.
    """

    kid: bytes
    number: int
    commitment: bytes
    aead: int
    signs: bool
    key: bytes


@dataclass
class ClosedEpoch:
    """An epoch that seals nothing more: all that its announcement needs, without the key.

    :ivar sealed_key: the channel key, sealed to the hubs.
    :ivar last: count of the last result that was sealed under it.
    :ivar pending: results sealed under it that no broker has acknowledged yet.
    """

    kid: bytes
    number: int
    commitment: bytes
    aead: Aead
    signs: bool
    sealed_key: Encrypt
    last: int
    pending: int
    serial: int = 0

    @classmethod
    def restored(cls, epoch: StoredEpoch, last: int, pending: int) -> Self:
        """Return an epoch of an earlier run.

        :raises EdgedError: what was stored is not one.
        """
        sealed_key = Encrypt.parse(cbor.decode_canonical(epoch.key, LIMITS), MOST_HUBS)
        aead = Aead.parse(epoch.aead)
        return cls(epoch.kid, epoch.number, epoch.commitment, aead, epoch.signs, sealed_key, last, pending)

    def stored(self) -> StoredEpoch:
        """Return the form to store."""
        key = cbor.encode(self.sealed_key.cose())
        return StoredEpoch(self.kid, self.number, self.commitment, int(self.aead), self.signs, key)
