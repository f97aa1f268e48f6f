"""Keys: P-256 pairs for signing and agreement, and the symmetric content key with its commitment."""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import cached_property
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature

from edged.base.errors import FormatError, KeystoreError, MismatchError, SignatureError
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import KEY_SIZE, Aead

_CURVE = ec.SECP256R1()
_P = (1 << 256) - (1 << 224) + (1 << 192) + (1 << 96) - 1
"""The prime of P-256 (SP 800-186, section 3.2.1.3): coordinates lie below it."""
_PREHASHED = ec.ECDSA(Prehashed(hashes.SHA256()))
_COORDINATE = 32
_SIGNATURE = 2 * _COORDINATE
_KTY_EC2, _KTY_SYMMETRIC, _CRV_P256 = 2, 4, 1


def _is(value: object, number: int) -> bool:
    """Return whether ``value`` is this integer: ``True == 1`` and ``4.0 == 4``, but neither is one."""
    return type(value) is int and value == number


class PublicKey(msgspec.Struct, frozen=True, dict=True):
    """A point on P-256, checked to lie on the curve when it was made.

    :ivar x: 32 bytes, big-endian, below p: each point has one thumbprint.
    :ivar y: as ``x``.
    :raises FormatError: a coordinate has another size or is p or more, or the point is not on the curve.
    """

    x: bytes
    y: bytes

    def __post_init__(self) -> None:
        if len(self.x) != _COORDINATE or len(self.y) != _COORDINATE:
            raise FormatError("a P-256 coordinate is not 32 bytes long")
        x, y = int.from_bytes(self.x, "big"), int.from_bytes(self.y, "big")
        if x >= _P or y >= _P:
            raise FormatError("a P-256 coordinate is not below the curve's prime")
        try:
            self.__dict__["_point"] = ec.EllipticCurvePublicNumbers(x, y, _CURVE).public_key()
        except ValueError as error:
            raise FormatError("the point does not lie on P-256") from error

    @classmethod
    def of(cls, key: ec.EllipticCurvePublicKey) -> PublicKey:
        """Take over a key of the cryptography package."""
        if not isinstance(key.curve, ec.SECP256R1):
            raise FormatError(f"the key lies on {key.curve.name}, not on P-256")
        numbers = key.public_numbers()
        return cls(numbers.x.to_bytes(_COORDINATE, "big"), numbers.y.to_bytes(_COORDINATE, "big"))

    @classmethod
    def parse(cls, value: object) -> PublicKey:
        """Take a COSE_Key map, which must be exactly ``{1: 2, -1: 1, -2: x, -3: y}`` with ``y`` as a byte string."""
        return cls(*cls.parse_coordinates(value))

    @staticmethod
    def parse_coordinates(value: object) -> tuple[bytes, bytes]:
        """Return x and y of a COSE_Key map, 32 bytes each, without the cost of checking that they are a point.

        :raises FormatError: it is not exactly a P-256 key with ``y`` as a byte string.
        """
        if not isinstance(value, dict) or set(value) != {1, -1, -2, -3}:
            raise FormatError("not a COSE_Key of exactly kty, crv, x and y")
        if not _is(value[1], _KTY_EC2) or not _is(value[-1], _CRV_P256):
            raise FormatError("a COSE_Key is not of type EC2 on P-256")
        x, y = value[-2], value[-3]
        if not isinstance(x, bytes) or not isinstance(y, bytes):
            raise FormatError("a COSE_Key needs both coordinates as byte strings")
        if len(x) != _COORDINATE or len(y) != _COORDINATE:
            raise FormatError("a P-256 coordinate is not 32 bytes long")
        return x, y

    def cose(self) -> dict[int, object]:
        """Return the COSE_Key map."""
        return {1: _KTY_EC2, -1: _CRV_P256, -2: self.x, -3: self.y}

    @cached_property
    def thumbprint(self) -> bytes:
        """The key id: SHA-256 over the deterministic COSE_Key (RFC 9679), 32 bytes."""
        return hashlib.sha256(cbor.encode(self.cose())).digest()

    @property
    def point(self) -> ec.EllipticCurvePublicKey:
        """The key as the cryptography package has it."""
        point: ec.EllipticCurvePublicKey = self.__dict__["_point"]
        return point

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check an ES256 signature (``r || s``, 64 bytes) over ``message``.

        :raises SignatureError: it does not hold.
        """
        if len(signature) != _SIGNATURE:
            raise SignatureError("the signature is not 64 bytes long")
        r, s = (int.from_bytes(part, "big") for part in (signature[:_COORDINATE], signature[_COORDINATE:]))
        try:
            self.point.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise SignatureError("the signature does not hold") from None


class Signer(Protocol):
    """A private key that signs: the first of the two operations of a key store."""

    @property
    def public(self) -> PublicKey:
        """Its public half."""

    def sign(self, digest: bytes) -> bytes:
        """Return the ES256 signature ``r || s`` (64 bytes) over a SHA-256 ``digest`` (32 bytes)."""


class Agreement(Protocol):
    """A private key that agrees on a secret: the second of the two operations of a key store."""

    @property
    def public(self) -> PublicKey:
        """Its public half."""

    def ecdh(self, peer: PublicKey) -> bytes:
        """Return the shared x coordinate, always 32 bytes."""


class PrivateKey:
    """A P-256 private key in this process's memory: a :class:`Signer` and an :class:`Agreement`."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self.key = key
        self.public = PublicKey.of(key.public_key())

    @classmethod
    def generate(cls) -> PrivateKey:
        """Make a new key."""
        return cls(ec.generate_private_key(_CURVE))

    @classmethod
    def from_scalar(cls, scalar: bytes) -> PrivateKey:
        """Take the private scalar (32 bytes, big-endian), the ``d`` of a COSE_Key."""
        if len(scalar) != _COORDINATE:
            raise KeystoreError(f"a P-256 scalar is not {_COORDINATE} bytes long")
        try:
            return cls(ec.derive_private_key(int.from_bytes(scalar, "big"), _CURVE))
        except ValueError as error:
            raise KeystoreError(f"the private key is not a P-256 scalar: {error}") from error

    def scalar(self) -> bytes:
        """Return the private scalar (32 bytes, big-endian)."""
        return self.key.private_numbers().private_value.to_bytes(_COORDINATE, "big")

    def sign(self, digest: bytes) -> bytes:
        """As :meth:`Signer.sign`."""
        r, s = decode_dss_signature(self.key.sign(digest, _PREHASHED))
        return r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")

    def ecdh(self, peer: PublicKey) -> bytes:
        """As :meth:`Agreement.ecdh`."""
        return self.key.exchange(ec.ECDH(), peer.point)


