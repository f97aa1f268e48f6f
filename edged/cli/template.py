"""One line for each result, as a person or a script wants it: ``{device} {label} {score:.1%}``."""

from __future__ import annotations

import string
from collections.abc import Mapping

import click

KEYS = (
    *("device", "channel", "model", "version", "time", "count", "label", "score", "value", "scores", "top", "late"),
    *("digest", "input", "tune", "kid", "signed"),
)
_ABSENT = "-"


class Template:
    """Fills in a result's keys, by the rules of Python's ``str.format``; what a result does not have is ``-``.

    :raises click.BadParameter: it has a key that no result has, or cannot be read.
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace(r"\t", "\t").replace(r"\n", "\n")
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(self._text) if name is not None]
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}") from error
        for name in names:
            if name not in KEYS:
                raise click.BadParameter(f"{text!r}: {name!r} is none of {', '.join(KEYS)}")

    def fill(self, result: Mapping[str, object]) -> str:
        """Return the line of a result."""
        return string.Formatter().vformat(self._text, (), {key: _Value(result.get(key)) for key in KEYS})


class _Value:
    """A value that formats as itself, and as ``-`` where it is absent or its format does not fit it."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __format__(self, spec: str) -> str:
        if self._value is None:
            return _ABSENT
        try:
            return format(self._value, spec)
        except (TypeError, ValueError):
            return str(self._value)

    def __str__(self) -> str:
        return _ABSENT if self._value is None else str(self._value)
