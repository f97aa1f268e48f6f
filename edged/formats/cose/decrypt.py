"""Large plaintexts: decrypted into a buffer and hashed there, side by side."""

from __future__ import annotations

import hashlib
import threading
from queue import SimpleQueue

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM

from edged.base.errors import DecryptionError
from edged.base.libc import clear_stack
from edged.formats.cose.algorithms import TAG_SIZE, Aead, decrypt_into, tag_error
from edged.formats.cose.keys import ContentKey

_LARGE, _PIECE = 4 << 20, 1 << 20
"""Bytes from which a second thread is worth its start, and bytes that it hashes at a time."""


def decrypt_and_hash(key: ContentKey, iv: bytes, ciphertext: memoryview, aad: bytes, buffer: memoryview) -> bytes:
    """Open ``ciphertext`` straight into ``buffer``; return the SHA-256 of what stands there.

    AES-GCM opens a large one in pieces, and a second thread hashes each while the next is opened: SHA-256 takes the
    most time of a load. The cryptography package opens ChaCha20-Poly1305 as a whole only.

    A failed call leaves unauthenticated plaintext in ``buffer``: the caller wipes it on any exception.

    :param buffer: exactly as long as the plaintext.
    :raises DecryptionError: the tag does not hold.
    """
    if key.aead is not Aead.A256GCM or len(buffer) < _LARGE:
        decrypt_into(key.aead.cipher(key.secret), iv, ciphertext, aad, buffer)
        return hashlib.sha256(buffer).digest()
    sealed, tag = ciphertext[:-TAG_SIZE], bytes(ciphertext[-TAG_SIZE:])
    opening = Cipher(AES256(key.secret), GCM(iv, tag)).decryptor()
    opening.authenticate_additional_data(aad)
    hasher = hashlib.sha256()
    pieces: SimpleQueue[memoryview | None] = SimpleQueue()

    def hash_pieces() -> None:
        for piece in iter(pieces.get, None):
            hasher.update(piece)
        clear_stack()

    hashing = threading.Thread(target=hash_pieces, name="edged-hash")
    hashing.start()
    try:
        for at in range(0, len(sealed), _PIECE):
            piece = buffer[at : at + _PIECE]
            opening.update_into(sealed[at : at + _PIECE], piece)
            pieces.put(piece)
        opening.finalize()
    except InvalidTag:
        raise DecryptionError(tag_error().message) from None
    finally:
        pieces.put(None)
        hashing.join()
    return hasher.digest()
