"""Recorded readings in files: CSV, NPZ and JSON lines, for `edged try` and `edged send`."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edged.base.errors import FormatError, MissingFileError, UsageError
from edged.base.files import read_bounded
from edged.model.npz import open_npz

Floats = npt.NDArray[np.float32]
_LABEL_COLUMN, _TIME_COLUMN = "label", "time"
_UNPACKED, _MOST_BYTES, _MOST_LINES, _LONGEST_LINE = 1 << 30, 256 << 20, 1 << 22, 4 << 20
_Lines = Iterable[tuple[int, list[Any]]]
"""Rows, or whole windows, with the number of the line that each comes from."""


@dataclass(frozen=True)
class Samples:
    """The content of a file.

    :ivar values: float32, or pixels as uint8: rows [n, channels] or whole windows [n, size, channels].
    :ivar names: one for each channel, where the file names them.
    :ivar labels: one for each row or window, where the file has them: text, or the number of a label.
    :ivar times: float64 [n], seconds, where the file has them.
    """

    values: npt.NDArray[Any]
    names: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    times: npt.NDArray[np.float64] | None = None


def read_samples(path: Path, *, array: str | None = None, label_array: str | None = None) -> Samples:
    """Read a file by its ending: .npz, .csv or .jsonl.

    :param array: name of the array in an .npz; default: its only array of two dimensions or more, or ``windows``.
    :param label_array: name of the array of labels in an .npz.
    :raises MissingFileError: it cannot be read.
    :raises FormatError: it holds something else.
    """
    try:
        match path.suffix:
            case ".npz":
                return _read_npz(path, array, label_array)
            case ".csv" | ".jsonl":
                with closing(_lines(path)) as lines:
                    return _read_csv(path, lines) if path.suffix == ".csv" else _read_json_lines(path, lines)
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise FormatError(f"{path} is damaged, or no {path.suffix} file: {error}") from error
    raise UsageError(f"{path} is none of .npz, .csv and .jsonl")


def read_pictures(path: Path) -> list[bytes]:
    """Read a picture, or every file of a directory in the order of their names, as they are.

    :raises MissingFileError: it cannot be read.
    """
    try:
        files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
        return [read_bounded(one, _MOST_BYTES) for one in files]
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error


def _read_npz(path: Path, array: str | None, label_array: str | None) -> Samples:
    with open_npz(path, _UNPACKED) as archive:
        if array is None:
            many = [name for name in archive.names if len(archive.shape(name)) >= 2]  # noqa: PLR2004  rows of channels
            array = "windows" if "windows" in many else many[0] if len(many) == 1 else None
            if array is None:
                raise UsageError(f"{path} holds the arrays {', '.join(archive.names)}", hint="choose with --array NAME")
        for name in (array, label_array):
            if name is not None and name not in archive.names:
                raise UsageError(f"{path} has no array {name!r}", hint=f"it holds {', '.join(archive.names)}")
        values = archive.read(array).astype(np.float32, copy=False)
        labels = None if label_array is None else tuple(str(label) for label in archive.read(label_array))
    if labels is not None and len(labels) != len(values):
        raise FormatError(f"{path}: {len(values)} samples in {array} and {len(labels)} labels in {label_array}")
    return Samples(values, labels=labels)


def _lines(path: Path) -> Generator[bytes, None, None]:
    """Yield the lines of a text file, each once it is clear that it is not too long, nor the file too large."""
    left = _MOST_BYTES
    with path.open("rb") as file:
        for number in range(1, _MOST_LINES + 2):
            line = file.readline(_LONGEST_LINE + 1)
            left -= len(line)
            if not line:
                return
            if len(line) > _LONGEST_LINE or left < 0 or number > _MOST_LINES:
                raise FormatError(
                    f"{path} is longer than {_MOST_LINES} lines, {_LONGEST_LINE} bytes a line and {_MOST_BYTES} in all"
                )
            yield line


def _read_csv(path: Path, lines: Iterator[bytes]) -> Samples:
    reader = csv.reader(line.decode("utf-8" if at else "utf-8-sig") for at, line in enumerate(lines))
    rows = ((reader.line_num, row) for row in reader if row)
    first = next(rows, None)
    if first is None:
        raise FormatError(f"{path} is empty")
    if _is_number(first[1][0]):
        return Samples(_numbers(path, first, rows))
    names = tuple(name.strip() for name in first[1])
    return _named(path, names, _checked(path, names, rows))


def _checked(path: Path, names: tuple[str, ...], rows: Iterable[tuple[int, list[str]]]) -> _Lines:
    for line, row in rows:
        if len(row) != len(names):
            raise FormatError(f"{path}: line {line} holds {len(row)} values, the header names {len(names)}")
        yield line, row


def _named(path: Path, names: tuple[str, ...], lines: _Lines) -> Samples:
    """Return lines of one value for each of ``names``, labels and times apart from the channels."""
    asides: dict[str, list[Any]] = {name: [] for name in (_LABEL_COLUMN, _TIME_COLUMN) if name in names}
    columns = [column for column, name in enumerate(names) if name not in asides]

    def channels() -> _Lines:
        for line, row in lines:
            for name, values in asides.items():
                values.append(row[names.index(name)])
            yield line, [row[column] for column in columns]

    values = _numbers(path, None, channels())
    labels, times = asides.get(_LABEL_COLUMN), asides.get(_TIME_COLUMN)
    return Samples(
        values,
        tuple(names[column] for column in columns),
        None if labels is None else tuple(str(label) for label in labels),
        None if times is None else _times(path, times),
    )


def _times(path: Path, times: list[Any]) -> npt.NDArray[np.float64]:
    try:
        return np.array(times, np.float64).reshape(len(times))
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"{path}: its times are no numbers") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_json_lines(path: Path, lines: Iterator[bytes]) -> Samples:
    values = _json_values(path, lines)
    first = next(values, None)
    if first is None:
        raise FormatError(f"{path} is empty")
    number, value = first
    if not isinstance(value, dict):
        return Samples(_numbers(path, (number, value), values))
    names = tuple(value)
    return _named(path, names, _json_rows(path, names, chain([first], values)))


def _json_values(path: Path, lines: Iterator[bytes]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise FormatError(f"{path}: line {number} is not JSON: {error}") from error


def _json_rows(path: Path, names: tuple[str, ...], values: Iterable[tuple[int, Any]]) -> _Lines:
    for number, value in values:
        if not isinstance(value, dict):
            raise FormatError(f"{path}: line {number} is no object")
        if set(value) != set(names):
            raise FormatError(f"{path}: line {number} has other keys than the first, {', '.join(names)}")
        yield number, [value[name] for name in names]


def _numbers(path: Path, first: tuple[int, Any] | None, lines: Iterable[tuple[int, Any]]) -> Floats:
    """Return one line after the other as float32; a line that does not fit is refused with its number."""
    found, shape = bytearray(), None
    for line, row in lines if first is None else chain([first], lines):
        if not isinstance(row, list):
            raise FormatError(f"{path}: line {line} is no array")
        try:
            values = np.array(row, np.float32)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise FormatError(f"{path}: line {line} holds something else than numbers") from error
        shape = shape or values.shape
        if values.shape != shape:
            raise FormatError(f"{path}: line {line} has {values.shape} values, the first {shape}")
        found += values.tobytes()
    return np.frombuffer(found, np.float32).reshape(-1, *(shape or (0,)))
