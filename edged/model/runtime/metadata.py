"""Notes of a model's author to tools: TFLite metadata, and the files that are packed with them.

The fields' numbers are those of tensorflow_lite_support/metadata/metadata_schema.fbs. The files stand in a zip archive
at the model's end.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from edged.base.errors import ModelError
from edged.model.runtime.flatbuffer import FlatTable

ENTRY = "TFLITE_METADATA"
"""Its name among a model's metadata."""

_MOST_BYTES = 1 << 20
_OF_AXIS, _OF_VALUES = 2, 3  # AssociatedFileType
_NORMALIZATION = 1  # ProcessUnitOptions
_IMAGE = 2  # ContentProperties
_COLOURS: dict[int, Literal["rgb", "grey"]] = {1: "rgb", 2: "grey"}  # ColorSpaceType


class TensorNotes(NamedTuple):
    """Notes on an input or output.

    :ivar picture: its colours, if it is a picture.
    :ivar mean: taken off each value before the model sees it: one number, or one a channel.
    :ivar std: divides each value after that, likewise.
    :ivar label_file: where the labels come from.
    :ivar labels: in their order; none where the file is not there.
    :ivar by_value: the labels are of the numbers that the tensor holds, not of its places.
    """

    name: str
    description: str
    picture: Literal["rgb", "grey"] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_file: str
    labels: tuple[str, ...]
    by_value: bool = False


class Notes(NamedTuple):
    """Notes on a model, and on the inputs and outputs of each subgraph, in its order."""

    name: str
    description: str
    version: str
    author: str
    license: str
    inputs: tuple[tuple[TensorNotes, ...], ...]
    outputs: tuple[tuple[TensorNotes, ...], ...]


def read_notes(path: Path, data: bytes) -> Notes:
    """Read TFLite metadata.

    :param path: of the model, whose end is the archive.
    :raises ModelError: they are damaged.
    """
    try:
        model = FlatTable.root(data)
        subgraphs = list(model.tables(3))
        inputs, outputs = (
            tuple(tuple(_notes(path, one) for one in subgraph.tables(field)) for subgraph in subgraphs)
            for field in (2, 3)
        )
        return Notes(model.text(0), model.text(1), model.text(2), model.text(4), model.text(5), inputs, outputs)
    except (struct.error, IndexError) as error:
        raise ModelError(f"{path}: its TFLite metadata are damaged", hint="write them into the model anew") from error


def _notes(path: Path, tensor: FlatTable) -> TensorNotes:
    mean, std = _normalisation(tensor.tables(4))
    files = {one.byte(2): one.text(0) for one in tensor.tables(6)}
    label_file = files.get(_OF_AXIS) or files.get(_OF_VALUES, "")
    labels = _labels(path, label_file)
    by_value = bool(label_file) and _OF_AXIS not in files
    return TensorNotes(
        tensor.text(0), tensor.text(1), _picture(tensor.table(3)), mean, std, label_file, labels, by_value
    )


def _normalisation(units: Iterable[FlatTable]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in units:
        options = unit.table(1)
        if unit.byte(0) == _NORMALIZATION and options is not None:
            return options.floats(0), options.floats(1)
    return (), ()


def _picture(content: FlatTable | None) -> Literal["rgb", "grey"] | None:
    properties = None if content is None or content.byte(0) != _IMAGE else content.table(1)
    return None if properties is None else _COLOURS.get(properties.byte(0))


def _labels(path: Path, name: str) -> tuple[str, ...]:
    if not name:
        return ()
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            text = file.read(_MOST_BYTES).decode(errors="replace")
    except (KeyError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError):
        return ()  # it may have been cut off: the model runs without
    return tuple(line.strip() for line in text.splitlines() if line.strip())
