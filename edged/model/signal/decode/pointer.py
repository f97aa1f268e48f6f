"""JSON pointers (RFC 6901), compiled once for all channels."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter

from edged.base.errors import ConfigError

_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+", re.DOTALL)
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def pointer_to(key: str) -> str:
    """Return the pointer to ``key`` of the outermost object."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def compile_pointers(pointers: Sequence[str]) -> Callable[[object], Sequence[object]]:
    """Return a function that finds what each of ``pointers`` points at; None where nothing stands there.

    :raises ConfigError: one is no JSON pointer.
    """
    paths = [_steps(pointer) for pointer in pointers]

    def find(value: object) -> Sequence[object]:
        return [_follow(path, value) for path in paths]

    if len(paths) == 1 or any(len(path) > 1 for path in paths):
        return find
    get = itemgetter(*(key for (key,) in paths))

    def find_fast(value: object) -> Sequence[object]:
        if type(value) is dict:
            try:
                found: tuple[object, ...] = get(value)
            except KeyError:
                return find(value)
            return found
        return find(value)

    return find_fast


def _steps(pointer: str) -> list[str]:
    if not _POINTER.fullmatch(pointer):
        raise ConfigError(
            f"{pointer!r} is no JSON pointer", hint='for example "/vib/x1"; ~1 stands for a slash, ~0 for ~'
        )
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/")]


def _follow(path: Sequence[str], value: object) -> object:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value
