"""From a message's bytes to rows, in every format, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.board import Calibration
from edged.errors import ConfigError, ReadingError, ReadingFormatError, ReadingShapeError, ReadingValueError
from edged.signal.decode import Decoder
from edged.signal.spec import Input

WINDOW = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
FORMATS = ("json", "text", "csv", "cbor", "f32le")


def decoder(
    format_: str,
    each: Any = "rows",  # noqa: ANN401
    *,
    fields: dict[str, str] | None = None,
    calibrate: dict[str, Calibration] | None = None,
    **rules: Any,
) -> Decoder:
    source = Input(channels=("a", "b", "c"), **rules)
    return Decoder(format_, each, source, size=2, fields=fields or {}, calibrate=calibrate or {}, limit=100_000)


def typed(tag: int, dtype: str, values: npt.NDArray[Any] = WINDOW) -> cbor2.CBORTag:
    return cbor2.CBORTag(tag, values.astype(dtype).tobytes())


def encode(format_: str, rows: npt.NDArray[np.float32]) -> bytes:
    match format_:
        case "json":
            return json.dumps(rows.tolist()).encode()
        case "cbor":
            return cbor2.dumps(typed(85, "<f4", rows))
        case "f32le":
            return rows.astype("<f4").tobytes()
    return "\n".join(",".join(map(repr, row)) for row in rows.tolist()).encode()


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_gives_float32_rows(format_: str) -> None:
    rows = decoder(format_)(encode(format_, WINDOW))

    assert rows.dtype == np.float32
    assert rows.tolist() == WINDOW.tolist()


@given(st.lists(st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 3), min_size=1, max_size=20))
def test_every_format_carries_every_number_exactly(values: list[tuple[float, float, float]]) -> None:
    rows = np.array(values, np.float32)
    for format_ in FORMATS:
        assert decoder(format_)(encode(format_, rows)).tobytes() == rows.tobytes(), format_


@pytest.mark.parametrize(
    "payload",
    [
        b"[[1, 2, 3], [4, 5, 6]]",
        b'[{"a": 1, "b": 2, "c": 3}, {"c": 6, "b": 5, "a": 4, "t": "later"}]',
        b'{"a": [1, 4], "b": [2, 5], "c": [3, 6]}',
    ],
)
def test_json_rows_are_arrays_objects_or_an_array_a_channel(payload: bytes) -> None:
    assert decoder("json")(payload).tolist() == WINDOW.tolist()


def test_json_row_is_an_object_or_an_array() -> None:
    decode = decoder("json", "row")

    assert decode(b'{"c": 3, "b": 2, "a": 1.5}').tolist() == [[1.5, 2, 3]]
    assert decode(b" [1.5, 2, 3]").tolist() == [[1.5, 2, 3]]


def test_json_pointers_follow_rfc_6901() -> None:
    decode = decoder("json", "row", fields={"a": "/vib/x~1y", "b": "/vib/~01", "c": "/list/1"})

    assert decode(b'{"vib": {"x/y": 1, "~1": 2}, "list": [0, 3]}').tolist() == [[1, 2, 3]]


def test_json_pointers_reach_into_an_array_of_rows() -> None:
    decode = decoder("json", fields={"a": "/2", "b": "/1", "c": "/0"})

    assert decode(b"[[3, 2, 1], [6, 5, 4]]").tolist() == WINDOW.tolist()


@pytest.mark.parametrize("pointer", ["", "a", "vib/x", "/a~", "/a~2"])
def test_what_is_no_json_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(ConfigError, match="is no JSON pointer"):
        decoder("json", fields={"a": pointer})


@pytest.mark.parametrize("index", ["01", "-", "-1", "2", "+1", "\u0661", "\u00b2"])
def test_json_pointer_with_another_index_finds_nothing(index: str) -> None:
    decode = decoder("json", "row", fields={"a": f"/v/{index}", "b": "/v/0", "c": "/v/1"})

    with pytest.raises(ReadingValueError, match="lacks a"):
        decode(b'{"v": [1, 2]}')


def test_channel_that_is_named_like_a_pointer_is_found() -> None:
    source = Input(channels=("x/y", "~"))
    decode = Decoder("json", "row", source, size=1, fields={}, calibrate={}, limit=1000)

    assert decode(b'{"x/y": 1, "~": 2}').tolist() == [[1, 2]]


@pytest.mark.parametrize("payload", [b"1 2 3\n4 5 6\n", b"1,2,3,4,5,6", b"1;2;3\r\n4;5;6", b" 1 , 2 , 3\n4\t5 6"])
def test_text_is_separated_by_spaces_commas_or_semicolons(payload: bytes) -> None:
    assert decoder("text")(payload).tolist() == WINDOW.tolist()


@pytest.mark.parametrize(
    "payload",
    [
        b"1,2,3\n4,5,6\n",
        b"1;2;3\r\n4;5;6\r\n",
        b"c,b,a\n3,2,1\n6,5,4",
        b'time,"c","a","b"\n12:00:01,3,1,2\n12:00:02,6,4,5\n',
    ],
)
def test_csv_columns_are_found_by_their_names_where_a_header_gives_them(payload: bytes) -> None:
    assert decoder("csv")(payload).tolist() == WINDOW.tolist()


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"1,2\n3,4,5,6", ReadingShapeError),
        (b"a,b,c\n1,2\n3,4,5,6", ReadingShapeError),
        (b"1,,3\n4,5,6", ReadingFormatError),
        (b"a,b,c,a\n1,2,3,4", ReadingFormatError),
        (b"a,b\n1,2", ReadingShapeError),
        (b"a,b,x\n1,2,3", ReadingFormatError),
        (b"a,b,c\n", ReadingShapeError),
        (b"\n", ReadingShapeError),
    ],
)
def test_csv_value_never_slips_into_another_column(payload: bytes, error: type[ReadingError]) -> None:
    with pytest.raises(error):
        decoder("csv")(payload)


@pytest.mark.parametrize("payload", [b"1,,2,3", b",1,2,3", b"1,2,3,", b"1, ;2,3"])
def test_text_with_nothing_between_two_separators_is_refused(payload: bytes) -> None:
    with pytest.raises(ReadingValueError, match="lacks a number"):
        decoder("text")(payload)


@pytest.mark.parametrize(
    "value",
    [
        WINDOW.tolist(),
        WINDOW.ravel().tolist(),
        [{"a": 1, "b": 2, "c": 3}, {"a": 4, "b": 5, "c": 6}],
        {"a": [1, 4], "b": [2, 5], "c": [3, 6]},
        typed(85, "<f4"),
        typed(86, "<f8"),
        typed(81, ">f4"),
        typed(82, ">f8"),
        cbor2.CBORTag(40, [[2, 3], typed(85, "<f4")]),
        cbor2.CBORTag(40, [[2, 3], typed(82, ">f8")]),
    ],
)
def test_cbor_rows_are_arrays_maps_or_typed_arrays(value: object) -> None:
    assert decoder("cbor")(cbor2.dumps(value)).tolist() == WINDOW.tolist()


def test_cbor_row_is_a_map_or_an_array() -> None:
    assert decoder("cbor", "row")(cbor2.dumps({"a": 1, "b": 2, "c": 3})).tolist() == [[1, 2, 3]]
    assert decoder("cbor", "row")(cbor2.dumps([1, 2, 3])).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("payload", [cbor2.dumps(typed(85, "<f4")), WINDOW.astype("<f4").tobytes()])
def test_float32_arrays_are_not_copied(payload: bytes) -> None:
    rows = decoder("cbor" if payload[:2] == b"\xd8\x55" else "f32le")(payload)

    assert not rows.flags.owndata
    assert not rows.flags.writeable


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ([[True, 2, 3]], ReadingFormatError),
        ([["1", "2", "3"]], ReadingFormatError),
        ([[b"1", 2, 3]], ReadingFormatError),
        ([[None, 2, 3]], ReadingFormatError),
        ([[1, 2, 3], [4, 5]], ReadingShapeError),
        ("1 2 3", ReadingFormatError),
        (typed(84, "<f2"), ReadingFormatError),
        (cbor2.CBORTag(85, "text"), ReadingFormatError),
        (cbor2.CBORTag(40, [[2, 3]]), ReadingFormatError),
        (cbor2.CBORTag(40, [[2, 3], cbor2.CBORTag(40, [[6], typed(85, "<f4")])]), ReadingFormatError),
        (cbor2.CBORTag(40, [[-1, 3], typed(85, "<f4")]), ReadingShapeError),
        (cbor2.CBORTag(40, [[-2, -3], typed(85, "<f4")]), ReadingShapeError),
        (cbor2.CBORTag(40, [[2, 2], typed(85, "<f4")]), ReadingShapeError),
        (cbor2.CBORTag(40, [[3, 2], typed(85, "<f4")]), ReadingShapeError),
        (cbor2.CBORTag(40, [[2**63, 2**63], typed(85, "<f4")]), ReadingShapeError),
        (cbor2.CBORTag(40, ["23", typed(85, "<f4")]), ReadingShapeError),
    ],
)
def test_cbor_that_is_no_array_of_numbers_is_refused(value: object, error: type[ReadingError]) -> None:
    with pytest.raises(error):
        decoder("cbor")(cbor2.dumps(value))


@pytest.mark.parametrize(
    "payload", [b"", b"\xd8", b"\xd8\x55", b"\xd8\x55\x44abc", b"\xd8\x55\x43abc", b"\xff\xff", b"\x9f\xff"]
)
def test_cbor_that_is_cut_short_or_not_strict_is_refused(payload: bytes) -> None:
    with pytest.raises(ReadingFormatError):
        decoder("cbor")(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"hello", b"\x00" * 100, b'{"a": 1', b'{"a": "\xff", "b": 1, "c": 1}', b'{"a": true, "b": 1, "c": 1}',
        b'{"a": "1", "b": 1, "c": 1}', b'{"a": [1], "b": 1, "c": 1}', b'{"a": NaN, "b": 1, "c": 1}',
        b'{"a": 1' + b"0" * 400 + b', "b": 1, "c": 1}', b"[" * 100_000, b'[1, "2", 3]',
    ],
)  # fmt: skip
def test_what_is_not_the_configured_json_is_refused(payload: bytes) -> None:
    with pytest.raises(ReadingFormatError):
        decoder("json", "row")(payload)


@pytest.mark.parametrize(
    ("format_", "payload"),
    [
        ("json", b"[[1e300, 1, 1]]"), ("json", b'[{"a": -1e300, "b": 1, "c": 1}]'), ("text", b"1e300 1 1"),
        ("text", b"nan 1 1"), ("csv", b"inf,1,1"), ("cbor", cbor2.dumps([[1e300, 1, 1]])),
        ("cbor", cbor2.dumps([[float("nan"), 1, 1]])), ("cbor", cbor2.dumps(typed(86, "<f8", np.array([1e300, 1, 1])))),
        ("f32le", np.array([np.inf, -np.inf, 1], "<f4").tobytes()), ("f32le", np.array([1, np.nan, 1], "<f4").tobytes()),
    ],
)  # fmt: skip
def test_value_that_is_not_finite_is_refused_or_replaced(format_: str, payload: bytes) -> None:
    with pytest.raises(ReadingValueError, match="not finite"):
        decoder(format_)(payload)

    rows = decoder(format_, nan=-7.0)(payload)
    assert -7 in rows
    assert np.isfinite(rows).all()


def test_largest_finite_values_are_taken() -> None:
    largest = np.full((2, 3), np.finfo(np.float32).max, "<f4")

    assert decoder("f32le")(largest.tobytes()).tolist() == largest.tolist()


def test_value_out_of_range_is_refused_and_the_bounds_are_not() -> None:
    decode = decoder("json", "row", range=(-1.0, 2.0))

    assert decode(b"[-1, 2, 0]").tolist() == [[-1, 2, 0]]
    for payload in (b"[-1.01, 0, 0]", b"[0, 0, 2.01]"):
        with pytest.raises(ReadingValueError, match=r"outside input\.range, -1\.0 to 2\.0"):
            decode(payload)


def test_calibration_comes_before_the_range() -> None:
    decode = decoder("json", "row", range=(0.0, 10.0), calibrate={"b": Calibration(scale=0.5, offset=1.0)})

    assert decode(b"[1, 18, 3]").tolist() == [[1, 10, 3]]
    with pytest.raises(ReadingValueError):
        decode(b"[1, 19, 3]")


def test_calibration_that_overflows_is_not_finite() -> None:
    with pytest.raises(ReadingValueError, match="not finite"):
        decoder("json", "row", calibrate={"a": Calibration(scale=1e30)})(b"[1e30, 1, 1]")


def test_missing_value_is_refused_by_its_channels_name() -> None:
    decode = decoder("json", "row")

    for payload in (b'{"a": 1, "c": 3}', b'{"a": 1, "b": null, "c": 3}'):
        with pytest.raises(ReadingValueError, match="lacks b"):
            decode(payload)


def test_missing_value_is_filled_with_a_number() -> None:
    assert decoder("json", "row", missing=-1.0)(b'{"a": 1, "c": 3}').tolist() == [[1, -1, 3]]


def test_missing_value_is_held_from_the_row_before() -> None:
    decode = decoder("json", missing="hold", calibrate={"b": Calibration(scale=2.0)})

    assert decode(b'[{"a": 1, "b": 2, "c": 3}, {"a": 4, "c": 6}]').tolist() == [[1, 4, 3], [4, 4, 6]]
    assert decode(b'[{"a": 7, "c": 9}]').tolist() == [[7, 4, 9]]


def test_nothing_is_held_from_a_reading_that_was_refused() -> None:
    decode = decoder("json", "row", missing="hold", range=(-10.0, 10.0))
    decode(b'{"a": 1, "b": 2, "c": 3}')
    with pytest.raises(ReadingValueError):
        decode(b'{"a": 1, "b": 2, "c": 99}')

    assert decode(b'{"a": 1, "b": 2}').tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("rule", ["refuse", "hold", 0.0])
@pytest.mark.parametrize("payload", [b'"hello"', b"5", b"{}", b"null", b'{"x": 1}'])
def test_reading_without_any_channel_is_never_made_up(rule: Any, payload: bytes) -> None:  # noqa: ANN401
    decode = decoder("json", "row", missing=rule)
    decode(b'{"a": 1, "b": 2, "c": 3}')

    with pytest.raises(ReadingValueError, match="none of the model's channels"):
        decode(payload)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(("each", "rows"), [("row", 2), ("window", 1), ("window", 3)])
def test_message_with_another_number_of_rows_is_refused(format_: str, each: str, rows: int) -> None:
    error = ReadingFormatError if (format_, each) == ("json", "row") else ReadingShapeError  # a JSON row is not nested
    with pytest.raises(error):
        decoder(format_, each)(encode(format_, np.ones((rows, 3), np.float32)))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("each", ["row", "rows", "window"])
def test_message_with_other_channels_is_refused(format_: str, each: str) -> None:
    with pytest.raises(ReadingError):
        decoder(format_, each)(encode(format_, np.ones((1, 4), np.float32)))


@given(payload=st.binary(max_size=60))
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("each", ["row", "rows", "window"])
def test_any_bytes_give_finite_rows_or_a_reading_error(format_: str, each: str, payload: bytes) -> None:
    """A message comes from whoever may publish: nothing in it may raise anything else."""
    try:
        rows = decoder(format_, each)(payload)
    except ReadingError:
        return
    assert rows.shape[1] == 3
    assert np.isfinite(rows).all()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)


@given(value=_JSON)
@pytest.mark.parametrize("rule", ["refuse", "hold", 0.0])
@pytest.mark.parametrize("each", ["row", "rows"])
def test_any_json_or_cbor_gives_finite_rows_or_a_reading_error(each: str, rule: Any, value: object) -> None:  # noqa: ANN401
    for format_, payload in (("json", json.dumps(value).encode()), ("cbor", cbor2.dumps(value))):
        try:
            rows = decoder(format_, each, missing=rule)(payload)
        except ReadingError:
            continue
        assert np.isfinite(rows).all()


@pytest.mark.parametrize("format_", FORMATS)
def test_an_error_does_not_repeat_what_was_sent(format_: str) -> None:
    with pytest.raises(ReadingError) as caught:
        decoder(format_, "row")(b'{"a": "secret-4711"}')

    assert "4711" not in f"{caught.value.message}{caught.value.hint}"
