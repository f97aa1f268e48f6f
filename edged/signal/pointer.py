"""JSON pointers (RFC 6901), compiled once for each channel."""

from __future__ import annotations

from collections.abc import Callable

from edged.errors import ConfigError


def compile_pointer(pointer: str) -> Callable[[object], object]:
    """Return a function that finds what ``pointer`` points at, or None where nothing stands there.

    :raises ConfigError: it is no JSON pointer.
    """
    if not pointer.startswith("/"):
        raise ConfigError(f"{pointer!r} is no JSON pointer", hint='it begins with a slash: "/vib/x1"')
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/")]
    if len(steps) == 1:
        only = steps[0]
        return lambda value: value.get(only) if isinstance(value, dict) else None

    def find(value: object) -> object:
        for step in steps:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                return None
        return value

    return find
