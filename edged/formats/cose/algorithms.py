"""The closed list of algorithms (IANA COSE registry), and the protected headers that name them."""

from __future__ import annotations

from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import ciphers, hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edged.base.errors import DecryptionError, FormatError
from edged.formats.cose import cbor

ES256 = -7
ECDH_ES_A256KW = -31
A256KW = -5

KEY_SIZE = 32
IV_SIZE = 12
TAG_SIZE = 16

_COUNTER_AND_NONCE = 16

Cipher = AESGCM | ChaCha20Poly1305


class Aead(IntEnum):
    """A content encryption algorithm: 256-bit key, 96-bit IV, 128-bit tag."""

    A256GCM = 3
    CHACHA20_POLY1305 = 24

    @classmethod
    def parse(cls, value: object) -> Aead:
        """Return the algorithm that ``value`` numbers.

        :raises FormatError: it is not on the list.
        """
        if type(value) is int:  # bool is an int, and 3.0 == 3
            for aead in cls:
                if aead == value:
                    return aead
        raise FormatError(f"content algorithm {value!r} is neither A256GCM (3) nor ChaCha20/Poly1305 (24)")

    def cipher(self, key: bytes) -> Cipher:
        """Return the AEAD of the cryptography package under ``key`` (32 bytes)."""
        return AESGCM(key) if self is Aead.A256GCM else ChaCha20Poly1305(key)


def protected(algorithm: int) -> bytes:
    """Return the protected header ``{1: algorithm}``, encoded."""
    return cbor.encode({1: int(algorithm)})


def parse_protected(data: object) -> int:
    """Return the algorithm of a protected header that must be exactly ``{1: algorithm}``.

    :raises FormatError: it is anything else.
    """
    if not isinstance(data, bytes):
        raise FormatError("the protected header is not a byte string")
    header = cbor.decode_canonical(data)
    if not isinstance(header, dict) or list(header) != [1] or type(header[1]) is not int:
        raise FormatError("the protected header is not exactly {1: algorithm}")
    return header[1]


def tag_error() -> DecryptionError:
    """Return what a tag that does not hold is called."""
    return DecryptionError("the AEAD tag does not hold", hint="wrong key, wrong context, or altered bytes")


def decrypt(cipher: Cipher, iv: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """Open ``ciphertext`` (tag at its end).

    :raises DecryptionError: the tag does not hold.
    """
    try:
        return cipher.decrypt(iv, ciphertext, aad)
    except InvalidTag:
        raise tag_error() from None


def decrypt_into(cipher: Cipher, iv: bytes, ciphertext: memoryview, aad: bytes, buffer: memoryview) -> None:
    """Open ``ciphertext`` straight into ``buffer``, which must be exactly as long as the plaintext.

    A failed call leaves unauthenticated plaintext in ``buffer``: the caller wipes it on any exception.

    :raises DecryptionError: the tag does not hold.
    """
    try:
        cipher.decrypt_into(iv, ciphertext, aad, buffer)
    except InvalidTag:
        raise DecryptionError(tag_error().message) from None  # what to do depends on what was decrypted


def enc_structure(context: str, protected_header: bytes, external_aad: bytes) -> bytes:
    """Return the Enc_structure (RFC 9052, section 5.3) that goes into the AEAD as associated data."""
    return cbor.encode([context, protected_header, external_aad])


def keystream(seed: bytes, info: bytes, size: int) -> bytes:
    """Return ``size`` pseudorandom bytes from a short secret: HKDF-SHA-256 (RFC 5869), then ChaCha20 (RFC 8439).

    :param seed: a secret that was itself drawn or agreed on for this one purpose.
    :param info: names the purpose: the same seed gives unrelated strings for two purposes.
    :param size: below 256 GB, where ChaCha20's counter ends.
    """
    key = HKDF(hashes.SHA256(), KEY_SIZE, salt=None, info=info).derive(seed)
    cipher = ciphers.Cipher(ChaCha20(key, bytes(_COUNTER_AND_NONCE)), mode=None)  # the key is used for this one string
    return cipher.encryptor().update(bytes(size))
