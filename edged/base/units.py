"""Durations, sizes and rates as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable

from edged.base.errors import ConfigError

_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([A-Za-zµ]+)")

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_HERTZ = {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6}


def parse_duration(text: str) -> float:
    """Return seconds: "50 ms", "10 s", "24h", "7 d".

    :raises ConfigError: it is no duration.
    """
    return _parse(text, "a duration", _SECONDS)


def parse_size(text: str) -> int:
    """Return bytes: "64 MB" (10^6), "1 MiB" (2^20).

    :raises ConfigError: it is no size.
    """
    return round(_parse(text, "a size", _BYTES, least=1.0))


def parse_rate(text: str) -> float:
    """Return hertz: "50 Hz", "1 kHz".

    :raises ConfigError: it is no rate.
    """
    return _parse(text, "a rate", _HERTZ)


def check_quantity(key: str, parse: Callable[[str], float], text: str) -> None:
    """Refuse ``text`` with the name of its key if ``parse`` does.

    :raises ConfigError: so it does.
    """
    try:
        parse(text)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error.message}", hint=error.hint) from error


def _parse(text: str, what: str, units: dict[str, float] | dict[str, int], *, least: float = 0.0) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    quantity = float(match[1]) * units[match[2]] if match and match[2] in units else 0.0
    if not quantity or quantity < least:
        raise ConfigError(f"{text!r} is not {what}", hint=f"a number above 0 and one of {', '.join(units)}")
    return quantity
