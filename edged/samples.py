"""Recorded readings in files: CSV, NPZ and JSON lines, for `edged try` and `edged send`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import cbor2
import msgspec
import numpy as np
import numpy.typing as npt

from edged.errors import FormatError, MissingFileError, UsageError

Floats = npt.NDArray[np.float32]
_TAG_FLOAT32_LE = 85  # RFC 8746, section 2.1
_LABEL_COLUMN = "label"


@dataclass(frozen=True)
class Samples:
    """What a file holds.

    :ivar values: float32, rows [n, channels] or whole windows [n, size, channels].
    :ivar names: one a channel, where the file names them.
    :ivar labels: one a row or window, where the file has them: text, or the number of a label.
    """

    values: Floats
    names: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None


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
    except (ValueError, KeyError, msgspec.DecodeError) as error:
        raise FormatError(f"{path}: {error}") from error
    raise UsageError(f"{path} is none of .npz, .csv and .jsonl")


def _read_npz(path: Path, array: str | None, label_array: str | None) -> Samples:
    with np.load(path, allow_pickle=False) as archive:
        if array is None:
            many = [name for name in archive.files if archive[name].ndim >= 2]  # noqa: PLR2004  rows of channels
            array = "windows" if "windows" in many else many[0] if len(many) == 1 else None
            if array is None:
                raise UsageError(f"{path} holds the arrays {', '.join(archive.files)}", hint="choose with --array NAME")
        values = archive[array].astype(np.float32)
        labels = None if label_array is None else tuple(str(label) for label in archive[label_array])
    if labels is not None and len(labels) != len(values):
        raise FormatError(f"{path}: {len(values)} samples in {array} and {len(labels)} labels in {label_array}")
    return Samples(values, labels=labels)


def _read_csv(path: Path) -> Samples:
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise FormatError(f"{path} is empty")
    names = None
    if not _is_number(rows[0][0]):
        names, rows = tuple(name.strip() for name in rows[0]), rows[1:]
    labels = None
    if names is not None and _LABEL_COLUMN in names:
        column = names.index(_LABEL_COLUMN)
        labels = tuple(row.pop(column) for row in rows)
        names = names[:column] + names[column + 1 :]
    return Samples(np.array(rows, dtype=np.float32), names, labels)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_json_lines(path: Path) -> Samples:
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines() if line.strip()]
    if not lines:
        raise FormatError(f"{path} is empty")
    if not isinstance(lines[0], dict):
        return Samples(np.array(lines, dtype=np.float32))
    labels = tuple(str(line.pop(_LABEL_COLUMN)) for line in lines) if _LABEL_COLUMN in lines[0] else None
    names = tuple(lines[0])
    return Samples(np.array([[line[name] for name in names] for line in lines], dtype=np.float32), names, labels)


def encode_reading(values: Floats, format_: str, names: tuple[str, ...] | None) -> bytes:
    """Encode one row ([channels]) or several ([n, channels]) as the board's ``format`` of that name.

    :param names: keys of JSON objects; without them JSON carries plain arrays.
    """
    match format_:
        case "json":
            return msgspec.json.encode(_named(values, names))
        case "text" | "csv":
            return "\n".join(",".join(map(repr, row)) for row in np.atleast_2d(values).tolist()).encode()
        case "f32le":
            return values.astype("<f4").tobytes()
        case "cbor":
            return cbor2.dumps(cbor2.CBORTag(_TAG_FLOAT32_LE, values.astype("<f4").tobytes()))
    raise UsageError(f"format {format_!r} is none of json, text, csv, cbor and f32le")


def _named(values: Floats, names: tuple[str, ...] | None) -> object:
    plain = values.tolist()
    if names is None:
        return plain
    if values.ndim == 1:
        return dict(zip(names, plain, strict=True))
    return [dict(zip(names, row, strict=True)) for row in plain]
