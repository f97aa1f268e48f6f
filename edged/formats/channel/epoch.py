"""A board's epochs: the channel key that seals, and what stays of an epoch once it is closed.

A channel key is made fresh, never stored, and used for at most 2^20 messages. It never outlives the process that made
it, so its nonces cannot repeat and no counter has to survive a power cut: 8 bytes of count, then 4 bytes of salt. A
snapshot of a running machine that is resumed twice counts twice, and its kernel may deal out the same random bytes
twice: the salt also depends on what is sealed. A closed epoch seals nothing more; its results are still on their way,
and hubs need its announcement to open them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from edged.base.errors import StateError
from edged.formats.cose import cbor
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import ContentKey, Signer
from edged.formats.cose.sign1 import sign

MAX_COUNT = 1 << 20
_SALT_SIZE = 4
_FRESH, _SALT_KEY = 16, 32


def result_aad(device: str, channel: str) -> bytes:
    """Return the external_aad of a sealed result."""
    return cbor.encode(["edged.result.1", device, channel])


def signed_result_aad(device: str, channel: str, kid: bytes, iv: bytes) -> bytes:
    """Return the external_aad of the device's signature over a result."""
    return cbor.encode(["edged.signed-result.1", device, channel, kid, iv])


def health_aad(device: str) -> bytes:
    """Return the external_aad of what a board says of itself."""
    return cbor.encode(["edged.health.1", device])


def signed_report_aad(device: str, kid: bytes, iv: bytes) -> bytes:
    """Return the external_aad of the device's signature over its report."""
    return cbor.encode(["edged.signed-report.1", device, kid, iv])


def inventory_aad(device: str) -> bytes:
    """Return the external_aad of a board's inventory."""
    return cbor.encode(["edged.inventory.1", device])


def signed_inventory_aad(device: str, kid: bytes, iv: bytes) -> bytes:
    """Return the external_aad of the device's signature over its inventory."""
    return cbor.encode(["edged.signed-inventory.1", device, kid, iv])


class Epoch:
    """The sealing side of one epoch.

    :param key: a fresh key, used by nobody else.
    :param signer: signs each message inside its seal, where that is configured.
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
        self._salt_key = os.urandom(_SALT_KEY)
        self._boxes: dict[str, Box] = {}

    @property
    def signs(self) -> bool:
        """True if the device signs each message inside its seal."""
        return self._signer is not None

    @property
    def spent(self) -> bool:
        """True if no further message may be sealed."""
        return self.count >= MAX_COUNT

    def seal(self, channel: str, result: bytes) -> bytes:
        """Seal one encoded result for ``channel`` under the next count.

        :raises StateError: the epoch is spent; begin a new one.
        """
        iv = self._next_iv(result)
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
        return self._seal_of_board(report, health_aad(self.device), signed_report_aad)

    def seal_inventory(self, inventory: bytes) -> bytes:
        """Seal what the board serves under the next count.

        :raises StateError: the epoch is spent; begin a new one.
        """
        return self._seal_of_board(inventory, inventory_aad(self.device), signed_inventory_aad)

    def _seal_of_board(self, said: bytes, aad: bytes, signed_aad: Callable[[str, bytes, bytes], bytes]) -> bytes:
        iv = self._next_iv(said)
        if self._signer is not None:
            said = sign(said, signed_aad(self.device, self.key.kid, iv), self._signer)
        return Box(self.key, aad).seal(iv, said)

    def _next_iv(self, message: bytes) -> bytes:
        """Return the IV of a message: the next count, and a salt from fresh random bytes and the message itself."""
        if self.spent:
            raise StateError(f"epoch {self.number} has sealed its {MAX_COUNT} messages")
        self.count += 1
        salt = hashlib.blake2s(os.urandom(_FRESH) + message, key=self._salt_key, digest_size=_SALT_SIZE).digest()
        return self.count.to_bytes(8, "big") + salt


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
