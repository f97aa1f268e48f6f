"""Model files of kilobytes that say gigabytes: refused before anything reads them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import pytest

from edged.base.errors import ModelError
from edged.model.runtime import choose
from edged.model.runtime.flatbuffer import is_complete
from edged.model.runtime.interpreter import Interpreter
from edged.model.runtime.metadata import read_notes
from support.notes import model_notes, tensor_notes

MANY = 20_000
"""Tables that are one, in each of two vectors, one inside the other: to look at each would take a quarter of an hour."""


def vector(builder: flatbuffers.Builder, table: int, times: int) -> int:
    builder.StartVector(4, times, 4)
    for _ in range(times):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())


def table(builder: flatbuffers.Builder, **fields: int) -> int:
    """Add a table with fields that point somewhere: ``_2=`` is number 2."""
    builder.StartObject(8)
    for name, place in fields.items():
        builder.PrependUOffsetTRelativeSlot(int(name[1:]), place, 0)
    return int(builder.EndObject())


def of_one_table(times: int) -> bytes:
    """Return a model with so many subgraphs that are one, each with so many tensors that are one."""
    builder = flatbuffers.Builder(1024)
    tensors = vector(builder, table(builder, _3=builder.CreateString("t")), times)
    subgraphs = vector(builder, table(builder, _0=tensors), times)
    builder.Finish(table(builder, _2=subgraphs), b"TFL3")
    return bytes(builder.Output())


def of_one_text(times: int, size: int) -> bytes:
    """Return a model with so many custom operators, all named by one text of that size."""
    builder = flatbuffers.Builder(1024)
    name = builder.CreateString("x" * size)
    builder.Finish(table(builder, _1=_operators(builder, name, times)), b"TFL3")
    return bytes(builder.Output())


def _operators(builder: flatbuffers.Builder, name: int, times: int) -> int:
    codes = [table(builder, _1=name) for _ in range(times)]
    builder.StartVector(4, times, 4)
    for code in codes:
        builder.PrependUOffsetTRelative(code)
    return int(builder.EndVector())


def notes_of_one_table(times: int) -> bytes:
    """Return metadata of so many subgraphs that are one, each with so many inputs that are one."""
    builder = flatbuffers.Builder(1024)
    inputs = vector(builder, table(builder, _0=builder.CreateString("t")), times)
    subgraphs = vector(builder, table(builder, _2=inputs), times)
    builder.Finish(table(builder, _3=subgraphs))
    return bytes(builder.Output())


@pytest.mark.parametrize("make", [lambda: of_one_table(MANY), lambda: of_one_text(2_000, 1 << 20)])
def test_a_model_that_reads_one_part_for_many_is_refused_unread(tmp_path: Path, make: Callable[[], bytes]) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(make())

    with pytest.raises(ModelError, match="is truncated or damaged"):
        Interpreter(choose(), str(path))


def test_parts_that_are_shared_now_and_then_are_no_harm() -> None:
    builder = flatbuffers.Builder(1024)
    text = builder.CreateString("a name that several have")
    tensors = [table(builder, _3=text) for _ in range(3)]
    builder.StartVector(4, 3, 4)
    for tensor in tensors:
        builder.PrependUOffsetTRelative(tensor)
    inside = builder.EndVector()
    builder.Finish(table(builder, _2=vector(builder, table(builder, _0=inside, _4=text), 1)), b"TFL3")

    assert is_complete(bytes(builder.Output()))


def test_metadata_that_read_one_part_for_many_are_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="metadata are damaged"):
        read_notes(tmp_path / "m.tflite", notes_of_one_table(MANY))


def test_metadata_of_more_tensors_than_a_model_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="more than 256 inputs and outputs"):
        read_notes(tmp_path / "m.tflite", model_notes([tensor_notes("p")] * 257, []))


def test_a_mean_of_more_channels_than_a_picture_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="metadata are damaged"):
        read_notes(tmp_path / "m.tflite", model_notes([tensor_notes("p", mean=[0.0] * 5000, std=[1.0])], []))


def test_labels_have_one_bound_for_all_files(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    names = [f"labels-{number}.txt" for number in range(3)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, "label\n" * 100_000)

    notes = read_notes(path, model_notes([], [tensor_notes("p", labels=name) for name in names]))

    (found,) = notes.outputs
    assert [len(one.labels) for one in found] == [100_000, 74_763, 0]
