"""Notes of a model's author to tools: TFLite metadata, and the files that are packed with them.

The fields' numbers are those of tensorflow_lite_support/metadata/metadata_schema.fbs. The files stand in a zip archive
at the model's end.
"""

from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from edged.base.errors import ModelError
from edged.model.runtime.flatbuffer import Fields, FlatTable, is_complete

ENTRY = "TFLITE_METADATA"
"""Its name among a model's metadata."""

_MOST_BYTES, _MOST_TENSORS, _MOST_CHANNELS = 1 << 20, 256, 4096
"""Bounds of the labels' files together, of the tensors with notes, and of the numbers that normalise one."""
_TENSOR: Fields = {0: 1, 1: 1, 3: {1: {}}, 4: [{1: {}}], 6: [{0: 1}]}
_NOTES: Fields = {0: 1, 1: 1, 2: 1, 3: [{2: [_TENSOR], 3: [_TENSOR]}], 4: 1, 5: 1}
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
    :raises ModelError: they are damaged, or tell of more tensors than any model has.
    """
    damaged = ModelError(f"{path}: its TFLite metadata are damaged", hint="write them into the model anew")
    if not is_complete(data, _NOTES):
        raise damaged
    try:
        model = FlatTable.root(data)
        subgraphs = list(model.tables(3))
        if sum(one.size(2) + one.size(3) for one in subgraphs) > _MOST_TENSORS:
            raise ModelError(f"{path}: its TFLite metadata tell of more than {_MOST_TENSORS} inputs and outputs")
        labels = _Labels(path)
        inputs, outputs = (
            tuple(tuple(_notes(labels, one) for one in subgraph.tables(field)) for subgraph in subgraphs)
            for field in (2, 3)
        )
        return Notes(model.text(0), model.text(1), model.text(2), model.text(4), model.text(5), inputs, outputs)
    except (struct.error, IndexError) as error:
        raise damaged from error


def _notes(labels_of: _Labels, tensor: FlatTable) -> TensorNotes:
    mean, std = _normalisation(tensor.tables(4))
    files = {one.byte(2): one.text(0) for one in tensor.tables(6)}
    label_file = files.get(_OF_AXIS) or files.get(_OF_VALUES, "")
    labels = labels_of.read(label_file)
    by_value = bool(label_file) and _OF_AXIS not in files
    return TensorNotes(
        tensor.text(0), tensor.text(1), _picture(tensor.table(3)), mean, std, label_file, labels, by_value
    )


def _normalisation(units: Iterable[FlatTable]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in units:
        options = unit.table(1)
        if unit.byte(0) == _NORMALIZATION and options is not None:
            if max(options.size(0), options.size(1)) > _MOST_CHANNELS:
                raise struct.error
            return options.floats(0), options.floats(1)
    return (), ()


def _picture(content: FlatTable | None) -> Literal["rgb", "grey"] | None:
    properties = None if content is None or content.byte(0) != _IMAGE else content.table(1)
    return None if properties is None else _COLOURS.get(properties.byte(0))


class _Labels:
    """Files of labels in the archive at a model's end, each read once, with one bound for all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = _MOST_BYTES
        self._found: dict[str, tuple[str, ...]] = {"": ()}

    def read(self, name: str) -> tuple[str, ...]:
        """Return the labels of a file; none where it is not there, or cut off: the model runs without."""
        if name not in self._found:
            text = b""
            with (
                contextlib.suppress(KeyError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError),
                zipfile.ZipFile(self._path) as archive,
                archive.open(name) as file,
            ):
                text = file.read(self._left)
            self._left -= len(text)
            lines = text.decode(errors="replace").splitlines()
            self._found[name] = tuple(line.strip() for line in lines if line.strip())
        return self._found[name]
