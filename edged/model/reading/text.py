"""Numbers in text, and tables of them (CSV)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edged.base.errors import ReadingFormatError, ReadingShapeError, ReadingValueError
from edged.model.reading.layout import Floats, Layout, Parsed, Parser, floats, parse_times
from edged.model.reading.objects import UnnamedParser

_TO_COMMA = bytes.maketrans(b";\0", b",x")  # numpy would overlook NUL behind a number ...
_TO_SPACE = bytes.maketrans(b",;\0_", b"  xx")  # ... and read 1_0 as 10


class TextParser(UnnamedParser):
    """``format = "text"``."""

    def parse(self, payload: bytes) -> Parsed:
        """See :meth:`Parser.parse`."""
        return parse_text(payload), None


class CsvParser(Parser):
    """``format = "csv"``."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        fields = dict(layout.fields)
        self._columns = [fields.get(name, name) for name in layout.channels]
        if layout.time is not None:
            self._columns.append(layout.time.at)

    def parse(self, payload: bytes) -> Parsed:
        """See :meth:`Parser.parse`."""
        cells = parse_csv(payload, self._columns)
        if self.layout.time is None:
            return csv_numbers(cells), None
        times = parse_times((row.pop() for row in cells), self.layout.time.unit)
        return csv_numbers(cells), times


def encode_lines(values: Floats, _names: tuple[str, ...] | None) -> bytes:
    """Encode a line a row, the numbers separated by commas: what both formats read."""
    return "\n".join(",".join(map(repr, row)) for row in np.atleast_2d(values).tolist()).encode()


def parse_text(payload: bytes) -> Floats:
    """Return numbers that spaces, commas or semicolons separate.

    :raises ReadingFormatError: something else stands there.
    :raises ReadingValueError: nothing stands between two separators.
    """
    bare = payload.translate(_TO_COMMA, b" \t\r\n")
    if b",," in bare or bare.startswith(b",") or bare.endswith(b","):
        raise ReadingValueError("a reading lacks a number between two separators")
    try:
        return floats(payload.translate(_TO_SPACE).split())
    except ValueError as error:
        raise ReadingFormatError("a reading is not numbers separated by spaces, commas or semicolons") from error


def parse_csv(payload: bytes, columns: Sequence[str]) -> list[list[bytes]]:
    """Return the cells of ``columns``, a list a line; without a header, of all columns.

    :raises ReadingFormatError: the header names a column twice.
    :raises ReadingShapeError: a line has too few or too many cells.
    """
    table = [line.split(b",") for line in payload.translate(_TO_COMMA).splitlines() if line.strip()]
    header = [cell.strip(b' \t"').decode(errors="replace") for cell in table[0]] if table else []
    named = set(columns).issubset(header)
    if named and len(set(header)) != len(header):
        raise ReadingFormatError("a reading has a header that names a column twice")
    rows, width = (table[1:], len(header)) if named else (table, len(columns))
    if any(len(cells) != width for cells in rows):
        raise ReadingShapeError(f"a reading has a line that does not hold {width} values")
    if named:
        places = [header.index(name) for name in columns]
        rows = [[cells[place] for place in places] for cells in rows]
    return rows


def csv_numbers(rows: list[list[bytes]]) -> Floats:
    """Return cells as numbers.

    :raises ReadingFormatError: one is none.
    """
    if any(b"_" in cell for cells in rows for cell in cells):  # numpy would read 1_0 as 10
        raise ReadingFormatError("a reading is not lines of numbers separated by commas or semicolons")
    try:
        return floats(rows)
    except ValueError as error:
        raise ReadingFormatError("a reading is not lines of numbers separated by commas or semicolons") from error
