"""Rows out of objects (JSON, maps of CBOR): the place of each channel, and the rule for a missing one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

import msgspec

from edged.base.errors import ConfigError, ReadingFormatError, ReadingValueError
from edged.model.reading.layout import Doubles, Layout, Parsed, Parser, floats, parse_times

_NUMBERS = frozenset({float, int})  # no bool
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+", re.DOTALL)
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class ObjectParser(Parser):
    """Finds rows and their times in objects; ``input.missing = "hold"`` remembers what the topic sent last.

    :raises ConfigError: a field is no JSON pointer.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        fields = dict(layout.fields)
        pointers = [fields.get(name, pointer_to(name)) for name in layout.channels]
        self._names = layout.channels
        self._missing = layout.missing
        self._find = compile_pointers(pointers)
        self._unit = None if layout.time is None else layout.time.unit
        self._find_time = None if layout.time is None else compile_pointers([layout.time.at])
        self._held: Sequence[object] = [None] * len(pointers)

    def rows(self, objects: Iterable[object]) -> Parsed:
        """Return a row for each object; a missing value may be held from the object before."""
        rows: list[Sequence[object]] = []
        times: list[object] = []
        held = self._held
        for one in objects:
            row = self._find(one)
            if not _NUMBERS.issuperset(map(type, row)):
                row = self._completed(row, held)
            rows.append(row)
            held = row
            if self._find_time is not None:
                times += self._find_time(one)
        return floats(rows), self._times(times)

    def columns(self, value: object) -> Parsed:
        """Return rows from an object that holds one array a channel, and one of times."""
        times: list[object] = []
        try:
            rows = floats(msgspec.convert(self._find(value), list[list[float]])).T
            if self._find_time is not None:
                times = msgspec.convert(self._find_time(value)[0], list[object])
                if len(times) != len(rows):
                    raise ValueError  # noqa: TRY301  as for the other columns
        except (msgspec.ValidationError, ValueError) as error:
            raise ReadingFormatError(
                "a reading is not an object with an equally long array for each channel"
            ) from error
        return rows, self._times(times)

    def hold(self, row: Sequence[object]) -> None:
        """Remember the newest row, uncalibrated."""
        self._held = row

    def _times(self, times: list[object]) -> Doubles | None:
        return None if self._unit is None else parse_times(times, self._unit)

    def _completed(self, row: Sequence[object], held: Sequence[object]) -> list[object]:
        """Return ``row`` with missing values filled in by the manifest's rule; null counts as missing."""
        rule = self._missing
        if all(found is None for found in row):
            raise ReadingValueError("a reading holds none of the model's channels")
        completed: list[object] = []
        for name, found, last in zip(self._names, row, held, strict=True):
            value = (last if rule == "hold" else rule) if found is None else found
            if value is None or value == "refuse":
                raise ReadingValueError(f"a reading lacks {name}")
            if type(value) not in _NUMBERS:
                raise ReadingFormatError(f"a reading holds something else than a number for {name}")
            completed.append(value)
        return completed


class UnnamedParser(Parser):
    """Base of the parsers of formats that name no channels: `fields` finds nothing there, but has to be well formed."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        for _, pointer in layout.fields:
            _steps(pointer)


def pointer_to(key: str) -> str:
    """Return the pointer to ``key`` of the outermost object."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def compile_pointers(pointers: Sequence[str]) -> Callable[[object], Sequence[object]]:
    """Return a function that finds the value at each of ``pointers``; None where there is none.

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
