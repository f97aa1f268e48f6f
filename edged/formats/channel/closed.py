"""An epoch that seals nothing more, whose results are still on their way: hubs need its announcement to open them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

from edged.formats.channel.announce import LIMITS, MOST_HUBS
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import Encrypt


class StoredEpoch(NamedTuple):
    """What the announcement of an epoch needs that this board has no key of any more.

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
    """What the announcement of an epoch needs, its key left out.

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
        """Return what is to be stored of it."""
        key = cbor.encode(self.sealed_key.cose())
        return StoredEpoch(self.kid, self.number, self.commitment, int(self.aead), self.signs, key)
