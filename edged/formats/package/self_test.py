"""The self-test part of a package: windows and the scores that the publisher's runtime answered to them.

Deterministic CBOR of typed arrays (RFC 8746, section 2.1), read without a copy: decrypted bytes stay where they are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

import cbor2

from edged.base.errors import FormatError
from edged.formats.cose import cbor
from edged.formats.spec import Chain

MOST_CASES = 64
SELF_TEST_LIMIT = 4 * 1024 * 1024
"""Bytes of a self-test before it is sealed."""

FLOAT32 = 85
ARRAYS = {64: "B", 69: "<H", 70: "<I", 72: "b", 77: "<h", 78: "<i", FLOAT32: "<f"}
"""Tags of typed arrays, and what each of their values is in the words of :mod:`struct`."""

_MANTISSA = 1 << 24
_BYTES, _ARRAY, _TAG, _SIMPLE = 2, 4, 6, 7
_FLOAT_HEADS = {3: ">e", 5: ">f", 9: ">d"}


class TypedArray(NamedTuple):
    """Numbers as they are encoded.

    :ivar tag: a key of :data:`ARRAYS`.
    """

    tag: int
    data: bytes | memoryview

    def __len__(self) -> int:
        return len(self.data) // struct.calcsize(ARRAYS[self.tag])

    def check(self) -> None:
        """Check that these are whole values, and each is exact in float32.

        :raises FormatError: they are not.
        """
        form = ARRAYS[self.tag]
        if not self.data or len(self.data) % struct.calcsize(form):
            raise FormatError("an array of the self-test is empty, or not of whole values")
        if form in ("<I", "<i"):
            for (value,) in struct.iter_unpack(form, self.data):
                if abs(value) > _MANTISSA and abs(value) // (value & -value) >= _MANTISSA:
                    raise FormatError(f"the self-test holds {value}, which float32 does not hold exactly")


class SelfTestCase(NamedTuple):
    """One window, flat and row by row, and the model's answer to it: float32, one value an output."""

    window: TypedArray
    scores: TypedArray


class SelfTest(NamedTuple):
    """Known answers.

    :ivar tolerance: how far a score may lie from the signed one, as a share of the spread of the signed ones.
    """

    tolerance: float
    cases: tuple[SelfTestCase, ...]

    def encode(self) -> bytes:
        """Return the deterministic CBOR that gets sealed."""
        cases = [
            {name: cbor2.CBORTag(array.tag, bytes(array.data)) for name, array in case._asdict().items()}
            for case in self.cases
        ]
        return cbor.encode({"tolerance": self.tolerance, "cases": cases})

    @classmethod
    def parse(cls, data: memoryview, chain: Chain) -> SelfTest:
        """Take the decrypted part; its arrays are views of ``data``.

        :param chain: the manifest's, whose windows these must be.
        :raises FormatError: it is anything else.
        """
        if len(data) > SELF_TEST_LIMIT:
            raise FormatError(f"the self-test is {len(data)} bytes long, more than the {SELF_TEST_LIMIT} allowed")
        reader = _Reader(data)
        reader.expect(b"\xa2\x65cases")
        cases = tuple(reader.cases())
        reader.expect(b"\x69tolerance")
        test = cls(reader.float(), cases)
        reader.end()
        test.check(chain)
        return test

    def check(self, chain: Chain) -> None:
        """Check that windows and scores fit ``chain``.

        :raises FormatError: they do not.
        """
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise FormatError("the tolerance of the self-test is not a number from 0")
        channels, rows = len(chain.input.channels), chain.rows
        for window, scores in self.cases:
            window.check()
            scores.check()
            if len(window) % channels or rows not in (None, len(window) // channels):
                size = "some" if rows is None else rows
                raise FormatError(f"a window of the self-test is not {size} rows of {channels} values")
            if scores.tag != FLOAT32 or len(scores) != len(self.cases[0].scores):
                raise FormatError("the scores of the self-test are not as many float32 in each case")


class _Reader:
    """Reads what :meth:`SelfTest.encode` writes, and no other encoding of it."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def expect(self, head: bytes) -> None:
        end = self._at + len(head)
        if self._data[self._at : end] != head:
            raise FormatError("the self-test is not {cases, tolerance} in deterministic CBOR")
        self._at = end

    def cases(self) -> Iterator[SelfTestCase]:
        count = self._head(_ARRAY)
        if not 0 < count <= MOST_CASES:
            raise FormatError(f"the self-test is not 1 to {MOST_CASES} cases")
        for _ in range(count):
            self.expect(b"\xa2\x66scores")
            scores = self._array()
            self.expect(b"\x66window")
            yield SelfTestCase(self._array(), scores)

    def _array(self) -> TypedArray:
        tag = self._head(_TAG)
        if tag not in ARRAYS:
            raise FormatError(f"tag {tag} is no typed array of the self-test")
        size = self._head(_BYTES)
        data = self._data[self._at : self._at + size]
        if len(data) != size:
            raise FormatError("the self-test ends inside an array")
        self._at += size
        return TypedArray(tag, data)

    def _head(self, wanted: int) -> int:
        major, argument, behind = cbor.read_head(self._data, self._at)
        if major != wanted or behind - self._at != len(cbor.bytes_head(argument)):
            raise FormatError("the self-test holds something else than cases of two arrays, in deterministic CBOR")
        self._at = behind
        return argument

    def float(self) -> float:
        major, _, behind = cbor.read_head(self._data, self._at)
        form = _FLOAT_HEADS.get(behind - self._at)
        if major != _SIMPLE or form is None:
            raise FormatError("the tolerance of the self-test is not a float")
        (value,) = struct.unpack(form, self._data[self._at + 1 : behind])
        if cbor.encode(value) != self._data[self._at : behind]:
            raise FormatError("the tolerance of the self-test is not in deterministic encoding")
        self._at = behind
        return float(value)

    def end(self) -> None:
        if self._at != len(self._data):
            raise FormatError("the self-test has bytes behind its end")
