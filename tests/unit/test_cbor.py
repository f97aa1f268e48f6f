"""The strict decoder: whatever it accepts, cbor2 reads the same; whatever it refuses, it refuses as FormatError."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.base.errors import FormatError
from edged.formats.cose import cbor

INTEGERS = st.integers(-(1 << 64), (1 << 64) - 1)
KEYS = INTEGERS | st.text(max_size=30) | st.binary(max_size=30)
SCALARS = (
    INTEGERS | st.text(max_size=30) | st.binary(max_size=300) | st.booleans() | st.none() | st.floats(allow_nan=False)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
SMALL = cbor.Limits(size=4096, depth=16, items=512)


def test_limits_of_trust_structures_are_the_documented_ones() -> None:
    assert cbor.Limits(size=65_536, depth=16, items=4096) == cbor.TRUST


@given(VALUES)
def test_decode_agrees_with_cbor2(value: object) -> None:
    """Plain data of either encoder comes back as it was, typed as it was."""
    for data in (cbor2.dumps(value), cbor2.dumps(value, canonical=True)):
        decoded = cbor.decode(data)
        assert decoded == value == cbor2.loads(data)
        assert cbor.encode(decoded) == cbor2.dumps(value, canonical=True)


@given(VALUES)
def test_canonical_accepts_its_own_encoding(value: object) -> None:
    data = cbor.encode(value)
    assert cbor.decode_canonical(data) == value


@given(VALUES)
def test_canonical_accepts_nothing_else(value: object) -> None:
    """Two encodings of one value would be two files with one signature's meaning."""
    data = cbor2.dumps(value)
    if data == cbor.encode(value):
        cbor.decode_canonical(data)
    else:
        with pytest.raises(FormatError):
            cbor.decode_canonical(data)


@given(st.binary(max_size=200))
@example(b"\x5b" + b"\xff" * 8)
@example(b"\x9b" + b"\xff" * 8)
@example(b"\xbb" + b"\xff" * 8)
@example(b"\x61\xff")
@example(bytes.fromhex("d81c81d81d00"))
@example(bytes.fromhex("d9010080"))
def test_random_bytes_raise_nothing_but_format_error(data: bytes) -> None:
    for function in (cbor.decode, cbor.decode_canonical, lambda data: cbor.split_sequence(data, SMALL, 4)):
        with suppress(FormatError):
            function(data)


@given(VALUES, st.data())
def test_altered_bytes_raise_nothing_but_format_error(value: object, draw: st.DataObject) -> None:
    """Nearly valid bytes reach further into the decoder than random ones do."""
    data = bytearray(cbor2.dumps(value))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    with suppress(FormatError):
        cbor.decode(bytes(data))


@given(st.binary(max_size=200))
def test_what_is_accepted_is_what_cbor2_reads(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except FormatError:
        return
    assert cbor2.dumps(value, canonical=True) == cbor2.dumps(cbor2.loads(data), canonical=True)


@given(VALUES)
def test_truncated_bytes_are_refused(value: object) -> None:
    data = cbor2.dumps(value)
    for end in range(len(data)):
        with pytest.raises(FormatError):
            cbor.decode(data[:end])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x81" * 60_000 + b"\x00", id="nested"),
        pytest.param(b"\x98\xff" + b"\xd0" * 60_000, id="tags"),
        pytest.param(b"\xbb" + b"\xff" * 8 + b"\x00" * 60_000, id="huge-map"),
        pytest.param(b"\x99\xff\xff" + b"\x80" * 65_000, id="many-items"),
        pytest.param(b"\x59\xf0\x00" + b"\xc2" * 61_440, id="string"),
        pytest.param(b"\x00" * 10_000_000, id="ten-million-zeros"),
    ],
)
def test_hostile_bytes_cost_bounded_time(data: bytes) -> None:
    """The scan stops at a limit before anything is built."""
    begin = time.process_time()
    with suppress(FormatError):
        cbor.decode(data)
    assert time.process_time() - begin < 0.5


def test_text_and_byte_keys_of_one_content_are_two_keys() -> None:
    assert cbor.decode(bytes.fromhex("a2616101416102")) == {"a": 1, b"a": 2}


def test_true_and_one_are_not_merged() -> None:
    """cbor2 makes one entry of the two; here a boolean is no key at all."""
    with pytest.raises(FormatError, match="neither an integer nor a string"):
        cbor.decode(bytes.fromhex("a20101f502"))


def test_maps_inside_tags_are_plain_dicts() -> None:
    value = cbor.decode(bytes.fromhex("d283a10102818243616263a0f6"))
    assert isinstance(value, cbor2.CBORTag)
    assert [type(part) for part in value.value] == [dict, list, type(None)]
    assert type(value.value[1][0]) is list


def test_nan_is_canonical_in_one_form_only() -> None:
    value = cbor.decode_canonical(bytes.fromhex("f97e00"))
    assert isinstance(value, float)
    assert math.isnan(value)
    with pytest.raises(FormatError):
        cbor.decode_canonical(bytes.fromhex("f97e01"))


def test_sequence_items_are_the_bytes_themselves() -> None:
    assert cbor.split_sequence(bytes.fromhex("820102" + "4161" + "a0"), SMALL, 3) == [
        b"\x82\x01\x02",
        b"\x41\x61",
        b"\xa0",
    ]


def test_sequence_of_nothing_is_empty() -> None:
    assert cbor.split_sequence(b"", SMALL, 3) == []


@given(st.integers(0, (1 << 64) - 1))
def test_bytes_head_is_the_shortest(length: int) -> None:
    head = cbor.bytes_head(length)
    assert cbor.read_head(head, 0) == (2, length, len(head))
    assert len(head) == len(cbor2.dumps(length))  # an integer's head is as long as a string's
