"""Strict CBOR (RFC 8949): bounded and checked before a single object is built.

A scan of the bytes comes first and refuses what a lenient decoder would let through: indefinite lengths, duplicate
keys, keys that are neither integers nor strings, unknown tags and simple values, trailing bytes, and anything beyond
the limits. Only then does cbor2 build the value. cbor2 alone would accept duplicate keys, shared references, regular
expressions and MIME parts, and merges the keys ``True`` and ``1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import cbor2

from edged.base.errors import FormatError

TAG_ENCRYPT0, TAG_SIGN1, TAG_ENCRYPT = 16, 18, 96  # RFC 9052, section 2
TAG_MULTI_DIMENSIONAL = 40  # RFC 8746, section 3.1.1
_TYPED_ARRAYS = range(64, 88)  # RFC 8746, section 2.1
_TAGS = frozenset({TAG_ENCRYPT0, TAG_SIGN1, TAG_ENCRYPT, TAG_MULTI_DIMENSIONAL, *_TYPED_ARRAYS})

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_KEY_TYPES = frozenset({_UINT, _NINT, _BYTES, _TEXT})
_CONSTANTS = frozenset({20, 21, 22})  # false, true, null
_FLOATS = frozenset({25, 26, 27})


class Limits(NamedTuple):
    """Bounds of a decoder: bytes in all, levels of nesting, items in all."""

    size: int
    depth: int
    items: int


TRUST = Limits(size=64 * 1024, depth=16, items=4096)
"""For objects that carry trust: records, announcements, headers."""


class _Frame:
    """One open array, map or tag during the scan: how many items it still wants, and the keys seen if it is a map."""

    __slots__ = ("keys", "left")

    def __init__(self, left: int, keys: set[tuple[int, int | bytes]] | None) -> None:
        self.left = left
        self.keys = keys


def scan(data: bytes, start: int, limits: Limits) -> int:  # noqa: C901, PLR0912  one loop: it runs once an item
    """Check one data item that begins at ``start`` and return the offset just behind it.

    :raises FormatError: the bytes break a rule of this module or a limit.
    """
    at, items = start, 0
    stack: list[_Frame] = []
    while True:
        frame = stack[-1] if stack else None
        items += 1
        if items > limits.items:
            raise FormatError(f"CBOR holds more than {limits.items} items")
        head_at = at
        major, argument, at = read_head(data, at)
        if frame is not None:
            if frame.keys is not None and frame.left % 2 == 0:
                _note_key(frame.keys, data, major, argument, at)
            frame.left -= 1
        opened = False
        if major in (_BYTES, _TEXT):
            at += argument
            if at > len(data):
                raise FormatError("CBOR ends inside a string")
        elif major == _ARRAY and argument:
            stack.append(_Frame(argument, None))
            opened = True
        elif major == _MAP and argument:
            stack.append(_Frame(2 * argument, set()))
            opened = True
        elif major == _TAG:
            if argument not in _TAGS:
                raise FormatError(f"CBOR tag {argument} is not one that edged uses")
            stack.append(_Frame(1, None))
            opened = True
        elif major == _SIMPLE:
            _check_simple(data[head_at] & 0x1F)
        if opened and len(stack) > limits.depth:
            raise FormatError(f"CBOR is nested more than {limits.depth} levels deep")
        while stack and not stack[-1].left:
            stack.pop()
        if not stack:
            return at


def read_head(data: bytes | memoryview, at: int) -> tuple[int, int, int]:
    """Read the head of a data item: its major type, its argument, and the offset behind the head (RFC 8949, section 3).

    :raises FormatError: the head is cut short, reserved, or begins an indefinite length.
    """
    if at >= len(data):
        raise FormatError("CBOR ends too early")
    initial = data[at]
    low = initial & 0x1F
    if low < 24:
        return initial >> 5, low, at + 1
    if low > 27:
        raise FormatError("CBOR has an indefinite length or a reserved head")
    behind = at + 1 + (1 << (low - 24))
    if behind > len(data):
        raise FormatError("CBOR ends inside a head")
    return initial >> 5, int.from_bytes(data[at + 1 : behind], "big"), behind


def _check_simple(low: int) -> None:
    if low not in _CONSTANTS and low not in _FLOATS:
        raise FormatError("CBOR has a simple value other than false, true or null")


def _note_key(keys: set[tuple[int, int | bytes]], data: bytes, major: int, argument: int, at: int) -> None:
    if major not in _KEY_TYPES:
        raise FormatError("CBOR map has a key that is neither an integer nor a string")
    key = (major, data[at : at + argument] if major in (_BYTES, _TEXT) else argument)
    if key in keys:
        raise FormatError("CBOR map has a duplicate key")
    keys.add(key)


def decode(data: bytes, limits: Limits = TRUST) -> object:
    """Decode exactly one data item.

    :raises FormatError: not strict CBOR, beyond ``limits``, or with bytes behind it.
    """
    if len(data) > limits.size:
        raise FormatError(f"CBOR is {len(data)} bytes long, more than the {limits.size} allowed")
    if scan(data, 0, limits) != len(data):
        raise FormatError("CBOR has bytes behind its end")
    return _build(data)


def decode_canonical(data: bytes, limits: Limits = TRUST) -> object:
    """Decode one data item that must be in deterministic encoding (RFC 8949, section 4.2.1): trust structures are.

    :raises FormatError: as :func:`decode`, or encoding the value again gives other bytes.
    """
    value = decode(data, limits)
    if encode(value) != data:
        raise FormatError("CBOR is not in deterministic encoding")
    return value


def split_sequence(data: bytes, limits: Limits, most: int) -> list[bytes]:
    """Cut a CBOR sequence (RFC 8742) into its items, at most ``most``, each checked.

    :raises FormatError: not strict CBOR, or more than ``most`` items.
    """
    if len(data) > limits.size * most:
        raise FormatError(f"CBOR sequence is {len(data)} bytes long, more than the {limits.size * most} allowed")
    items: list[bytes] = []
    at = 0
    while at < len(data):
        if len(items) == most:
            raise FormatError(f"CBOR sequence has more than {most} items")
        end = scan(data, at, limits)
        items.append(data[at:end])
        at = end
    return items


def _build(data: bytes) -> object:
    try:
        return _plain(cbor2.loads(data))
    except (cbor2.CBORDecodeError, ValueError, OverflowError) as error:
        raise FormatError(f"CBOR cannot be decoded: {error}") from error


def _plain(value: object) -> object:
    """Return lists and dicts for the tuples and frozen maps that cbor2 6 puts inside a tag (cbor2 5 does not)."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, cbor2.CBORTag):
        return cbor2.CBORTag(value.tag, _plain(value.value))
    return value


def encode(value: object) -> bytes:
    """Encode deterministically: shortest heads and floats, sorted keys.

    cbor2 sorts keys by length first (RFC 7049), which is the order of RFC 8949 wherever the keys of one map are all
    text, all byte strings of one length, or all integers between -24 and 23, as in every object of edged's.
    """
    return cbor2.dumps(value, canonical=True)


def bytes_head(length: int) -> bytes:
    """Return the head of a byte string of ``length`` bytes."""
    if length < 24:
        return bytes((0x40 | length,))
    if length < 0x100:
        return bytes((0x58, length))
    if length < 0x10000:
        return b"\x59" + length.to_bytes(2, "big")
    if length < 0x100000000:
        return b"\x5a" + length.to_bytes(4, "big")
    return b"\x5b" + length.to_bytes(8, "big")
