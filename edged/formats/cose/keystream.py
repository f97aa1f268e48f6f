"""A long pseudorandom string from a short secret: HKDF-SHA-256 (RFC 5869), then ChaCha20 (RFC 8439)."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY, _COUNTER_AND_NONCE = 32, 16


def keystream(seed: bytes, context: str, size: int) -> bytes:
    """Return ``size`` bytes that nobody tells from random ones without the whole of ``seed``.

    :param seed: a secret that was itself drawn or agreed on for this one purpose.
    :param context: names the purpose: the same seed gives unrelated strings for two purposes.
    :param size: below 256 GB, where ChaCha20's counter ends.
    """
    key = HKDF(hashes.SHA256(), _KEY, salt=None, info=context.encode()).derive(seed)
    cipher = Cipher(ChaCha20(key, bytes(_COUNTER_AND_NONCE)), mode=None)  # the key is used for this one string
    return cipher.encryptor().update(bytes(size))
