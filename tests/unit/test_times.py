"""When a row was measured: where its time stands, and in what unit."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from edged.base.errors import ConfigError, ReadingFormatError, ReadingValueError
from edged.config.model import Each, ModelConfig, TimeField, TimeUnit
from edged.formats.readings import Format
from edged.formats.spec import Input
from edged.model.reading import Decoder, Layout


def times(
    format_: Format, each: Each, message: bytes, *, at: str = "/t", unit: TimeUnit = "s", **fields: Any
) -> list[float]:
    source = Input(channels=("a", "b"))
    time = TimeField(at=at, unit=unit)
    config = ModelConfig(name="m", channel="c1", topic="t", format=format_, each=each, time=time, **fields)
    decoded = Decoder(Layout.of(config, source, source.channels, limit=10_000))(message)
    assert decoded.times is not None
    assert len(decoded.times) == len(decoded.rows)
    return decoded.times.tolist()


@pytest.mark.parametrize(("unit", "text"), [("s", "1.5"), ("ms", "1500"), ("us", "1500000"), ("ns", "1500000000")])
def test_each_unit_is_seconds_in_the_end(unit: TimeUnit, text: str) -> None:
    assert times("json", "row", f'{{"a": 1, "b": 2, "t": {text}}}'.encode(), unit=unit) == pytest.approx([1.5])


@pytest.mark.parametrize(
    "text", ["2026-11-21T12:00:00Z", "2026-11-21T13:00:00+01:00", "2026-11-21 12:00:00", "20261121T120000Z"]
)
def test_text_is_read_as_rfc_3339_and_as_utc_where_it_names_no_zone(text: str) -> None:
    assert times("json", "row", f'{{"a": 1, "b": 2, "t": "{text}"}}'.encode(), unit="iso") == [1795262400.0]


def test_time_keeps_its_microseconds() -> None:
    """float32 would lose minutes of Unix time."""
    assert times("json", "row", b'{"a": 1, "b": 2, "t": 1795262400.123456}') == [1795262400.123456]


def test_time_stands_where_the_pointer_says_in_every_layout() -> None:
    assert times("json", "rows", b'[{"a": 1, "b": 2, "m": {"t": 1}}, {"a": 3, "b": 4, "m": {"t": 2}}]', at="/m/t") == [
        1,
        2,
    ]
    assert times("json", "rows", b'{"a": [1, 3], "b": [2, 4], "t": [1, 2]}') == [1, 2]
    assert times("cbor", "row", cbor2.dumps({"a": 1.0, "b": 2.0, "t": 7})) == [7]
    assert times("csv", "rows", b"t,a,b\n1,2,3\n4,5,6\n", at="t") == [1, 4]
    assert times("csv", "rows", b"b,when,a\n1,2026-11-21T12:00:00Z,3\n", at="when", unit="iso") == [1795262400.0]


@pytest.mark.parametrize("time", ["true", '"x"', '"5"', "[1]", "{}"])
def test_what_is_no_number_is_refused(time: str) -> None:
    with pytest.raises(ReadingFormatError, match=r"a reading's time is not what model\.time\.unit = 's' says"):
        times("json", "row", f'{{"a": 1, "b": 2, "t": {time}}}'.encode())


@pytest.mark.parametrize("time", ["5", '"yesterday"', '"2026-13-01"', "null"])
def test_what_is_no_date_is_refused(time: str) -> None:
    with pytest.raises((ReadingFormatError, ReadingValueError)):
        times("json", "row", f'{{"a": 1, "b": 2, "t": {time}}}'.encode(), unit="iso")


@pytest.mark.parametrize("message", [b'{"a": 1, "b": 2}', b'{"a": 1, "b": 2, "t": null}'])
def test_a_row_without_its_time_is_refused(message: bytes) -> None:
    with pytest.raises(ReadingValueError, match="a reading lacks its time"):
        times("json", "row", message)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ReadingFormatError, match="an equally long array for each channel"):
        times("json", "rows", b'{"a": [1, 3], "b": [2, 4], "t": [1]}')


@pytest.mark.parametrize("format_", ["text", "f32le", "png"])
def test_a_format_without_a_place_for_times_is_refused_at_start(format_: Format) -> None:
    with pytest.raises(ConfigError, match=f"time: {format_} has no place for it"):
        ModelConfig(name="m", channel="c1", topic="t", format=format_, each="window", time=TimeField(at="/t"))


@pytest.mark.parametrize(("unit", "text"), [("s", "1.8e18"), ("s", "-1e10"), ("ms", "1.8e18"), ("ns", "1e300")])
def test_a_time_in_another_unit_is_refused(unit: TimeUnit, text: str) -> None:
    """Centuries away, a float64 tells no two rows apart, and a window by time would never end."""
    with pytest.raises(
        ReadingFormatError, match=rf"a reading's time is centuries away: is model\.time\.unit = '{unit}'"
    ):
        times("json", "row", f'{{"a": 1, "b": 2, "t": {text}}}'.encode(), unit=unit)
