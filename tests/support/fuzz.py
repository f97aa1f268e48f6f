"""Messages that no sensor meant to send: valid readings of every format, changed at random and repeatable by seed."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable, Mapping

import cbor2
import numpy as np
import numpy.typing as npt

from support.bends import bend

CHANNELS = ("a1", "a2", "a3", "a4")
WINDOW = 8
PICTURE = (4, 4)
LIMIT = 1_000_000
"""Bytes of the longest message that a board takes by default."""

TOKENS = [
    b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", "١٢".encode(), b"\x1f", b"\r\n", b";", b",", b"_", b"-", b'"', b"\\u0000", b"\\ud800",
    b"0", b"-0", b"1e309", b"-1e-400", b"9" * 400, b"1" * 5000, b"0." + b"3" * 3000, b"0x10", b"NaN", b"-Infinity", b"null", b"true",
    b"[", b"]", b"[[", b"{", b"}", b"{}", b"[]", b'{"a1":', b'"a1":1,', b"a1,a2,a3,a4", b"[" * 3000, b"9007199254740993", b"1800000000000000000",
    b"\x80", b"\xa0", b"\x9f", b"\xbf", b"\xff", b"\xf6", b"\xf7", b"\xf8\x18", b"\x5b" + b"\xff" * 8, b"\x9b" + b"\xff" * 8, b"\xbb\x7f" + b"\xff" * 7,
    b"\x1b" + b"\xff" * 8, b"\x3b" + b"\xff" * 8, b"\xf9\x7e\x00", b"\xfa\x7f\x80\x00\x00", b"\xfb\x7f\xef" + b"\xff" * 6, b"\xc2\x49" + b"\xff" * 9,
    b"\xd0", b"\xd2", b"\xd8\x60", b"\xd8\x28\x82", b"\xd8\x40", b"\xd8\x52", b"\xd8\x55", b"\xd8\x56", b"\xd8\x1c", b"\xd8\x1d\x00", b"\xd9\xd9\xf7",
    b"\x81" * 20, b"\xd8\x28" * 10, b"\xa2\x01\x01\x01\x01", b"\x43\xa1\x01\x03", b"\x44\xa1\x01\x38\x22",
    b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"\xff\xff\x7f\x7f", b"\x01\x00\x00\x00",
    b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"iCCP", b"acTL", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff",
    b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xdb", b"\xff\xe1\x00\x0aExif\0\0II", b"\xff\xe2\x00\x08MPF\0\0\0",
]  # fmt: skip
"""What decoders stumble over: heads, brackets, numbers and markers at the edges of what they stand for."""

HEAVY: list[Callable[[int], bytes]] = [
    lambda size: (b"1,2,3,4\n" * size)[:size],
    lambda size: (b"a1," * size)[:size],
    lambda size: (b",\n" * size)[:size],
    lambda size: (b"9" * size)[:size],
    bytes,
    lambda size: b"[[1,2,3,4]" + b",[1,2,3,4]" * (size // 10 - 2) + b"]",
    lambda size: b"[[]" + b",[]" * (size // 3 - 2) + b"]",
    lambda size: b'[{"a1":1}' + b',{"a1":1}' * (size // 9 - 2) + b"]",
    lambda size: b"[" * size,
    lambda size: _cbor_array(min(size - 5, 299_000), b"\x80"),
    lambda size: _cbor_array(min(size - 5, 299_000) // 5, b"\x84\1\2\3\4"),
    lambda size: _cbor_array(min(size - 5, 299_000) // 2, b"\xa1\x61a\1"),
    lambda size: _cbor_array(size - 5, b"\x80"),
]
"""Messages of a size that cost the most memory and time for it."""


def _cbor_array(items: int, item: bytes) -> bytes:
    return b"\x9a" + items.to_bytes(4, "big") + item * items


SCIONS: list[object] = [
    0, 1, -1, 3, 24, -7, 1 << 32, 1 << 53, (1 << 64) - 1, -(1 << 64), 0.0, -0.5, 1e308, float("nan"), float("inf"), True, False, None,
    b"", bytes(8), bytes(32), "", "x", "gearbox", "row", "9" * 15 + " us", "1 s", "\0", [], [0], [[]], [None, 1.0], {}, {1: 3}, {"a": 1}, {"size": 1},
    cbor2.CBORTag(18, []), cbor2.CBORTag(96, 0), cbor2.CBORTag(85, bytes(4)), cbor2.CBORTag(40, [[1], cbor2.CBORTag(85, bytes(4))]),
]  # fmt: skip
"""Values that stand where another was."""

_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")


class Source:
    """Valid readings of every format, and what becomes of them. The same ``seed`` gives the same messages."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        self._clock = 0.0

    # --- valid ones

    def reading(self, format_: str, each: str) -> bytes:
        """Return a reading that a model takes, unlike all before."""
        if format_ in {"png", "jpeg", "raw"}:
            return self._picture(format_)
        rows = {"row": 1, "rows": self.random.randint(1, 2 * WINDOW), "window": WINDOW}[each]
        values = self._numbers.normal(size=(rows, len(CHANNELS))).astype(np.float32)
        return getattr(self, f"_{format_}")(values, each)  # type: ignore[no-any-return]

    def timed(self) -> bytes:
        """Return a few objects of JSON that say when they were measured."""
        rows = []
        for _ in range(self.random.randint(1, 6)):
            self._clock += self.random.choice((0.0, 0.01, 0.1, 0.3, 5.0))
            values = self._numbers.normal(size=len(CHANNELS)).round(3).tolist()
            rows.append({**dict(zip(CHANNELS, values, strict=True)), "t": round(self._clock, 3)})
        return json.dumps(rows).encode()

    def _json(self, values: npt.NDArray[np.float32], each: str) -> bytes:
        rows = values.round(4).tolist()
        objects = [dict(zip(CHANNELS, row, strict=True)) for row in rows]
        if each == "row":
            return json.dumps(self.random.choice((rows[0], objects[0]))).encode()
        columns = dict(zip(CHANNELS, values.T.tolist(), strict=True))
        return json.dumps(self.random.choice((rows, objects, columns))).encode()

    def _text(self, values: npt.NDArray[np.float32], _each: str) -> bytes:
        return self.random.choice((" ", ",", ";", "\n")).join(map(repr, values.ravel().tolist())).encode()

    def _csv(self, values: npt.NDArray[np.float32], _each: str) -> bytes:
        lines = [",".join(map(repr, row)) for row in values.tolist()]
        if self.random.random() < 0.3:
            lines.insert(0, ",".join(CHANNELS))
        return self.random.choice(("\n", "\r\n")).join(lines).encode()

    def _cbor(self, values: npt.NDArray[np.float32], each: str) -> bytes:
        rows = values.tolist()
        objects = [dict(zip(CHANNELS, row, strict=True)) for row in rows]
        big = cbor2.CBORTag(82, values.astype(">f8").tobytes())
        kinds: list[object] = [
            cbor2.CBORTag(85, values.tobytes()),
            cbor2.CBORTag(40, [list(values.shape), big]),
            rows[0] if each == "row" else rows,
            objects[0] if each == "row" else objects,
        ]
        return cbor2.dumps(self.random.choice(kinds))

    def _f32le(self, values: npt.NDArray[np.float32], _each: str) -> bytes:
        return values.tobytes()

    def _picture(self, format_: str) -> bytes:
        import PIL.Image  # noqa: PLC0415  an extra

        width, height = PICTURE if format_ == "raw" else (self.random.randint(1, 9), self.random.randint(1, 9))
        pixels = self._numbers.integers(0, 256, (height, width, 3), np.uint8)
        if format_ == "raw":
            return pixels[..., 0].tobytes()
        picture = PIL.Image.fromarray(pixels).convert(self.random.choice(("RGB", "L")))
        if format_ == "png" and self.random.random() < 0.3:
            picture = picture.convert(self.random.choice(("P", "1", "LA", "RGBA", "I;16")))
        packed = io.BytesIO()
        options = {"progressive": True} if format_ == "jpeg" and self.random.random() < 0.5 else {}
        picture.save(packed, format_, **options)
        return packed.getvalue()

    # --- and what becomes of them

    def changed(self, valid: bytes, largest: int = LIMIT) -> bytes:
        """Return a reading after one to four changes, or something else altogether of about ``largest`` bytes at most."""
        if self.random.random() < 0.05:
            return self.random.choice(_STRANGE)(self)[: largest + 1]
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 4))):
            valid = self.random.choice(_CHANGES)(self, valid)
        return valid[: largest + 1]

    def hostile(self, valid: bytes) -> bytes:
        """Return what somebody may have made of a valid message: bytes, items or values of it changed."""
        chance = self.random.random()
        if chance < 0.35:
            return self.changed(valid)
        if chance < 0.7:
            for _ in range(self.random.choice((1, 1, 1, 2, 3))):
                valid = bend(valid, self.random)
            return valid[: LIMIT + 1]
        return self.regrown(valid)[: LIMIT + 1]

    def regrown(self, valid: bytes) -> bytes:
        """Return well-formed CBOR in which one value became another; also inside byte strings that hold CBOR.

        What is no CBOR is changed as bytes.
        """
        try:
            value = cbor2.loads(b"\x9f" + valid + b"\xff")  # of a sequence, all items
            return b"".join(cbor2.dumps(self._graft(item), canonical=True) for item in value)
        except (cbor2.CBORError, ValueError, TypeError, RecursionError):
            return self.changed(valid)

    def _graft(self, value: object) -> object:
        if self.random.random() < 0.15:
            return self.random.choice(SCIONS)
        if isinstance(value, cbor2.CBORTag):
            return cbor2.CBORTag(value.tag, self._graft(value.value))
        if isinstance(value, list | tuple) and value:
            grafted = list(value)
            at = self.random.randrange(len(grafted))
            grafted[at : at + 1] = self.random.choice(
                ([self._graft(grafted[at])], [self._graft(grafted[at])], [], grafted[at : at + 1] * 2)
            )
            return grafted
        if isinstance(value, Mapping) and value:
            grown = dict(value)
            key = self.random.choice(list(grown))
            last = grown.pop(key)
            if self.random.random() < 0.85:
                grown[key if self.random.random() < 0.9 else self.random.choice((1, -1, b"", "x"))] = self._graft(last)
            return grown
        if isinstance(value, bytes) and value:
            return self.regrown(value) if self.random.random() < 0.8 else self.changed(value)
        return self.random.choice(SCIONS)

    def cut(self, data: bytes) -> tuple[int, int]:
        """Return where a random slice begins and ends."""
        first, last = sorted((self.random.randint(0, len(data)), self.random.randint(0, len(data))))
        return first, last


