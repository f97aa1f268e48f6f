"""Durations, sizes and rates as people write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import ConfigError
from edged.base.units import parse_duration, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("50 ms", 0.05), ("50ms", 0.05), ("250 us", 250e-6), ("250 µs", 250e-6), ("10 s", 10), ("1.5 s", 1.5),
        ("5 min", 300), ("24h", 86_400), ("7 d", 604_800), (" 7 d ", 604_800),
    ],
)  # fmt: skip
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1 B", 1), ("64 MB", 64_000_000), ("64MB", 64_000_000), ("1.5 kB", 1500), ("2 GB", 2 * 10**9),
        ("1 KiB", 1024), ("1 MiB", 2**20), ("3 GiB", 3 * 2**30),
    ],
)  # fmt: skip
def test_size_is_a_whole_number_of_bytes(text: str, size: int) -> None:
    parsed = parse_size(text)

    assert (parsed, type(parsed)) == (size, int)


@pytest.mark.parametrize(("text", "hertz"), [("50 Hz", 50), ("1 kHz", 1000), ("0.5 Hz", 0.5), ("2 MHz", 2e6)])
def test_rate(text: str, hertz: float) -> None:
    assert parse_rate(text) == hertz


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "10", "s", "10 seconds", "10  s", "10 S", "10 M", "-1 s", "+1 s", "0 s", "0.0 s", "1e3 s", "1. s", ".5 s",
        "1,5 s", "nan s", "inf s", "1 s 5 ms", "10 s\n10 s", "\u0661 s", "9" * 16 + " s", "10 MB", "10 Hz",
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_the_units_that_are_known(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_duration(text)

    assert caught.value.message == f"{text!r} is not a duration"
    assert caught.value.hint == "a number above 0 and one of us, µs, ms, s, min, h, d"


@pytest.mark.parametrize("text", ["64", "64 mb", "64 Mb", "64 KB", "64 kb", "0 MB", "1 s"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a size") as caught:
        parse_size(text)

    assert caught.value.hint == "a number above 0 and one of B, kB, MB, GB, KiB, MiB, GiB"


def test_a_size_below_one_byte_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not a size"):
        parse_size("0.4 B")


@pytest.mark.parametrize("text", ["50", "50 hz", "50 KHz", "0 Hz", "50 ms"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a rate"):
        parse_rate(text)


@given(st.text(max_size=30))
def test_any_text_is_a_duration_above_0_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_duration(text) > 0
