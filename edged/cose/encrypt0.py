"""COSE_Encrypt0 (RFC 9052, section 5.2): protected ``{1: alg}``, unprotected exactly ``{4: kid, 5: IV}``.

A message has one shape, so sealing fills a template and opening compares with one: 2 us instead of 30 and more for a
general library (``make bench``). What another library encoded in another order goes through the strict decoder.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import cbor2

from edged.cose import cbor
from edged.cose.algorithms import (
    IV_SIZE,
    TAG_SIZE,
    Aead,
    decrypt,
    enc_structure,
    parse_protected,
    protected,
)
from edged.cose.keys import ContentKey
from edged.errors import FormatError, UnknownKeyError

KID_SIZE = 8
_IV_HEAD = b"\x05\x4c"


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

    __slots__ = ("_aad", "_cipher", "_iv_at", "_prefix", "key")

    def __init__(self, key: ContentKey, external_aad: bytes) -> None:
        self.key = key
        self._prefix = _prefix(key.aead, key.kid)
        self._iv_at = len(self._prefix)
        self._cipher = key.aead.cipher(key.secret)
        self._aad = enc_structure("Encrypt0", protected(key.aead), external_aad)

    def seal(self, iv: bytes, plaintext: bytes) -> bytes:
        """Return the tagged COSE_Encrypt0. The caller never uses an ``iv`` (12 bytes) twice under one key."""
        ciphertext = self._cipher.encrypt(iv, plaintext, self._aad)
        length = len(ciphertext)
        head = b"\x58%c" % length if 24 <= length < 0x100 else cbor.bytes_head(length)
        return b"%b%b%b%b" % (self._prefix, iv, head, ciphertext)

    def open(self, data: bytes, limit: int) -> tuple[bytes, bytes]:
        """Return ``(iv, plaintext)`` of a message of at most ``limit`` bytes.

        :raises FormatError: not a COSE_Encrypt0 of edged's shape.
        :raises UnknownKeyError: sealed under another key id or algorithm.
        :raises DecryptionError: the tag does not hold.
        """
        at = self._iv_at
        if data.startswith(self._prefix) and len(data) <= limit and (body := _ciphertext_at(data, at + IV_SIZE)):
            iv = data[at : at + IV_SIZE]
            return iv, decrypt(self._cipher, iv, data[body:], self._aad)
        message = parse(data, limit)
        if message.kid != self.key.kid or message.aead is not self.key.aead:
            raise UnknownKeyError(f"sealed under key {message.kid.hex()}, not {self.key.kid.hex()}")
        return message.iv, decrypt(self._cipher, message.iv, message.ciphertext, self._aad)


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


def _ciphertext_at(data: bytes, at: int) -> int:
    """Return where the ciphertext begins that must reach to the end of ``data``, or 0 if none stands there."""
    length = len(data)
    if length - at < 2 + TAG_SIZE:
        return 0
    first = data[at]
    if first == 0x58:
        return at + 2 if data[at + 1] == length - at - 2 and length - at - 2 >= 24 else 0
    if first == 0x59:
        (size,) = struct.unpack_from(">H", data, at + 1)
        return at + 3 if size == length - at - 3 and size >= 0x100 else 0
    return 0
