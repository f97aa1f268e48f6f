"""What the kernel tells of the board: its temperature, and whether it slows itself down."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_TEMPERATURE = "class/thermal/thermal_zone0/temp"
_THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"
_REASONS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of the Raspberry Pi firmware's answer (vcgencmd get_throttled): what holds now."""


def temperature(sys: Path = Path("/sys")) -> float | None:
    """Return the temperature of the first thermal zone in degrees Celsius, where there is one."""
    with suppress(OSError, ValueError):
        return int((sys / _TEMPERATURE).read_text()) / 1000
    return None


def throttled(sys: Path = Path("/sys")) -> list[str]:
    """Return why a Raspberry Pi runs slower than it could; nothing where it does not, or does not tell."""
    with suppress(OSError, ValueError):
        bits = int((sys / _THROTTLED).read_text(), 16)
        return [reason for bit, reason in _REASONS.items() if bits >> bit & 1]
    return []
