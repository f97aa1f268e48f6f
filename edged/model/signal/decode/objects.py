"""From objects (JSON, maps of CBOR) to rows: where each channel stands, and what holds where one is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from edged.base.errors import ReadingFormatError, ReadingValueError
from edged.model.signal.decode.layout import Layout
from edged.model.signal.decode.numbers import Floats, floats
from edged.model.signal.decode.pointer import compile_pointers, pointer_to
from edged.model.signal.decode.times import Doubles, parse_times

_NUMBERS = frozenset({float, int})  # no bool


class Objects:
    """Finds rows and their times in objects; ``input.missing = "hold"`` remembers what the topic sent last.

    :raises ConfigError: a field is no JSON pointer.
    """

    def __init__(self, layout: Layout) -> None:
        fields = dict(layout.fields)
        pointers = [fields.get(name, pointer_to(name)) for name in layout.channels]
        self._names = layout.channels
        self._missing = layout.missing
        self._find = compile_pointers(pointers)
        self._unit = None if layout.time is None else layout.time.unit
        self._find_time = None if layout.time is None else compile_pointers([layout.time.at])
        self._held: Sequence[object] = [None] * len(pointers)

    def rows(self, objects: Iterable[object]) -> tuple[Floats, Doubles | None]:
        """Return a row for each object; what one lacks may be held from the one before."""
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

    def columns(self, value: object) -> tuple[Floats, Doubles | None]:
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
        """Remember the newest row, as it came."""
        self._held = row

    def _times(self, times: list[object]) -> Doubles | None:
        return None if self._unit is None else parse_times(times, self._unit)

    def _completed(self, row: Sequence[object], held: Sequence[object]) -> list[object]:
        """Return ``row`` with what it lacks filled in by the manifest's rule; null counts as lacking."""
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
