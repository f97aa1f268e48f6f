"""COSE_Encrypt0 (RFC 9052, section 5.2): protected ``{1: alg}``, unprotected exactly ``{4: kid, 5: IV}``.

A message has one shape, so sealing fills a template and opening compares with one: 2 us instead of 30 and more for a
general library (``make bench``). What another library encoded in another order goes through the strict decoder.
"""

from __future__ import annotations

from typing import NamedTuple

import cbor2
from cryptography.exceptions import InvalidTag

from edged.base.errors import FormatError, UnknownKeyError
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, TAG_SIZE, Aead, enc_structure, parse_protected, protected, tag_error
from edged.formats.cose.keys import ContentKey

KID_SIZE = 8
_IV_HEAD = b"\x05\x4c"
_ONE_BYTE_LENGTH, _TWO_BYTE_LENGTH = 0x58, 0x59
_LEAST = 3 + TAG_SIZE


class Encrypt0(NamedTuple):
    """A COSE_Encrypt0 that was parsed and not opened."""

    aead: Aead
    kid: bytes
    iv: bytes
    ciphertext: bytes


def _prefix(aead: Aead, kid: bytes) -> bytes:
    header = protected(aead)
    return (
        b"\xd0\x83" + cbor.bytes_head(len(header)) + header + b"\xa2\x04" + cbor.bytes_head(len(kid)) + kid + _IV_HEAD
    )


def parse(data: bytes, limit: int) -> Encrypt0:
    """Take an encoded, tagged COSE_Encrypt0 of at most ``limit`` bytes, headers in either order.

    :raises FormatError: it is anything else.
    """
    value = cbor.decode(data, cbor.Limits(size=limit, depth=4, items=16))
    if not isinstance(value, cbor2.CBORTag) or value.tag != cbor.TAG_ENCRYPT0:
        raise FormatError("not a tagged COSE_Encrypt0")
    if not isinstance(value.value, list) or len(value.value) != 3:
        raise FormatError("a COSE_Encrypt0 is an array of three")
    header, unprotected, ciphertext = value.value
    aead = Aead.parse(parse_protected(header))
    if not isinstance(unprotected, dict) or set(unprotected) != {4, 5}:
        raise FormatError("the unprotected header of a COSE_Encrypt0 is not exactly {4: kid, 5: IV}")
    kid, iv = unprotected[4], unprotected[5]
    if not isinstance(kid, bytes) or len(kid) != KID_SIZE or not isinstance(iv, bytes) or len(iv) != IV_SIZE:
        raise FormatError(f"a sealed message needs a key id of {KID_SIZE} bytes and an IV of {IV_SIZE}")
    if not isinstance(ciphertext, bytes) or len(ciphertext) < TAG_SIZE:
        raise FormatError("the ciphertext of a COSE_Encrypt0 is absent or shorter than its tag")
    return Encrypt0(aead, kid, iv, ciphertext)


class Box:
    """One key for one purpose: seals and opens COSE_Encrypt0 messages that bind the same ``external_aad``."""

    __slots__ = ("_aad", "_decrypt", "_encrypt", "_iv_at", "_prefix", "key")

    def __init__(self, key: ContentKey, external_aad: bytes) -> None:
        self.key = key
        self._prefix = _prefix(key.aead, key.kid)
        self._iv_at = len(self._prefix)
        cipher = key.aead.cipher(key.secret)
        self._encrypt, self._decrypt = cipher.encrypt, cipher.decrypt
        self._aad = enc_structure("Encrypt0", protected(key.aead), external_aad)

    def seal(self, iv: bytes, plaintext: bytes) -> bytes:
        """Return the tagged COSE_Encrypt0. The caller never uses an ``iv`` (12 bytes) twice under one key."""
        ciphertext = self._encrypt(iv, plaintext, self._aad)
        return self._prefix + iv + cbor.bytes_head(len(ciphertext)) + ciphertext

    def open(self, data: bytes, limit: int) -> tuple[bytes, bytes]:
        """Return ``(iv, plaintext)`` of a message of at most ``limit`` bytes.

        :raises FormatError: not a COSE_Encrypt0 of edged's shape.
        :raises UnknownKeyError: sealed under another key id or algorithm.
        :raises DecryptionError: the tag does not hold.
        """
        iv_at = self._iv_at
        head_at = iv_at + IV_SIZE
        size = len(data)
        at = length = -1  # where the ciphertext begins, and its length: read here, for a call costs a tenth of all
        if head_at + _LEAST <= size <= limit and data[:iv_at] == self._prefix:
            at = head_at + 2
            if data[head_at] == _TWO_BYTE_LENGTH:
                length = data[head_at + 1] << 8 | data[at]
                at += 1
            elif data[head_at] == _ONE_BYTE_LENGTH:
                length = data[head_at + 1]
        if length == size - at:
            iv, ciphertext = data[iv_at:head_at], data[at:]
        else:
            aead, kid, iv, ciphertext = parse(data, limit)
            if kid != self.key.kid or aead is not self.key.aead:
                raise UnknownKeyError(f"sealed under key {kid.hex()}, not {self.key.kid.hex()}")
        try:
            return iv, self._decrypt(iv, ciphertext, self._aad)
        except InvalidTag:
            raise tag_error() from None


def peek_kid(data: bytes, limit: int) -> bytes:
    """Return the key id that a message of at most ``limit`` bytes names: a claim, good for finding the key to try.

    :raises FormatError: not a COSE_Encrypt0 of edged's shape.
    """
    for aead in Aead:
        prefix = _PEEK[aead]
        if data.startswith(prefix) and len(data) > len(prefix) + KID_SIZE:
            return data[len(prefix) : len(prefix) + KID_SIZE]
    return parse(data, limit).kid


_PEEK = {aead: _prefix(aead, bytes(KID_SIZE))[: -KID_SIZE - len(_IV_HEAD)] for aead in Aead}