def _flip(source: Source, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(source.random.randint(1, 4)):
        if changed:
            changed[source.random.randrange(len(changed))] ^= 1 << source.random.randrange(8)
    return bytes(changed)


def _overwrite(source: Source, data: bytes) -> bytes:
    at = source.random.randint(0, len(data))
    token = source.random.choice(TOKENS)
    return data[:at] + token + data[at + len(token) :]


def _insert(source: Source, data: bytes) -> bytes:
    at = source.random.randint(0, len(data))
    return data[:at] + source.random.choice(TOKENS) + data[at:]


def _truncate(source: Source, data: bytes) -> bytes:
    return data[: source.random.randint(0, len(data))]


def _behead(source: Source, data: bytes) -> bytes:
    return data[source.random.randint(0, len(data)) :]


def _remove(source: Source, data: bytes) -> bytes:
    first, last = source.cut(data)
    return data[:first] + data[last:]


def _repeat(source: Source, data: bytes) -> bytes:
    first, last = source.cut(data)
    return data[:last] + data[first:last] * source.random.choice((1, 1, 2, 50)) + data[last:]


def _renumber(source: Source, data: bytes) -> bytes:
    found = list(_NUMBER.finditer(data[:4096]))
    if not found:
        return _insert(source, data)
    one = source.random.choice(found)
    return data[: one.start()] + source.random.choice(TOKENS) + data[one.end() :]


_CHANGES: list[Callable[[Source, bytes], bytes]] = [
    _flip, _flip, _overwrite, _insert, _truncate, _behead, _remove, _repeat, _renumber, _renumber,
]  # fmt: skip


def _nothing(_: Source) -> bytes:
    return b""


def _noise(source: Source) -> bytes:
    return source.random.randbytes(source.random.choice((1, 2, 3, 16, 64, 128, 512, 5000)))


def _one_byte(source: Source) -> bytes:
    return source.random.choice((b"\0", b"\xff", b" ", b"[", b"\x81", b"1")) * source.random.choice((1, 100, 10_000))


def _deep(source: Source) -> bytes:
    levels = source.random.choice((5, 17, 100, 1000, 20_000))
    before, behind = source.random.choice(((b"[", b"]"), (b'{"a1":', b"}"), (b"\x81", b"\0"), (b"\xa1\x61a", b"\0")))
    return before * levels + source.random.choice((b"", b"1")) + behind * levels


def _large(source: Source) -> bytes:
    size = LIMIT + source.random.choice((-1, 0, 1)) if source.random.random() < 0.2 else 60_000
    return source.random.choice(HEAVY)(size)


def _another_format(source: Source) -> bytes:
    return source.reading(source.random.choice(("json", "text", "csv", "cbor", "f32le", "png", "jpeg")), "window")


_STRANGE: list[Callable[[Source], bytes]] = [_nothing, _noise, _noise, _one_byte, _deep, _large, _another_format]
