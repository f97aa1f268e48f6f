"""Changes that know where CBOR's heads and items are: lengths that lie, items that come twice, cut or swapped ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

_MOST_ITEMS = 400
_SIZES = {24: 1, 25: 2, 26: 4, 27: 8}
_STRINGS, _ARRAY, _MAP, _TAG = (2, 3), 4, 5, 6
_LENGTHS = (0, 1, 23, 24, 255, 256, 65_535, 65_536, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)


class Item(NamedTuple):
    """An item: where its head begins, where what it holds begins, and where it ends."""

    start: int
    body: int
    end: int


def items(data: bytes) -> list[Item]:
    """Return the first items of a CBOR sequence, byte strings that hold CBOR opened; stop at what is none."""
    found: list[Item] = []
    at = 0
    while at < len(data) and len(found) < _MOST_ITEMS:
        end = _walk(data, at, len(data), found)
        if end is None:
            break
        at = end
    return found


def _walk(data: bytes, start: int, limit: int, found: list[Item]) -> int | None:
    if start >= limit or len(found) >= _MOST_ITEMS:
        return None
    major, low = data[start] >> 5, data[start] & 31
    extra = _SIZES.get(low, 0)
    body = start + 1 + extra
    if body > limit or low > 27:
        return None
    value = int.from_bytes(data[start + 1 : body], "big") if extra else low
    place, end = len(found), body
    found.append(Item(start, body, body))
    if major in _STRINGS:
        end = body + value
        if end > limit:
            return None
        if major == _STRINGS[0]:
            inside = body
            while inside < end and (inner := _walk(data, inside, end, found)) is not None:
                inside = inner
    elif major in {_ARRAY, _MAP, _TAG}:
        for _ in range(1 if major == _TAG else value * (1 + (major == _MAP))):
            inner = _walk(data, end, limit, found)
            if inner is None:
                return None
            end = inner
    found[place] = Item(start, body, end)
    return end


def head(major: int, value: int, width: int) -> bytes:
    """Return a head with its value in ``width`` bytes, 0 for within the first one."""
    if not width:
        return bytes([major << 5 | value & 31])
    low = {size: low for low, size in _SIZES.items()}[width]
    return bytes([major << 5 | low]) + (value & (1 << 8 * width) - 1).to_bytes(width, "big")


def _resized(source: random.Random, item: bytes, body: int, _: bytes) -> bytes:
    return head(item[0] >> 5, source.choice(_LENGTHS), source.choice((0, 1, 2, 4, 8))) + item[body:]


def _another_kind(source: random.Random, item: bytes, _body: int, _: bytes) -> bytes:
    return bytes([item[0] ^ source.randrange(1, 256)]) + item[1:]


def _indefinite(source: random.Random, item: bytes, body: int, _: bytes) -> bytes:
    return bytes([item[0] & 0xE0 | 31]) + item[body:] + source.choice((b"", b"\xff"))


def _flipped(source: random.Random, item: bytes, _body: int, _: bytes) -> bytes:
    at = source.randrange(len(item))
    return item[:at] + bytes([item[at] ^ 1 << source.randrange(8)]) + item[at + 1 :]


def _cut(source: random.Random, item: bytes, _body: int, _: bytes) -> bytes:
    return item[: source.randrange(len(item))]


def _repeated(source: random.Random, item: bytes, _body: int, _: bytes) -> bytes:
    return item * source.choice((0, 2, 2, 3, 40))


def _replaced(_: random.Random, _item: bytes, _body: int, other: bytes) -> bytes:
    return other


def _joined(source: random.Random, item: bytes, _body: int, other: bytes) -> bytes:
    return source.choice((item + other, other + item))


_BENDS: list[Callable[[random.Random, bytes, int, bytes], bytes]] = [
    _resized, _another_kind, _indefinite, _flipped, _cut, _repeated, _replaced, _joined,
]  # fmt: skip


def bend(data: bytes, source: random.Random) -> bytes:
    """Return ``data`` after a change at one item, whose neighbours stay; one change in eight cuts all behind it."""
    found = items(data)
    if not found:
        return data + source.randbytes(1)
    one, other = source.choice(found), source.choice(found)
    new = source.choice(_BENDS)(source, data[one.start : one.end], one.body - one.start, data[other.start : other.end])
    return data[: one.start] + new + (data[one.end :] if source.randrange(8) else b"")
