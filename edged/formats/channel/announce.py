"""Announcements: a board tells its hubs, signed, under which key its results of an epoch are sealed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from edged.base.errors import FormatError, MismatchError
from edged.formats.channel import MOST_HUBS
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, Aead
from edged.formats.cose.encrypt import Encrypt, seal
from edged.formats.cose.encrypt0 import KID_SIZE
from edged.formats.cose.keys import Agreement, ContentKey, PublicKey, Signer
from edged.formats.cose.sign1 import Sign1, sign

LIFETIME = 48 * 3600
RESIGN_AFTER = 12 * 3600
MOST_EPOCHS = 32
NONCE_SIZE = 16
COMMIT_SIZE = 32
_THUMBPRINT_SIZE = 32
_NUMBER_LIMIT = 1 << 53  # what every language holds exactly
LIMITS = cbor.Limits(size=32 * 1024, depth=12, items=4096)


class Announcement(msgspec.Struct, frozen=True):
    """The announcement of one epoch.

    :ivar serial: grows with each signature that the board makes over this epoch.
    :ivar issued: Unix seconds by the board's clock; ``expires`` likewise.
    :ivar kid: key id of the channel key, the first 8 bytes of ``commit``.
    :ivar sign_results: True if each result of the epoch is signed inside its seal.
    :ivar closed: epochs that sealing has ended under: key id to the last count used.
    :ivar hubs: thumbprints of the signing keys of the granted hubs, sorted: a hub's sealing key may change.
    :ivar echo: nonces of hubs that asked whether the board is alive: a hub's thumbprint to its nonce.
    :ivar key: the channel key, sealed to every granted hub.
    """

    device: str
    epoch: int
    serial: int
    issued: int
    expires: int
    kid: bytes
    commit: bytes
    aead: Aead
    sign_results: bool
    closed: Mapping[bytes, int]
    hubs: tuple[bytes, ...]
    echo: Mapping[bytes, bytes]
    key: Encrypt

    def unwrap(self, hub: Agreement) -> ContentKey:
        """Return the channel key, all that names it agreeing: commitment, key id, algorithm.

        :raises NotARecipientError: this hub was not granted the channel.
        :raises DecryptionError: the hub's copy does not open.
        :raises MismatchError: the key inside is not the one announced.
        """
        wrapping = self.key.unwrap(hub, None)
        inner = self.key.open(wrapping, channel_aad(self.device, self.epoch, self.commit))
        key = ContentKey.parse(cbor.decode_canonical(inner))
        key.check(self.commit)
        if key.aead is not self.aead:
            raise MismatchError("the channel key is for another algorithm than the announcement says")
        return key

    def encode(self, signer: Signer) -> bytes:
        """Return the announcement signed by the board."""
        payload = {
            "device": self.device,
            "epoch": self.epoch,
            "serial": self.serial,
            "issued": self.issued,
            "expires": self.expires,
            "kid": self.kid,
            "commit": self.commit,
            "alg": int(self.aead),
            "sign_results": self.sign_results,
            "closed": dict(self.closed),
            "hubs": list(self.hubs),
            "echo": dict(self.echo),
            "key": self.key.cose(),
        }
        return sign(cbor.encode(payload), announce_aad(self.device), signer)

    @classmethod
    def parse(cls, signed: Sign1, device: str, public: PublicKey) -> Announcement:
        """Take one signed announcement from the topic of ``device``, whose signing key is ``public``.

        The signature is verified before anything of the announcement is looked at. Dates, epochs and serials are for
        the caller to judge (:mod:`edged.formats.channel.receiver`).

        :raises FormatError: it is not an announcement.
        :raises UnknownSignerError: another key signed it.
        :raises SignatureError: the signature does not hold for this device.
        :raises MismatchError: its parts contradict each other.
        """
        payload = cbor.decode_canonical(signed.verify(public, announce_aad(device)), LIMITS)
        fields = _check_fields(payload)
        if fields["device"] != device:
            raise MismatchError(f"an announcement of {fields['device']!r} came on the topic of {device!r}")
        key, hubs = Encrypt.parse(fields.pop("key"), MOST_HUBS), tuple(fields.pop("hubs"))
        announcement = cls(aead=Aead.parse(fields.pop("alg")), hubs=hubs, key=key, **fields)
        if announcement.kid != announcement.commit[:KID_SIZE]:
            raise MismatchError("an announcement's key id is not that of its commitment")
        if key.aead is not announcement.aead:
            raise MismatchError("an announcement's channel key is sealed with another algorithm than it is for")
        return announcement


def split(payload: bytes) -> list[Sign1]:
    """Cut what stands on an announce topic into 1 to 32 signed items, by their fixed shape: nothing is scanned.

    :raises FormatError: it is no sequence of those.
    """
    items: list[Sign1] = []
    at = 0
    while at < len(payload) or not items:
        if len(items) == MOST_EPOCHS:
            raise FormatError(f"more than {MOST_EPOCHS} epochs are announced")
        item, at = Sign1.cut(payload, at, LIMITS.size)
        items.append(item)
    return items


_SHAPE: dict[str, type] = {
    "device": str,
    "epoch": int,
    "serial": int,
    "issued": int,
    "expires": int,
    "kid": bytes,
    "commit": bytes,
    "alg": int,
    "sign_results": bool,
    "closed": dict,
    "hubs": list,
    "echo": dict,
    "key": object,
}


def _check_fields(payload: object) -> dict[str, Any]:
    if not isinstance(payload, dict) or set(payload) != set(_SHAPE):
        raise FormatError("an announcement has keys missing or unknown")
    for name, wanted in _SHAPE.items():
        if wanted is not object and type(payload[name]) is not wanted:
            raise FormatError(f"{name!r} of an announcement is not of type {wanted.__name__}")
    if len(payload["commit"]) != COMMIT_SIZE:
        raise FormatError(f"'commit' of an announcement is not {COMMIT_SIZE} bytes long")
    if not all(0 <= payload[name] < _NUMBER_LIMIT for name in ("epoch", "serial", "issued", "expires")):
        raise FormatError("an announcement has a number that is negative or not below 2^53")
    if payload["expires"] - payload["issued"] > LIFETIME:
        raise FormatError(f"an announcement lasts longer than {LIFETIME} s")
    if not all(_is_id(kid, KID_SIZE) and type(count) is int and count >= 0 for kid, count in payload["closed"].items()):
        raise FormatError("'closed' of an announcement is not a map from key ids to counts")
    _check_hubs(payload["hubs"], payload["echo"])
    return payload


def _check_hubs(hubs: list[Any], echo: dict[Any, Any]) -> None:
    if not 0 < len(hubs) <= MOST_HUBS or not all(_is_id(hub, _THUMBPRINT_SIZE) for hub in hubs):
        raise FormatError(f"'hubs' of an announcement are not 1 to {MOST_HUBS} thumbprints")
    if any(later <= earlier for earlier, later in pairwise(hubs)):
        raise FormatError("'hubs' of an announcement are not sorted, each once")
    if not all(hub in hubs and _is_id(nonce, NONCE_SIZE) for hub, nonce in echo.items()):
        raise FormatError("'echo' of an announcement is not a map from its hubs to nonces")


def _is_id(value: object, size: int) -> bool:
    return type(value) is bytes and len(value) == size


def seal_channel_key(device: str, epoch: int, key: ContentKey, hubs: Iterable[PublicKey]) -> Encrypt:
    """Seal a channel key to the sealing keys of hubs (1 to 64)."""
    wrapping = ContentKey.generate(key.aead)
    plaintext = cbor.encode(key.cose())
    return seal(wrapping, os.urandom(IV_SIZE), plaintext, channel_aad(device, epoch, key.commit), hubs)


def channel_aad(device: str, epoch: int, commit: bytes) -> bytes:
    """Return the external_aad under which a channel key is sealed."""
    return cbor.encode(["edged.channel.1", device, epoch, commit])


def announce_aad(device: str) -> bytes:
    """Return the external_aad of an announcement's signature."""
    return cbor.encode(["edged.announce.1", device])
