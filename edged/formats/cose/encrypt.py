"""COSE_Encrypt (RFC 9052, section 5.1) with ECDH-ES+A256KW recipients on P-256 (RFC 9053, section 6.4)."""

from __future__ import annotations

from collections.abc import Iterable

import cbor2
import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from edged.base.errors import DecryptionError, FormatError, NotARecipientError
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import (
    A256KW,
    ECDH_ES_A256KW,
    IV_SIZE,
    KEY_SIZE,
    Aead,
    decrypt,
    enc_structure,
    parse_protected,
    protected,
)
from edged.formats.cose.keys import Agreement, ContentKey, PrivateKey, PublicKey

_PROTECTED = protected(ECDH_ES_A256KW)
_PARTY: list[None] = [None, None, None]
_KDF_CONTEXT = cbor.encode([A256KW, _PARTY, _PARTY, [8 * KEY_SIZE, _PROTECTED]])
_WRAPPED = KEY_SIZE + 8


class Recipient(msgspec.Struct, frozen=True):
    """A content key wrapped to one P-256 key.

    :ivar ephemeral: x and y of the ephemeral key; only the entry's own recipient checks that they are a point.
    """

    kid: bytes
    ephemeral: tuple[bytes, bytes]
    wrapped: bytes

    @classmethod
    def wrap(cls, key: ContentKey, to: PublicKey) -> Recipient:
        """Wrap ``key`` to ``to`` under an ephemeral key of its own."""
        ephemeral = PrivateKey.generate()
        point = ephemeral.public.x, ephemeral.public.y
        return cls(to.thumbprint, point, aes_key_wrap(_kek(ephemeral.ecdh(to)), key.secret))

    def unwrap(self, private: Agreement) -> bytes:
        """Return the content key (32 bytes), not yet checked against any commitment.

        :raises FormatError: the ephemeral key is no point on P-256.
        :raises DecryptionError: it was wrapped to another key or altered.
        """
        ephemeral = PublicKey(*self.ephemeral)
        try:
            return aes_key_unwrap(_kek(private.ecdh(ephemeral)), self.wrapped)
        except InvalidUnwrap:
            raise DecryptionError("the wrapped content key does not open with this key") from None

    @classmethod
    def parse(cls, value: object) -> Recipient:
        """Take one entry of a recipient list."""
        if not isinstance(value, list) or len(value) != 3:
            raise FormatError("a COSE_recipient is an array of three")
        header, unprotected, wrapped = value
        if header != _PROTECTED:
            raise FormatError(f"recipient algorithm {parse_protected(header)} is not ECDH-ES+A256KW (-31)")
        if not isinstance(unprotected, dict) or set(unprotected) != {4, -1} or not isinstance(unprotected[4], bytes):
            raise FormatError("the unprotected header of a recipient is not exactly {4: kid, -1: ephemeral key}")
        if not isinstance(wrapped, bytes) or len(wrapped) != _WRAPPED:
            raise FormatError(f"a wrapped content key is not {_WRAPPED} bytes long")
        return cls(unprotected[4], PublicKey.parse_coordinates(unprotected[-1]), wrapped)

    def cose(self) -> list[object]:
        """Return the COSE_recipient."""
        x, y = self.ephemeral
        return [_PROTECTED, {4: self.kid, -1: {1: 2, -1: 1, -2: x, -3: y}}, self.wrapped]


