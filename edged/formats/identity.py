"""Enrolment records: who somebody is, as one signed file.

A record is a COSE_Sign1 by the key that it carries, so that whoever made it holds that key. It is public; comparing
fingerprints at both ends is what makes it believed. A record that replaces an older one is followed by a second
COSE_Sign1 over the same bytes, made with the older record's key (docs/formats.md).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from edged.base.errors import FormatError, MismatchError, UnknownSignerError
from edged.base.names import NAME
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import Keys, PublicKey, Signer
from edged.formats.cose.sign1 import Sign1, sign

_AAD = cbor.encode(["edged.enrol.1"])
RECORD_LIMIT = 4096
_DATERECORD_LIMIT = 1 << 53  # what every language holds exactly


class Role(StrEnum):
    """The purpose of a record's keys."""

    PUBLISHER = "publisher"
    OPERATOR = "operator"
    DEVICE = "device"
    HUB = "hub"
    AGGREGATOR = "aggregator"


class Record(msgspec.Struct, frozen=True):
    """An enrolment record whose signature holds.

    :ivar ecdh: the key to seal to; None for a publisher, to whom nothing is sealed.
    :ivar aead: the algorithm that suits a board's CPU; None for people and hubs.
    :ivar created: Unix seconds, by the maker's clock.
    :ivar endorsement: a second signature over the same bytes, by the key of the record that this one replaces.
    """

    role: Role
    id: str
    sign: PublicKey
    ecdh: PublicKey | None
    aead: Aead | None
    created: int
    endorsement: Sign1 | None = None

    @classmethod
    def of(cls, role: Role, name: str, keys: Keys, created: int) -> Record:
        """Return the record of a person or a hub, to be signed by :meth:`encode` with ``keys.signer``.

        :param created: Unix seconds.
        """
        ecdh = None if keys.agreement is None else keys.agreement.public
        return cls(role, name, keys.signer.public, ecdh, None, created)

    @property
    def fingerprint(self) -> str:
        """The digits that people compare: the first 16 bytes of the signing key's thumbprint, in groups of four digits.

        The signing key signs the record and with it the other key, so that comparing one is comparing both.
        """
        digits = self.sign.thumbprint.hex()[:32]
        return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))

    @property
    def sealing_key(self) -> PublicKey:
        """The key to seal to.

        :raises MismatchError: this role receives nothing sealed.
        """
        if self.ecdh is None:
            raise MismatchError(f"the record of {self.role} {self.id} has no key to seal to")
        return self.ecdh

    def check_role(self, *roles: Role) -> Record:
        """Return this record if its owner has one of ``roles``.

        :raises MismatchError: the owner has another role.
        """
        if self.role not in roles:
            raise MismatchError(f"the record of {self.role} {self.id} is not that of a {' or '.join(roles)}")
        return self

    def encode(self, signer: Signer, predecessor: Signer | None = None) -> bytes:
        """Return the signed record; ``signer`` holds the private half of :attr:`sign`."""
        payload: dict[str, object] = {
            "role": self.role.value,
            "id": self.id,
            "sign": self.sign.cose(),
            "created": self.created,
        }
        if self.ecdh is not None:
            payload["ecdh"] = self.ecdh.cose()
        if self.aead is not None:
            payload["aead"] = int(self.aead)
        encoded = cbor.encode(payload)
        return b"".join(sign(encoded, _AAD, key) for key in (signer, predecessor) if key is not None)

    @classmethod
    def parse(cls, data: bytes) -> Record:
        """Take a record's bytes.

        :raises FormatError: it is not a record.
        :raises SignatureError: a signature does not hold.
        """
        items = cbor.split_sequence(data, cbor.Limits(RECORD_LIMIT, 8, 64), most=2)
        if not items:
            raise FormatError("the enrolment record is empty")
        own = Sign1.parse(items[0])
        record = _from_payload(cbor.decode_canonical(own.unverified))
        own.verify(record.sign, _AAD)
        if len(items) == 1:
            return record
        endorsement = Sign1.parse(items[1])
        if endorsement.unverified != own.unverified:
            raise FormatError("the second signature of the enrolment record is over other bytes")
        return msgspec.structs.replace(record, endorsement=endorsement)

    def check_replaces(self, older: Record) -> None:
        """Check that this record may take the place of ``older``: the same keys, or endorsed by the older key.

        :raises UnknownSignerError: the older key did not sign this record.
        :raises SignatureError: its signature does not hold.
        """
        if self.sign == older.sign and self.ecdh == older.ecdh:
            return
        if self.endorsement is None:
            raise UnknownSignerError(
                f"{self.role} {self.id} has new keys, and its old key did not sign the change",
                hint=f"compare the fingerprint {self.fingerprint} at both ends, then replace the old record",
            )
        self.endorsement.verify(older.sign, _AAD)


def _from_payload(payload: object) -> Record:
    optional = {"ecdh", "aead"}
    required = {"role", "id", "sign", "created"}
    if not isinstance(payload, dict) or not required <= set(payload) <= required | optional:
        raise FormatError("the enrolment record has keys missing or unknown")
    role, name, created = payload["role"], payload["id"], payload["created"]
    if not isinstance(role, str) or role not in set(Role) or not isinstance(name, str) or not NAME.fullmatch(name):
        raise FormatError("the enrolment record has a role or id that does not fit")
    if type(created) is not int or not 0 <= created < _DATERECORD_LIMIT:
        raise FormatError("the enrolment record has a date that does not fit")
    if ("ecdh" in payload) is (role == Role.PUBLISHER) or ("aead" in payload) is not (role == Role.DEVICE):
        raise FormatError(f"the enrolment record of a {role} has a key or an algorithm too many or too few")
    if payload.get("ecdh") == payload["sign"]:
        raise FormatError("the enrolment record uses one key for two purposes")
    return Record(
        role=Role(role),
        id=name,
        sign=PublicKey.parse(payload["sign"]),
        ecdh=PublicKey.parse(payload["ecdh"]) if "ecdh" in payload else None,
        aead=Aead.parse(payload["aead"]) if "aead" in payload else None,
        created=created,
    )
