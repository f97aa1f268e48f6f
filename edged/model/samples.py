"""Recorded readings in files: CSV, NPZ and JSON lines, for `edged try` and `edged send`."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edged.base.errors import FormatError, MissingFileError, UsageError

Floats = npt.NDArray[np.float32]
_LABEL_COLUMN, _TIME_COLUMN = "label", "time"
_Lines = Sequence[tuple[int, list[Any]]]
"""Rows, or whole windows, with the number of the line that each comes from."""


@dataclass(frozen=True)
class Samples:
    """The content of a file.

    :ivar values: float32, rows [n, channels] or whole windows [n, size, channels].
    :ivar names: one for each channel, where the file names them.
    :ivar labels: one for each row or window, where the file has them: text, or the number of a label.
    :ivar times: float64 [n], seconds, where the file has them.
    """

    values: Floats
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
            case ".csv":
                return _read_csv(path)
            case ".jsonl":
                return _read_json_lines(path)
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, EOFError, csv.Error, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} is damaged, or no {path.suffix} file: {error}") from error
    raise UsageError(f"{path} is none of .npz, .csv and .jsonl")


def read_pictures(path: Path) -> list[bytes]:
    """Read a picture, or every file of a directory in the order of their names, as they are.

    :raises MissingFileError: it cannot be read.
    """
    try:
        files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
        return [one.read_bytes() for one in files]
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error


def _read_npz(path: Path, array: str | None, label_array: str | None) -> Samples:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if array is None:
            many = [name for name in archive.files if archive[name].ndim >= 2]  # noqa: PLR2004  rows of channels
            array = "windows" if "windows" in many else many[0] if len(many) == 1 else None
            if array is None:
                raise UsageError(f"{path} holds the arrays {', '.join(archive.files)}", hint="choose with --array NAME")
        for name in (array, label_array):
            if name is not None and name not in archive.files:
                raise UsageError(f"{path} has no array {name!r}", hint=f"it holds {', '.join(archive.files)}")
        values = archive[array].astype(np.float32)
        labels = None if label_array is None else tuple(str(label) for label in archive[label_array])
    if labels is not None and len(labels) != len(values):
        raise FormatError(f"{path}: {len(values)} samples in {array} and {len(labels)} labels in {label_array}")
    return Samples(values, labels=labels)


def _read_csv(path: Path) -> Samples:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        rows: _Lines = [(reader.line_num, row) for row in reader if row]
    if not rows:
        raise FormatError(f"{path} is empty")
    names = None
    if not _is_number(rows[0][1][0]):
        names, rows = tuple(name.strip() for name in rows[0][1]), rows[1:]
        for line, row in rows:
            if len(row) != len(names):
                raise FormatError(f"{path}: line {line} holds {len(row)} values, the header names {len(names)}")
    asides: dict[str, list[str]] = {}
    for name in (_LABEL_COLUMN, _TIME_COLUMN):
        if names is not None and name in names:
            column = names.index(name)
            asides[name] = [row.pop(column) for _, row in rows]
            names = names[:column] + names[column + 1 :]
    return _samples(_numbers(path, rows), names, asides)


def _samples(values: Floats, names: tuple[str, ...] | None, asides: dict[str, list[Any]]) -> Samples:
    labels, times = asides.get(_LABEL_COLUMN), asides.get(_TIME_COLUMN)
    return Samples(
        values,
        names,
        None if labels is None else tuple(str(label) for label in labels),
        None if times is None else np.array(times, np.float64),
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_json_lines(path: Path) -> Samples:
    lines: list[tuple[int, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                lines.append((number, msgspec.json.decode(line)))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise FormatError(f"{path}: line {number} is not JSON: {error}") from error
    if not lines:
        raise FormatError(f"{path} is empty")
    first = lines[0][1]
    names = tuple(first) if isinstance(first, dict) else None
    for number, value in lines:
        if not isinstance(value, list if names is None else dict):
            raise FormatError(f"{path}: line {number} is no {'array' if names is None else 'object'}")
        if names is not None and set(value) != set(names):
            raise FormatError(f"{path}: line {number} has other keys than the first, {', '.join(names)}")
    if names is None:
        return Samples(_numbers(path, lines))
    asides = {name: [value[name] for _, value in lines] for name in (_LABEL_COLUMN, _TIME_COLUMN) if name in names}
    names = tuple(name for name in names if name not in asides)
    return _samples(_numbers(path, [(line, [value[name] for name in names]) for line, value in lines]), names, asides)


def _numbers(path: Path, lines: _Lines) -> Floats:
    """Return one line after the other as float32; a line that does not fit is refused with its number."""
    try:
        return np.array([row for _, row in lines], np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        shape = np.shape(lines[0][1])
        for line, row in lines:
            try:
                found = np.array(row, np.float32).shape
            except (ValueError, TypeError, OverflowError):
                raise FormatError(f"{path}: line {line} holds something else than numbers") from error
            if found != shape:
                raise FormatError(f"{path}: line {line} has {found} values, the first {shape}") from error
        raise FormatError(f"{path}: {error}") from error
