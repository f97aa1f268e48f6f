"""JSON pointers (RFC 6901), compiled once for each channel."""

from __future__ import annotations

import re
from collections.abc import Callable

from edged.errors import ConfigError

_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+", re.DOTALL)
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def pointer_to(key: str) -> str:
    """Return the pointer to ``key`` of the outermost object."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def compile_pointer(pointer: str) -> Callable[[object], object]:
    """Return a function that finds what ``pointer`` points at, or None where nothing stands there.

    :raises ConfigError: it is no JSON pointer.
    """
    if not _POINTER.fullmatch(pointer):
        raise ConfigError(
            f"{pointer!r} is no JSON pointer", hint='for example "/vib/x1"; ~1 stands for a slash, ~0 for ~'
        )
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/")]
    if len(steps) == 1:
        only = steps[0]
        return lambda value: value.get(only) if isinstance(value, dict) else None

    def find(value: object) -> object:
        for step in steps:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
                value = value[int(step)]
            else:
                return None
        return value

    return find