class Keys(msgspec.Struct, frozen=True):
    """The keys of one person or hub.

    :ivar signer: signs packages (publisher) or the owner's own record (operator, hub).
    :ivar agreement: opens what is sealed to the owner; None for a publisher.
    """

    signer: Signer
    agreement: Agreement | None

    @classmethod
    def generate(cls, *, agreement: bool) -> Keys:
        """Make new keys in this process's memory; a publisher's have no ``agreement``."""
        return cls(PrivateKey.generate(), PrivateKey.generate() if agreement else None)


class ContentKey(msgspec.Struct, frozen=True, dict=True):
    """A symmetric key with the one algorithm that it is for.

    :ivar secret: 32 bytes; left out of ``repr``.
    """

    aead: Aead
    secret: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_SIZE:
            raise FormatError(f"a content key is {len(self.secret)} bytes long, not {KEY_SIZE}")

    def __repr__(self) -> str:
        return f"ContentKey({self.aead.name}, kid={self.kid.hex()})"

    @classmethod
    def generate(cls, aead: Aead) -> ContentKey:
        """Make a new key."""
        return cls(aead, os.urandom(KEY_SIZE))

    @cached_property
    def commit(self) -> bytes:
        """The commitment that gets signed for this key: SHA-256("edged.key.1" || secret), 32 bytes.

        Neither AEAD commits to its key by itself: one ciphertext can open under two keys. This binds it.
        """
        return hashlib.sha256(b"edged.key.1" + self.secret).digest()

    @cached_property
    def kid(self) -> bytes:
        """The key id: the first 8 bytes of :attr:`commit`."""
        return self.commit[:8]

    def check(self, commit: bytes) -> None:
        """Check this key against the commitment that was signed.

        :raises MismatchError: it is another key.
        """
        if not hmac.compare_digest(self.commit, commit):
            raise MismatchError("the unwrapped key is not the one that was committed to")

    def encode(self) -> bytes:
        """Return the COSE_Key: the content of a sensor's key file."""
        return cbor.encode(self.cose())

    @classmethod
    def decode(cls, data: bytes) -> ContentKey:
        """Take what :meth:`encode` returned.

        :raises FormatError: it is anything else.
        :raises MismatchError: as :meth:`parse`.
        """
        return cls.parse(cbor.decode_canonical(data))

    def cose(self) -> dict[int, object]:
        """Return the COSE_Key map ``{1: 4, 2: kid, 3: alg, -1: k}``."""
        return {1: _KTY_SYMMETRIC, 2: self.kid, 3: int(self.aead), -1: self.secret}

    @classmethod
    def parse(cls, value: object) -> ContentKey:
        """Take a COSE_Key map, which must be exactly ``{1: 4, 2: kid, 3: alg, -1: k}``, its kid being true.

        :raises FormatError: another shape or algorithm.
        :raises MismatchError: the kid does not belong to the key.
        """
        if not isinstance(value, dict) or set(value) != {1, 2, 3, -1} or not _is(value[1], _KTY_SYMMETRIC):
            raise FormatError("not a COSE_Key of exactly kty Symmetric, kid, alg and k")
        if not isinstance(value[-1], bytes):
            raise FormatError("a symmetric COSE_Key needs k as a byte string")
        key = cls(Aead.parse(value[3]), value[-1])
        if key.kid != value[2]:
            raise MismatchError("the key id of a COSE_Key is not that of its key")
        return key
