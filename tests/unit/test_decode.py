"""Readings: each format as the board's file names it, and every message that does not fit is refused, never guessed at."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_args

import cbor2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edged.base.errors import (
    ConfigError,
    EdgedError,
    ReadingError,
    ReadingFormatError,
    ReadingShapeError,
    ReadingValueError,
)
from edged.config.model import Calibration, Each, ModelConfig
from edged.formats import readings
from edged.formats.readings import Format
from edged.formats.spec import Input
from edged.model.reading import CODECS, Decoder, Layout, encode_reading
from edged.model.signal.rows import Cleaner

FORMATS = ("json", "text", "csv", "cbor", "f32le")
NAMES = ("a1", "a2", "a3")
NAN, INFINITY = float("nan"), float("inf")


class Chained:
    """A decoder and what the manifest says of values, as a lane has them behind each other."""

    def __init__(self, layout: Layout, source: Input) -> None:
        self._decode, self._clean = Decoder(layout), Cleaner(source)

    def __call__(self, payload: bytes) -> npt.NDArray[np.float32]:
        rows = self._clean(self._decode(payload).rows)
        self._decode.keep()
        return rows


def decoder(
    format_: Format,
    each: Each = "row",
    *,
    names: tuple[str, ...] = NAMES,
    limit: int = 100_000,
    **other: Any,
) -> Chained:
    site = {key: other.pop(key) for key in ("fields", "calibrate", "time", "image") if key in other}
    source = Input(channels=names, **other)
    config = ModelConfig(name="m", channel="c1", topic="t", format=format_, each=each, **site)
    return Chained(Layout.of(config, source, names, limit), source)


def rows(*values: list[float]) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def tag(number: int, array: npt.NDArray[Any]) -> cbor2.CBORTag:
    return cbor2.CBORTag(number, array.tobytes())


ROW = rows([0.5, -2.0, 3.0])
WINDOW = rows([0.5, -2.0, 3.0], [4.0, 5.0, -0.25])
OBJECTS = [dict(zip(NAMES, row, strict=True)) for row in WINDOW.tolist()]
COLUMNS = dict(zip(NAMES, WINDOW.T.tolist(), strict=True))


# --- what is taken ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "message"),
    [
        ("json", b'{"a1": 0.5, "a2": -2, "a3": 3.0}'),
        ("json", b' {"a3": 3e0, "other": "text", "a2": -2.0, "a1": 0.5}\n'),
        ("json", b"[0.5, -2, 3]"),
        ("json", b"\n [0.5, -2, 3]"),
        ("text", b"0.5 -2 3"),
        ("text", b" 0.5\t-2.0\r\n3e0\n"),
        ("text", b"0.5, -2, 3"),
        ("text", b"0.5;-2;3"),
        ("csv", b"0.5,-2,3"),
        ("csv", b"0.5; -2; 3\r\n"),
        ("csv", b"a1,a2,a3\n0.5,-2,3\n"),
        ("csv", b'the_time;"a3";a1;a2\n2026_11_21;3;0.5;-2\n'),
        ("cbor", cbor2.dumps({"a1": 0.5, "a2": -2, "a3": 3.0, "other": "text"})),
        ("cbor", cbor2.dumps([0.5, -2, 3])),
        ("cbor", cbor2.dumps(tag(85, ROW.astype("<f4")))),
        ("cbor", cbor2.dumps(tag(81, ROW.astype(">f4")))),
        ("cbor", cbor2.dumps(tag(86, ROW.astype("<f8")))),
        ("cbor", cbor2.dumps(tag(82, ROW.astype(">f8")))),
        ("cbor", cbor2.dumps(cbor2.CBORTag(40, [[1, 3], tag(85, ROW)]))),
        ("f32le", ROW.astype("<f4").tobytes()),
    ],
)
def test_row(format_: str, message: bytes) -> None:
    decoded = decoder(format_)(message)

    assert (decoded.dtype, decoded.tolist()) == (np.float32, ROW.tolist())


@pytest.mark.parametrize(
    ("format_", "message"),
    [
        ("json", json.dumps(OBJECTS).encode()),
        ("json", json.dumps(COLUMNS).encode()),
        ("json", json.dumps(WINDOW.tolist()).encode()),
        ("text", b"0.5 -2 3\n4 5 -.25"),
        ("text", b"0.5 -2 3 4 5 -.25"),
        ("csv", b"0.5,-2,3\n4,5,-.25\n\n"),
        ("csv", b"a2,a1,a3\n-2,0.5,3\n5,4,-.25\n"),
        ("cbor", cbor2.dumps(OBJECTS)),
        ("cbor", cbor2.dumps(COLUMNS)),
        ("cbor", cbor2.dumps(WINDOW.tolist())),
        ("cbor", cbor2.dumps(tag(85, WINDOW))),
        ("cbor", cbor2.dumps(cbor2.CBORTag(40, [[2, 3], tag(85, WINDOW)]))),
        ("cbor", cbor2.dumps(cbor2.CBORTag(40, [[2, 3], tag(82, WINDOW.astype(">f8"))]))),
        ("f32le", WINDOW.astype("<f4").tobytes()),
    ],
)
@pytest.mark.parametrize("each", ["rows", "window"])
def test_several_rows(format_: str, message: bytes, each: str) -> None:
    assert decoder(format_, each)(message).tolist() == WINDOW.tolist()


@pytest.mark.parametrize("format_", FORMATS)
@given(
    values=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.just(3)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False),
    )
)
def test_what_edged_send_encodes_comes_back_as_it_was(format_: str, values: npt.NDArray[np.float32]) -> None:
    for names in (None, NAMES):
        assert decoder(format_, "rows")(encode_reading(values, format_, names)).tolist() == values.tolist()
        assert decoder(format_)(encode_reading(values[0], format_, names)).tolist() == values[:1].tolist()


def test_one_channel() -> None:
    for format_, message in {
        "json": b'{"a1": 1}', "text": b"1", "csv": b"1", "f32le": np.float32(1).tobytes(), "cbor": cbor2.dumps([1])
    }.items():  # fmt: skip
        assert decoder(format_, names=("a1",))(message).tolist() == [[1.0]]
    assert decoder("json", "window", names=("a1",))(b"[[1], [2]]").tolist() == [[1.0], [2.0]]
    assert decoder("json", "window", names=("a1",))(b'{"a1": [1, 2]}').tolist() == [[1.0], [2.0]]


# --- fields ----------------------------------------------------------------------------------


def test_fields_say_where_a_channel_stands() -> None:
    fields = {"a1": "/vib/x/0", "a2": "/a~1b", "a3": "/m~0n/v"}
    message = {"vib": {"x": [0.5, 9]}, "a/b": -2, "m~n": {"v": 3}}

    assert decoder("json", fields=fields)(json.dumps(message).encode()).tolist() == ROW.tolist()
    assert decoder("cbor", fields=fields)(cbor2.dumps(message)).tolist() == ROW.tolist()
    assert decoder("json", "rows", fields=fields)(json.dumps([message] * 2).encode()).tolist() == [*ROW.tolist()] * 2


def test_a_channel_without_a_field_stands_under_its_own_name() -> None:
    odd = ("a/1", "a~2", "")
    message = dict(zip(odd, ROW[0].tolist(), strict=True))

    assert decoder("json", names=odd)(json.dumps(message).encode()).tolist() == ROW.tolist()
    assert decoder("json", names=odd, fields={"": "/z"})(json.dumps({**message, "z": 7}).encode()).tolist() == [
        [0.5, -2, 7]
    ]


def test_columns_by_fields() -> None:
    message = {"vib": {"x": [0.5, 4], "y": [-2, 5], "z": [3, -0.25]}}
    fields = {"a1": "/vib/x", "a2": "/vib/y", "a3": "/vib/z"}

    assert decoder("json", "window", fields=fields)(json.dumps(message).encode()).tolist() == WINDOW.tolist()


@pytest.mark.parametrize("pointer", ["", "vib", "vib/x", "/a~", "/a~2"])
def test_what_is_no_pointer_is_refused_at_start(pointer: str) -> None:
    with pytest.raises(ConfigError, match="is no JSON pointer") as caught:
        decoder("json", fields={"a1": pointer})
    assert caught.value.hint is not None
    assert '"/vib/x1"' in caught.value.hint


@pytest.mark.parametrize("message", [{"vib": 1}, {"vib": [1]}, {"vib": {"x": None}}, {"vib": "xx"}, [], 1, None, "vib"])
def test_a_pointer_to_nothing_is_a_missing_value(message: object) -> None:
    with pytest.raises(ReadingValueError, match="a reading holds none of the model's channels"):
        decoder("json", names=("a1",), fields={"a1": "/vib/x"})(json.dumps(message).encode())


# --- what is missing -------------------------------------------------------------------------


@pytest.mark.parametrize("message", [b'{"a1": 1, "a3": 3}', b'{"a1": 1, "a2": null, "a3": 3}'])
def test_a_missing_value(message: bytes) -> None:
    with pytest.raises(ReadingValueError, match="a reading lacks a2"):
        decoder("json")(message)
    assert decoder("json", missing=-1.5)(message).tolist() == [[1, -1.5, 3]]
    held = decoder("json", missing="hold")
    with pytest.raises(ReadingValueError, match="a reading lacks a2"):
        held(message)
    held(b'{"a1": 7, "a2": 8, "a3": 9}')
    assert held(message).tolist() == [[1, 8, 3]]
    assert held(b'{"a1": 5}').tolist() == [[5, 8, 3]]


def test_a_value_is_held_from_row_to_row_within_a_message() -> None:
    held = decoder("json", "rows", missing="hold")

    assert held(b'[{"a1": 1, "a2": 2, "a3": 3}, {"a1": 4}, {"a2": 5}]').tolist() == [[1, 2, 3], [4, 2, 3], [4, 5, 3]]
    assert held(b'[{"a3": 6}]').tolist() == [[4, 5, 6]]


def test_a_refused_reading_is_not_held() -> None:
    held = decoder("json", missing="hold", range=(0.0, 10.0))
    held(b'{"a1": 1, "a2": 2, "a3": 3}')
    with pytest.raises(ReadingValueError):
        held(b'{"a1": 1, "a2": 99, "a3": 3}')

    assert held(b'{"a1": 4}').tolist() == [[4, 2, 3]]


def test_what_is_held_is_calibrated_once() -> None:
    held = decoder("json", missing="hold", calibrate={"a2": Calibration(scale=2.0, offset=1.0)})

    assert held(b'{"a1": 1, "a2": 2, "a3": 3}').tolist() == [[1, 5, 3]]
    assert held(b'{"a1": 1}').tolist() == [[1, 5, 3]]
    assert held(b'{"a1": 1}').tolist() == [[1, 5, 3]]


@pytest.mark.parametrize("missing", ["refuse", "hold", 0.0])
def test_an_object_of_something_else_is_not_taken_for_missing_values(missing: object) -> None:
    for message in (b"{}", b'{"temperature": 20}', b'{"a1": null, "a2": null, "a3": null}'):
        with pytest.raises(ReadingValueError, match="a reading holds none of the model's channels"):
            decoder("json", missing=missing)(message)


# --- calibration, not finite, range -------------------------------------------------------------


def test_calibration_comes_first() -> None:
    calibrate = {"a1": Calibration(scale=2.0), "a3": Calibration(scale=-1.0, offset=0.5)}
    message = json.dumps(ROW[0].tolist()).encode()

    assert decoder("json", calibrate=calibrate)(message).tolist() == [[1.0, -2.0, -2.5]]
    assert decoder("json", calibrate=calibrate, range=(-2.5, 1.0))(message).tolist() == [[1.0, -2.0, -2.5]]
    with pytest.raises(ReadingValueError, match=r"outside input.range, -2.0 to 1.0"):
        decoder("json", calibrate=calibrate, range=(-2.0, 1.0))(message)


@pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("format_", ["text", "csv", "cbor", "f32le"])
def test_a_value_that_is_not_finite(format_: str, bad: float) -> None:
    values = WINDOW.copy()
    values[1, 2] = bad
    message = encode_reading(values, format_, None)

    with pytest.raises(ReadingValueError, match="not finite"):
        decoder(format_, "rows")(message)
    assert decoder(format_, "rows", nan=-7.0)(message).tolist() == [WINDOW[0].tolist(), [4.0, 5.0, -7.0]]
    with pytest.raises(ReadingValueError, match=r"input.range"):
        decoder(format_, "rows", nan=-7.0, range=(-5.0, 5.0))(message)


@pytest.mark.parametrize("message", [b"[NaN, 1, 2]", b'{"a1": Infinity}', b"[-Infinity, 1, 2]", b'["1", 2, 3]'])
def test_json_has_no_such_values(message: bytes) -> None:
    with pytest.raises(ReadingFormatError, match="not the JSON that is configured"):
        decoder("json", nan=0.0)(message)


@pytest.mark.parametrize("message", [b"[1e39, 1, 2]", b'{"a1": 1e39, "a2": 1, "a3": 2}'])
def test_what_is_too_large_for_float32_is_not_finite(message: bytes) -> None:
    with pytest.raises(ReadingValueError, match="not finite"):
        decoder("json")(message)
    with pytest.raises(ReadingValueError, match="not finite"):
        decoder("cbor")(cbor2.dumps(tag(86, np.array([1e39, 1, 2], "<f8"))))
    with pytest.raises(ReadingValueError, match="not finite"):
        decoder("f32le", calibrate={"a1": Calibration(scale=1e38)})(rows([1e3, 0, 0]).tobytes())


def test_the_bounds_of_the_range_are_inside() -> None:
    bounded = decoder("text", range=(-2.0, 3.0))

    assert bounded(b"0.5 -2 3").tolist() == ROW.tolist()
    for message in (b"0.5 -2.001 3", b"0.5 -2 3.001"):
        with pytest.raises(ReadingValueError, match=r"a reading holds a value outside input.range, -2.0 to 3.0"):
            bounded(message)


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "message"),
    [
        *((format_, b"\x00" * 4096) for format_ in ("json", "text", "csv")),
        *((format_, b"hello, world, this") for format_ in ("json", "text", "csv")),
        ("json", b""), ("json", b" "), ("json", b"[1, 2, 3"), ("json", b"[1, 2, 3] 4"), ("json", b"\xff\xfe"), ("json", b'{"\xff": 1}'),
        ("json", b'{"a1": "1", "a2": 2, "a3": 3}'), ("json", b'{"a1": true, "a2": 2, "a3": 3}'), ("json", b'{"a1": [1], "a2": 2, "a3": 3}'),
        ("json", b"[true, 2, 3]"), ("json", b"[null, 2, 3]"), ("json", b"[[1, 2, 3]]"), ("json", b"[" * 100_000),
        ("json", b'{"a1": ' + b"9" * 5000 + b', "a2": 2, "a3": 3}'),
        ("text", b"1 2 x"), ("text", b"1,2,0x3"), ("text", b"1_0 2 3"), ("text", b"1\x00 2 3"), ("csv", b"1_0,2,3"), ("csv", b"1\x00,2,3"), ("csv", b"a1,a2,a3,a1\n1,2,3,4"),
        ("csv", b"1,2,x"), ("csv", b"a1,a2\n1,2"),
        ("cbor", b""), ("cbor", b"\xff"), ("cbor", b"hello"), ("cbor", cbor2.dumps([1, 2, 3]) + b"\x00"), ("cbor", cbor2.dumps("1 2 3")),
        ("cbor", cbor2.dumps(1)), ("cbor", cbor2.dumps(None)), ("cbor", cbor2.dumps([True, 2, 3])), ("cbor", cbor2.dumps(["1", 2, 3])),
        ("cbor", b"\x9f\x01\x02\x03\xff"), ("cbor", b"\xa2\x62a1\x01\x62a1\x02"), ("cbor", cbor2.dumps({"a1": 1, "a2": [2], "a3": 3})),
        ("cbor", cbor2.dumps(cbor2.CBORTag(84, b"\0" * 6))), ("cbor", cbor2.dumps(cbor2.CBORTag(64, b"\0" * 3))),
        ("cbor", cbor2.dumps(cbor2.CBORTag(85, [1, 2, 3]))), ("cbor", cbor2.dumps(cbor2.CBORTag(85, b"\0" * 13))), ("cbor", b"\xd8\x55\x4d" + b"\0" * 13),
        ("cbor", b"\xd8\x55"), ("cbor", b"\xd8\x55\x4c\0"), ("cbor", cbor2.dumps(tag(85, ROW)) + b"\0"),
        ("cbor", cbor2.dumps(cbor2.CBORTag(40, tag(85, ROW)))), ("cbor", cbor2.dumps(cbor2.CBORTag(40, [[1, 3]]))),
        ("cbor", cbor2.dumps(cbor2.CBORTag(40, [[1, 3], [1, 2, 3]]))), ("cbor", cbor2.dumps(cbor2.CBORTag(40, [[3], cbor2.CBORTag(40, [[3], tag(85, ROW)])]))),
        ("f32le", b"\0" * 11), ("f32le", b"\0"),
    ],
)  # fmt: skip
def test_what_is_not_the_configured_format_is_refused(format_: str, message: bytes) -> None:
    with pytest.raises((ReadingFormatError, ReadingShapeError)) as caught:
        decoder(format_)(message)
    assert "hello" not in caught.value.message  # a message's content stays out of the log


@pytest.mark.parametrize(
    ("format_", "each", "message"),
    [
        ("json", "row", b"[]"), ("json", "row", b"[1, 2]"), ("json", "row", b"[1, 2, 3, 4]"), ("json", "row", b"[1, 2, 3, 4, 5, 6]"),
        ("json", "rows", b"[]"), ("json", "rows", b"[[]]"), ("json", "rows", b"[[1, 2]]"), ("json", "rows", b"[[1, 2, 3], [4]]"),
        ("json", "rows", b"[[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]]"),
        ("text", "row", b""), ("text", "row", b"1 2"), ("text", "row", b"1 2 3 4 5 6"), ("text", "rows", b"1 2 3 4"),
        ("csv", "row", b""), ("csv", "row", b"1,2"), ("csv", "rows", b"1,2,3\n4,5"), ("csv", "rows", b"1,2,3,4,5,6"), ("csv", "row", b"a1,a2,a3"),
        ("csv", "row", b"1,2,3\n4,5,6"),
        ("cbor", "row", cbor2.dumps([])), ("cbor", "row", cbor2.dumps([1, 2])), ("cbor", "rows", cbor2.dumps([[1, 2, 3], [4]])),
        ("cbor", "row", cbor2.dumps(tag(85, WINDOW))), ("cbor", "row", cbor2.dumps(cbor2.CBORTag(85, b""))),
        ("cbor", "rows", cbor2.dumps(cbor2.CBORTag(40, [[3, 2], tag(85, WINDOW)]))), ("cbor", "rows", cbor2.dumps(cbor2.CBORTag(40, [[2, 4], tag(85, WINDOW)]))),
        ("cbor", "rows", cbor2.dumps(cbor2.CBORTag(40, [[-1, 3], tag(85, WINDOW)]))), ("cbor", "rows", cbor2.dumps(cbor2.CBORTag(40, [["2", 3], tag(85, WINDOW)]))),
        ("cbor", "rows", cbor2.dumps(cbor2.CBORTag(40, [[], tag(85, WINDOW)]))), ("cbor", "rows", cbor2.dumps(cbor2.CBORTag(40, [3, tag(85, WINDOW)]))),
        ("f32le", "row", b""), ("f32le", "row", b"\0" * 8), ("f32le", "row", b"\0" * 24), ("f32le", "rows", b"\0" * 16),
        ("f32le", "row", b"\0" * 12_000_000),
    ],
)  # fmt: skip
def test_another_shape_is_refused(format_: str, each: str, message: bytes) -> None:
    with pytest.raises(ReadingShapeError):
        decoder(format_, each)(message)


@pytest.mark.parametrize("message", [b"1,,3", b",1,2,3", b"1,2,3,", b"1;;3", b"1, ,3"])
@pytest.mark.parametrize("format_", ["text", "csv"])
def test_an_empty_place_is_no_number(format_: str, message: bytes) -> None:
    with pytest.raises(ReadingError):
        decoder(format_)(message)


def test_columns_of_different_length_are_refused() -> None:
    for message in ({"a1": [1, 2], "a2": [1, 2], "a3": [1]}, {"a1": [1], "a2": [1]}, {"a1": 1, "a2": 2, "a3": 3}):
        with pytest.raises(ReadingFormatError, match="equally long array for each channel"):
            decoder("json", "rows")(json.dumps(message).encode())


def test_a_shape_names_both_sizes() -> None:
    for each, message, said in (
        ("row", b"1 2 3 4", "a reading has 4 values, which is no number of rows of 3"),
        ("row", b"1 2 3 4 5 6", "a reading has 2 rows, and `each` says that it has one"),
    ):
        with pytest.raises(ReadingShapeError) as caught:
            decoder("text", each)(message)
        assert caught.value.message == said
    with pytest.raises(ReadingShapeError, match="a reading has rows of 2 values, not of 3"):
        decoder("json", "rows")(b"[[1, 2], [3, 4], [5, 6]]")


def test_cbor_is_bounded() -> None:
    with pytest.raises(ReadingFormatError, match="10 allowed"):
        decoder("cbor", limit=10)(cbor2.dumps([1.5, 2.5, 3.5]))
    with pytest.raises(ReadingFormatError, match="nested"):
        decoder("cbor")(b"\x81" * 100 + b"\x01")
    with pytest.raises(ReadingFormatError, match="more than 300000 items"):
        decoder("cbor", "rows", limit=1_000_000)(b"\x9a" + (900_000).to_bytes(4, "big") + b"\x80" * 900_000)


def test_a_signalling_nan_is_a_nan_and_no_warning() -> None:
    for message in (b"\xd8\x52\x58\x18", b"\x83\xfb"):
        doubles = (b"\xfb" if message[0] == 0x83 else b"").join([b"\x7f\xf2" + b"\0" * 6] * 3)
        with pytest.raises(ReadingValueError, match="not finite"):
            decoder("cbor")(message + doubles)


@pytest.mark.parametrize("each", ["row", "rows", "window"])
@pytest.mark.parametrize("format_", FORMATS)
@given(message=st.binary(max_size=64) | st.text(alphabet='0123456789.,;-+eE[]{}":a \nnul', max_size=40).map(str.encode))
def test_any_bytes_are_finite_rows_or_refused(format_: str, each: str, message: bytes) -> None:
    try:
        decoded = decoder(format_, each, missing="hold")(message)
    except ReadingError:
        return
    assert decoded.shape[1] == 3
    assert len(decoded) > 0
    assert np.isfinite(decoded).all()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*NAMES, "x"]), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("each", ["row", "rows", "window"])
@pytest.mark.parametrize(
    ("format_", "dump"), [("json", lambda value: json.dumps(value).encode()), ("cbor", cbor2.dumps)]
)
@given(value=JSON)
def test_any_value_is_finite_rows_or_refused(
    format_: str, dump: Callable[[object], bytes], each: str, value: object
) -> None:
    for rule in ("refuse", "hold", 0.0):
        try:
            decoded = decoder(format_, each, missing=rule)(dump(value))
        except EdgedError as error:
            assert isinstance(error, ReadingError)  # noqa: PT017  others would end the daemon
        else:
            assert np.isfinite(decoded).all()


def test_every_format_has_a_row_and_a_codec() -> None:
    assert set(get_args(Format)) == set(readings.FORMATS) == set(CODECS)
    assert [name for name, row in readings.FORMATS.items() if row.is_picture] == [
        name for name, codec in CODECS.items() if codec.encode is None
    ]
