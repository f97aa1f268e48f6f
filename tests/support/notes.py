"""TFLite metadata and packed files, put into a model as its author's tools would."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as tflite

Field = Any
"""Text, a byte, a table by its fields' numbers, or a list of tables or floats."""


def flatbuffer(root: Mapping[int, Field]) -> bytes:
    """Return a FlatBuffer with the table ``root``, made by the official library."""
    builder = flatbuffers.Builder(256)
    builder.Finish(_table(builder, root))
    return bytes(builder.Output())


def _table(builder: Any, fields: Mapping[int, Field]) -> int:  # noqa: ANN401  the library has no types
    placed = {number: _place(builder, value) for number, value in fields.items() if not isinstance(value, int)}
    builder.StartObject(max(fields, default=0) + 1)
    for number, value in fields.items():
        if isinstance(value, int):
            builder.PrependByteSlot(number, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, placed[number], 0)
    return int(builder.EndObject())


def _place(builder: Any, value: Field) -> int:  # noqa: ANN401  the library has no types
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, Mapping):
        return _table(builder, value)
    floats = bool(value) and isinstance(value[0], float)
    elements = value if floats else [_table(builder, one) for one in value]
    builder.StartVector(4, len(elements), 4)
    for element in reversed(elements):
        (builder.PrependFloat32 if floats else builder.PrependUOffsetTRelative)(element)
    return int(builder.EndVector())


def with_metadata(
    model: Path, target: Path, metadata: bytes, files: Mapping[str, str] | None = None, name: str = "TFLITE_METADATA"
) -> Path:
    """Write ``model`` to ``target`` with metadata in it, and with files in a zip archive at its end."""
    unpacked = tflite.ModelT.InitFromObj(tflite.Model.GetRootAs(model.read_bytes(), 0))
    buffer, entry = tflite.BufferT(), tflite.MetadataT()
    buffer.data, entry.name, entry.buffer = list(metadata), name, len(unpacked.buffers)
    unpacked.buffers.append(buffer)
    unpacked.metadata = [*(unpacked.metadata or ()), entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(unpacked.Pack(builder), b"TFL3")
    target.write_bytes(builder.Output())
    if files:
        with zipfile.ZipFile(target, "a") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
    return target


def tensor_notes(
    name: str,
    description: str = "",
    *,
    colours: int | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    labels: str | None = None,
) -> dict[int, Field]:
    """Return what metadata say of one input or output."""
    notes: dict[int, Field] = {0: name, 1: description}
    if colours is not None:
        notes[3] = {0: 2, 1: {0: colours}}  # ImageProperties
    if mean:
        notes[4] = [{0: 2, 1: {}}, {0: 1, 1: {0: list(mean), 1: list(std)}}]  # another unit, then NormalizationOptions
    if labels is not None:
        notes[6] = [{0: "readme.txt", 2: 1}, {0: labels, 2: 2}]  # descriptions, then TENSOR_AXIS_LABELS
    return notes


def model_notes(inputs: Sequence[dict[int, Field]], outputs: Sequence[dict[int, Field]], **said: str) -> bytes:
    """Return metadata.

    :param said: name, description, version, author, license.
    """
    numbers = {"name": 0, "description": 1, "version": 2, "author": 4, "license": 5}
    return flatbuffer({3: [{2: list(inputs), 3: list(outputs)}], **{numbers[key]: text for key, text in said.items()}})
