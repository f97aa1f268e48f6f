"""Recorded readings: what the three kinds of file hold, and refusals by file and line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cbor2
import msgspec
import numpy as np
import pytest

from edged.base.errors import EdgedError, FormatError, MissingFileError, UsageError
from edged.model.reading import encode_reading
from edged.model.samples import Samples, read_samples

ROWS = [[0.5, -2.0], [3.0, 4.25]]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path, *, array: str | None = None, label_array: str | None = None) -> EdgedError:
    with pytest.raises(EdgedError) as caught:
        read_samples(path, array=array, label_array=label_array)
    assert str(path) in caught.value.message
    return caught.value


def check(samples: Samples, names: tuple[str, ...] | None, labels: tuple[str, ...] | None) -> None:
    assert (samples.values.dtype, samples.values.tolist()) == (np.float32, ROWS)
    assert (samples.names, samples.labels) == (names, labels)


# --- csv -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "names", "labels"),
    [
        ("0.5,-2\n3,4.25\n", None, None),
        ("0.5,-2\r\n\r\n3,4.25", None, None),
        ("a1,a2\n0.5,-2\n3,4.25\n", ("a1", "a2"), None),
        ("\ufeffa1, a2\n0.5,-2\n3,4.25\n", ("a1", "a2"), None),
        ("a1,label,a2\n0.5,healthy,-2\n3,broken,4.25\n", ("a1", "a2"), ("healthy", "broken")),
        ('label,"a1",a2\n0,"0.5",-2\n1,3,4.25\n', ("a1", "a2"), ("0", "1")),
    ],
)
def test_csv(tmp_path: Path, content: str, names: tuple[str, ...] | None, labels: tuple[str, ...] | None) -> None:
    check(read_samples(write(tmp_path / "x.csv", content)), names, labels)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", " is empty"),
        ("\n\n", " is empty"),
        ("1,2\n3,x\n", ": line 2 holds something else than numbers"),
        ("1,2\n\n3\n", ": line 3 has (1,) values, the first (2,)"),
        ("a1,a2\n1,2\n3\n", ": line 3 holds 1 values, the header names 2"),
        ("a1,a2,label\n1,2,x\n3,4\n", ": line 3 holds 2 values, the header names 3"),
    ],
)
def test_bad_csv_is_refused_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    path = write(tmp_path / "x.csv", content)

    assert refused(path).message == f"{path}{said}"


# --- JSON lines ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "names", "labels"),
    [
        (ROWS, None, None),
        ([{"a1": 0.5, "a2": -2}, {"a2": 4.25, "a1": 3}], ("a1", "a2"), None),
        ([{"label": 0, "a1": 0.5, "a2": -2}, {"a2": 4.25, "a1": 3, "label": "broken"}], ("a1", "a2"), ("0", "broken")),
    ],
)
def test_json_lines(
    tmp_path: Path, lines: list[object], names: tuple[str, ...] | None, labels: tuple[str, ...] | None
) -> None:
    content = "\n\n".join(map(json.dumps, lines)) + "\n"

    check(read_samples(write(tmp_path / "x.jsonl", content)), names, labels)


def test_json_lines_of_whole_windows(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", f"{ROWS}\n{ROWS}\n{ROWS}\n")

    assert read_samples(path).values.tolist() == [ROWS] * 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", " is empty"),
        ("[1, 2]\n[3, 4\n", ": line 2 is not JSON: "),
        ("[1, 2]\n\xff\n", ": line 2 is not JSON: "),
        ("[1, 2]\n\n[3]\n", ": line 3 has (1,) values, the first (2,)"),
        ('[1, 2]\n[3, "x"]\n', ": line 2 holds something else than numbers"),
        ("[1, 2]\n5\n", ": line 2 is no array"),
        ("5\n", ": line 1 is no array"),
        ('{"a": 1}\n[1]\n', ": line 2 is no object"),
        ('{"a": 1, "b": 2}\n{"a": 1}\n', ": line 2 has other keys than the first, a, b"),
        ('{"a": 1}\n{"a": "x"}\n', ": line 2 holds something else than numbers"),
    ],
)  # fmt: skip
def test_bad_json_lines_are_refused_with_their_line(tmp_path: Path, content: str, said: str) -> None:
    path = write(tmp_path / "x.jsonl", content.encode("latin-1"))

    assert refused(path).message.startswith(f"{path}{said}")


# --- npz -------------------------------------------------------------------------------------


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_npz_takes_the_only_array_of_rows_or_the_one_called_windows(tmp_path: Path) -> None:
    check(read_samples(npz(tmp_path / "a.npz", x=np.array(ROWS), y=np.array([0, 1]))), None, None)
    check(read_samples(npz(tmp_path / "b.npz", windows=np.array(ROWS), other=np.zeros((2, 2)))), None, None)
    check(read_samples(npz(tmp_path / "c.npz", p=np.zeros((2, 2)), q=np.array(ROWS)), array="q"), None, None)


def test_npz_labels(tmp_path: Path) -> None:
    for labels, expected in ((np.array([0, 1]), ("0", "1")), (np.array(["healthy", "broken"]), ("healthy", "broken"))):
        check(read_samples(npz(tmp_path / "a.npz", x=np.array(ROWS), y=labels), label_array="y"), None, expected)


def test_npz_misfits_are_refused_by_name(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", p=np.zeros((2, 2)), q=np.zeros((2, 2)), y=np.zeros(3))

    error = refused(path)
    assert (error.message, error.hint) == (f"{path} holds the arrays p, q, y", "choose with --array NAME")
    for found in (refused(path, array="r"), refused(path, array="p", label_array="r")):
        assert (found.message, found.hint) == (f"{path} has no array 'r'", "it holds p, q, y")
    assert refused(path, array="p", label_array="y").message == f"{path}: 2 samples in p and 3 labels in y"


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    good = npz(tmp_path / "good.npz", x=np.array(ROWS)).read_bytes()
    bare = io.BytesIO()
    np.save(bare, np.array(ROWS))
    pickled = npz(tmp_path / "p.npz", x=np.array([[{}, {}]], dtype=object)).read_bytes()
    for content in (b"", b"PK", good[: len(good) // 2], b"hello, world", bare.getvalue(), pickled):
        error = refused(write(tmp_path / "x.npz", content))
        assert isinstance(error, FormatError)
        assert "is damaged, or no .npz file" in error.message


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none.csv", "none.jsonl", "none.npz"])
def test_an_absent_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingFileError, match=f"{tmp_path}/{name} cannot be read: No such file"):
        read_samples(tmp_path / name)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path}/x.parquet is none of .npz, .csv and .jsonl"):
        read_samples(write(tmp_path / "x.parquet", ""))


# --- encode ----------------------------------------------------------------------------------


def test_encoded_readings() -> None:
    """What `edged send` puts on the wire; test_decode.py reads it back."""
    row, rows = np.array(ROWS[0], np.float32), np.array(ROWS, np.float32)

    assert encode_reading(row, "json", None) == b"[0.5,-2.0]"
    assert msgspec.json.decode(encode_reading(row, "json", ("a1", "a2"))) == {"a1": 0.5, "a2": -2.0}
    assert msgspec.json.decode(encode_reading(rows, "json", None)) == ROWS
    assert encode_reading(rows, "csv", None) == encode_reading(rows, "text", ("a1", "a2")) == b"0.5,-2.0\n3.0,4.25"
    assert encode_reading(rows, "f32le", None) == rows.astype("<f4").tobytes()
    assert cbor2.loads(encode_reading(row, "cbor", None)) == cbor2.CBORTag(85, row.tobytes())


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="format 'xml' is none of json, text, csv, cbor and f32le"):
        encode_reading(np.zeros(2, np.float32), "xml", None)