class Encrypt(msgspec.Struct, frozen=True):
    """A COSE_Encrypt that was parsed and not opened.

    :ivar ciphertext: with its tag, or None where it is detached.
    """

    aead: Aead
    iv: bytes
    ciphertext: bytes | None
    recipients: tuple[Recipient, ...]

    @classmethod
    def parse(cls, value: object, most: int) -> Encrypt:
        """Take the decoded, tagged object with at most ``most`` recipients, one to a key id.

        :raises FormatError: it is anything else.
        """
        if not isinstance(value, cbor2.CBORTag) or value.tag != cbor.TAG_ENCRYPT:
            raise FormatError("not a tagged COSE_Encrypt")
        if not isinstance(value.value, list) or len(value.value) != 4:
            raise FormatError("a COSE_Encrypt is an array of four")
        header, unprotected, ciphertext, entries = value.value
        aead = Aead.parse(parse_protected(header))
        if not isinstance(unprotected, dict) or list(unprotected) != [5] or not isinstance(unprotected[5], bytes):
            raise FormatError("the unprotected header of a COSE_Encrypt is not exactly {5: IV}")
        if len(unprotected[5]) != IV_SIZE:
            raise FormatError(f"an IV is not {IV_SIZE} bytes long")
        if ciphertext is not None and not isinstance(ciphertext, bytes):
            raise FormatError("the ciphertext of a COSE_Encrypt is neither a byte string nor null")
        if not isinstance(entries, list) or not 0 < len(entries) <= most:
            raise FormatError(f"a COSE_Encrypt has between 1 and {most} recipients")
        recipients = tuple(Recipient.parse(entry) for entry in entries)
        if len({recipient.kid for recipient in recipients}) != len(recipients):
            raise FormatError("a COSE_Encrypt names one recipient twice")
        return cls(aead, unprotected[5], ciphertext, recipients)

    def cose(self) -> cbor2.CBORTag:
        """Return the tagged object, to be encoded by itself or inside another."""
        entries = [recipient.cose() for recipient in self.recipients]
        return cbor2.CBORTag(cbor.TAG_ENCRYPT, [protected(self.aead), {5: self.iv}, self.ciphertext, entries])

    @property
    def kids(self) -> list[bytes]:
        """Key ids of the recipients."""
        return [recipient.kid for recipient in self.recipients]

    def only(self, kid: bytes) -> Encrypt:
        """Return this object with the entry of one recipient.

        :raises NotARecipientError: it has none.
        """
        for recipient in self.recipients:
            if recipient.kid == kid:
                return msgspec.structs.replace(self, recipients=(recipient,))
        raise NotARecipientError(
            f"not sealed to key {kid.hex()[:16]}", hint="`edged inspect` lists the recipients; `edged grant` adds one"
        )

    def encode(self) -> bytes:
        """Return the tagged object, encoded by itself."""
        return cbor.encode(self.cose())

    def unwrap(self, private: Agreement, commit: bytes | None) -> ContentKey:
        """Return the content key from one's own entry.

        :param commit: the commitment that was signed (32 bytes), against which the key is checked; None only where the
            plaintext is itself a key with a commitment of its own.
        :raises NotARecipientError: there is no entry for this key.
        :raises DecryptionError: the entry does not open.
        :raises MismatchError: it holds another key than the one committed to.
        """
        (own,) = self.only(private.public.thumbprint).recipients
        key = ContentKey(self.aead, own.unwrap(private))
        if commit is not None:
            key.check(commit)
        return key

    def open(self, key: ContentKey, external_aad: bytes) -> bytes:
        """Return the plaintext of an attached ciphertext.

        :raises DecryptionError: the tag does not hold.
        """
        if self.ciphertext is None:
            raise FormatError("the ciphertext of this COSE_Encrypt is detached")
        return decrypt(key.aead.cipher(key.secret), self.iv, self.ciphertext, content_aad(key.aead, external_aad))


def seal(key: ContentKey, iv: bytes, plaintext: bytes, external_aad: bytes, to: Iterable[PublicKey]) -> Encrypt:
    """Return a COSE_Encrypt with its ciphertext attached, ``key`` wrapped to each of ``to``."""
    ciphertext = key.aead.cipher(key.secret).encrypt(iv, plaintext, content_aad(key.aead, external_aad))
    return Encrypt(key.aead, iv, ciphertext, tuple(Recipient.wrap(key, public) for public in to))


def content_aad(aead: Aead, external_aad: bytes) -> bytes:
    """Return the associated data of the content (the Enc_structure of a COSE_Encrypt)."""
    return enc_structure("Encrypt", protected(aead), external_aad)


def _kek(z: bytes) -> bytes:
    """Derive the key encryption key from the shared secret: HKDF-SHA-256, no salt, the fixed KDF context."""
    return HKDF(hashes.SHA256(), KEY_SIZE, salt=None, info=_KDF_CONTEXT).derive(z)
