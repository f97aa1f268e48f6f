"""The keys that examples are sealed under: fresh ones, sealed to the board's own key and signed by it.

Whoever has the disk can neither open nor alter a window, nor add one: only windows that this board sealed will open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edged.base.errors import FormatError, UnknownSignerError
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, Aead
from edged.formats.cose.encrypt import Encrypt, seal
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import Agreement, ContentKey, PublicKey, Signer
from edged.formats.cose.sign1 import Sign1, sign

_KEY_CONTEXT, _WINDOW_CONTEXT = "edged.example-key.1", "edged.example.1"
_COUNT_SIZE = 8


class Of(NamedTuple):
    """The common properties of windows under one key.

    :ivar model: its name.
    :ivar chain: fingerprint of the signal chain that prepared them.
    """

    model: str
    chain: bytes


class StoreKeys:
    """Makes and opens keys for examples.

    :param signer: the board's signing key.
    :param own: the board's ECDH key.
    :param opener: finds the private key that a recipient list names: the one in use, or a former one.
    :param signers: every key that the board ever signed with.
    """

    def __init__(
        self, signer: Signer, own: PublicKey, *, opener: Callable[[Encrypt], Agreement], signers: Sequence[PublicKey]
    ) -> None:
        self._signer = signer
        self._own = own
        self._opener = opener
        self._signers = {key.thumbprint: key for key in (signer.public, *signers)}

    def make(self, of: Of) -> tuple[ContentKey, bytes]:
        """Make a key; return it, and the signed and sealed form that is stored."""
        key = ContentKey.generate(Aead.A256GCM)
        return key, self._wrap(key, of)

    def _wrap(self, key: ContentKey, of: Of) -> bytes:
        aad = _key_aad(of)
        sealed = seal(ContentKey.generate(key.aead), os.urandom(IV_SIZE), cbor.encode(key.cose()), aad, [self._own])
        return sign(cbor.encode(sealed.cose()), aad, self._signer)

    def open(self, stored: bytes, of: Of) -> ContentKey:
        """Open a stored key.

        :raises FormatError: it is damaged.
        :raises TrustError: this board did not make it, or for another purpose.
        :raises KeystoreError: the board's key cannot be used.
        """
        sealed = self._verified(stored, of)
        wrapping = sealed.unwrap(self._opener(sealed), None)
        return ContentKey.parse(cbor.decode_canonical(sealed.open(wrapping, _key_aad(of))))

    def renewed(self, stored: bytes, of: Of) -> bytes | None:
        """Return a stored key sealed to the board's present key; None if it is already.

        :raises FormatError: as :meth:`open`; likewise TrustError and KeystoreError.
        """
        if [one.kid for one in self._verified(stored, of).recipients] == [self._own.thumbprint]:
            return None
        return self._wrap(self.open(stored, of), of)

    def _verified(self, stored: bytes, of: Of) -> Encrypt:
        signed = Sign1.parse(stored)
        by = self._signers.get(signed.kid)
        if by is None:
            raise UnknownSignerError(
                f"a key of stored windows is signed by key {signed.kid.hex()[:16]}, not this board"
            )
        return Encrypt.parse(cbor.decode_canonical(signed.verify(by, _key_aad(of))), 1)


class Sealer:
    """Seals windows under a key that is fresh and never read back to seal: no count survives, so none repeats."""

    def __init__(self, key: ContentKey) -> None:
        self._key = key
        self._salt = os.urandom(IV_SIZE - _COUNT_SIZE)
        self._count = 0

    def seal(self, of: Of, label: int | None, at: int, plaintext: bytes) -> bytes:
        """Return a window's COSE_Encrypt0."""
        self._count += 1
        iv = self._count.to_bytes(_COUNT_SIZE, "big") + self._salt
        return Box(self._key, _window_aad(of, label, at)).seal(iv, plaintext)


def open_window(key: ContentKey, of: Of, label: int | None, at: int, sealed: bytes) -> bytes:
    """Return the plaintext of a window.

    :raises FormatError: it is no COSE_Encrypt0.
    :raises TrustError: it, its label or its time was altered.
    """
    if not sealed:
        raise FormatError("a stored window is empty")
    return Box(key, _window_aad(of, label, at)).open(sealed, len(sealed))[1]


def _key_aad(of: Of) -> bytes:
    return cbor.encode([_KEY_CONTEXT, of.model, of.chain])


def _window_aad(of: Of, label: int | None, at: int) -> bytes:
    return cbor.encode([_WINDOW_CONTEXT, of.model, label, at])
