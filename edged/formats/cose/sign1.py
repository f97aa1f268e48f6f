"""COSE_Sign1 with ES256 (RFC 9052, section 4.2): protected ``{1: -7}``, unprotected ``{4: kid}``, payload attached."""

from __future__ import annotations

import hashlib

import cbor2
import msgspec

from edged.base.errors import FormatError, UnknownSignerError
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import ES256, parse_protected, protected
from edged.formats.cose.keys import PublicKey, Signer

_PROTECTED = protected(ES256)
_HEAD = b"\xd2\x84" + cbor.bytes_head(len(_PROTECTED)) + _PROTECTED + b"\xa1\x04\x58\x20"
_KID, _SIGNATURE = 32, 64
_SIGNATURE_HEAD = cbor.bytes_head(_SIGNATURE)


class Sign1(msgspec.Struct, frozen=True):
    """A COSE_Sign1 that was parsed and not verified: :meth:`verify` is the way to its payload.

    :ivar kid: key id that the header names; a claim until verified.
    :ivar unverified: the payload, for people who want to see what an object says of itself.
    """

    kid: bytes
    unverified: bytes
    signature: bytes

    @classmethod
    def parse(cls, data: bytes, limits: cbor.Limits = cbor.TRUST) -> Sign1:
        """Take the encoded, tagged object.

        :raises FormatError: it is anything else.
        """
        value = cbor.decode_canonical(data, limits)
        if not isinstance(value, cbor2.CBORTag) or value.tag != cbor.TAG_SIGN1:
            raise FormatError("not a tagged COSE_Sign1")
        if not isinstance(value.value, list) or len(value.value) != 4:
            raise FormatError("a COSE_Sign1 is an array of four")
        header, unprotected, payload, signature = value.value
        if (algorithm := parse_protected(header)) != ES256:
            raise FormatError(f"signature algorithm {algorithm} is not ES256 (-7)")
        if not isinstance(unprotected, dict) or list(unprotected) != [4] or not isinstance(unprotected[4], bytes):
            raise FormatError("the unprotected header of a COSE_Sign1 is not exactly {4: kid}")
        if not isinstance(payload, bytes) or not isinstance(signature, bytes):
            raise FormatError("payload and signature of a COSE_Sign1 are byte strings")
        return cls(unprotected[4], payload, signature)

    @classmethod
    def cut(cls, data: bytes, at: int, most: int) -> tuple[Sign1, int]:
        """Take the object that begins at an offset, by its one shape; return it with the offset just behind it.

        Nothing is scanned, so that what a stranger sends costs a comparison.

        :param most: bytes that it may have.
        :raises FormatError: there is no COSE_Sign1 with a key id of 32 bytes in deterministic encoding.
        """
        kid_at = at + len(_HEAD)
        if data[at:kid_at] != _HEAD:
            raise FormatError("not a tagged COSE_Sign1")
        kid = data[kid_at : kid_at + _KID]
        _, length, start = cbor.read_head(data, kid_at + _KID)
        behind = start + length
        end = behind + len(_SIGNATURE_HEAD) + _SIGNATURE
        if end - at > most or end > len(data):
            raise FormatError("a COSE_Sign1 is cut short, or too long")
        if data[kid_at + _KID : start] != cbor.bytes_head(length) or not data.startswith(_SIGNATURE_HEAD, behind):
            raise FormatError("payload and signature of a COSE_Sign1 are byte strings in deterministic encoding")
        return cls(kid, data[start:behind], data[end - _SIGNATURE : end]), end

    def verify(self, public: PublicKey, external_aad: bytes) -> bytes:
        """Return the payload once the signature by ``public`` holds for this purpose.

        :param external_aad: deterministic CBOR of ``[context, ...]``.
        :raises UnknownSignerError: the header names another key.
        :raises SignatureError: the signature does not hold.
        """
        if self.kid != public.thumbprint:
            raise UnknownSignerError(f"signed by key {self.kid.hex()[:16]}, not by {public.thumbprint.hex()[:16]}")
        public.verify(self.signature, _sig_structure(external_aad, self.unverified))
        return self.unverified

    def encode(self) -> bytes:
        """Return the tagged object again, byte for byte as it was parsed."""
        message = [_PROTECTED, {4: self.kid}, self.unverified, self.signature]
        return cbor.encode(cbor2.CBORTag(cbor.TAG_SIGN1, message))


def sign(payload: bytes, external_aad: bytes, signer: Signer) -> bytes:
    """Return the tagged COSE_Sign1 over ``payload`` for the purpose that ``external_aad`` names."""
    signature = signer.sign(hashlib.sha256(_sig_structure(external_aad, payload)).digest())
    return Sign1(signer.public.thumbprint, payload, signature).encode()


def _sig_structure(external_aad: bytes, payload: bytes) -> bytes:
    return cbor.encode(["Signature1", _PROTECTED, external_aad, payload])
