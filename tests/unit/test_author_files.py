"""Files of an author: none of them leads elsewhere, and none unpacks or nests without bound."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edged.base.errors import ConfigError, EdgedError, FormatError
from edged.config.load import read_toml
from edged.model.author import Author
from edged.model.npz import open_npz
from edged.model.samples import read_samples

MANIFEST = """
name = "gearbox"
version = 3
{}

[input]
channels = ["a1"]

[window]
size = 2

[output]
kind = "classifier"
labels = ["good", "bad"]

[self_test]
file = "{}"
"""
MEGABYTE = 1 << 20


def author(folder: Path, more: str = "", file: str = "selftest.npz") -> Author:
    folder.mkdir(exist_ok=True)
    (folder / "model.toml").write_text(MANIFEST.format(more, file))
    return Author.read(folder / "model.toml")


# --- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link", "sub/../../secret", "nul\\u0000", "round"])
def test_a_card_or_self_test_elsewhere_is_not_read(tmp_path: Path, name: str) -> None:
    """Their content goes to boards, and a card to everybody who sees the package."""
    folder = tmp_path / "author"
    folder.mkdir()
    (tmp_path / "secret").write_text("a private key")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "round").symlink_to(folder / "round")
    with pytest.raises(ConfigError, match="card: "):
        author(folder, f'card = "{name}"').fields(folder)
    with pytest.raises(ConfigError, match=r"self_test\.file: "):
        author(folder, file=name).read_self_test(folder)


def test_a_card_below_the_manifest_is_read(tmp_path: Path) -> None:
    made = author(tmp_path / "author", 'card = "docs/card.md"')
    (tmp_path / "author" / "docs").mkdir()
    (tmp_path / "author" / "docs" / "card.md").write_text("fine")
    assert made.fields(tmp_path / "author")["card"] == "fine"


def test_a_card_that_is_no_text_is_refused_in_words(tmp_path: Path) -> None:
    made = author(tmp_path / "author", 'card = "card.md"')
    (tmp_path / "author" / "card.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        made.fields(tmp_path / "author")


@pytest.mark.parametrize("more", ["minimum = 4", "minimum = 0", "minimum = -1"])
def test_a_minimum_lies_between_1_and_the_version(tmp_path: Path, more: str) -> None:
    with pytest.raises(ConfigError, match="minimum"):
        author(tmp_path / "author", more)


# --- archives --------------------------------------------------------------------------------


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


def bomb(path: Path, size: int, **members: bytes) -> Path:
    """Write an archive of members that are followed by ``size`` zeros each."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, head in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                file.write(head)
                for _ in range(size // MEGABYTE):
                    file.write(bytes(MEGABYTE))
    return path


BOUNDED = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from edged.base.errors import EdgedError
from edged.model.author import Author
from edged.model.samples import read_samples
import numpy
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path = Path(sys.argv[1])
try:
    Author.read(path / "model.toml").read_self_test(path) if path.is_dir() else read_samples(path)
except EdgedError as error:
    print(error.message)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, file=sys.stderr)
"""


def in_bounds(path: Path) -> str:
    """Read ``path`` in a process of its own; return what it is refused with, once memory was as it should be."""
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stderr) < 64 * 1024, f"{done.stderr} kB"
    return done.stdout


def test_an_npz_that_unpacks_to_gigabytes_is_refused_unpacked(tmp_path: Path) -> None:
    author(tmp_path / "author")
    shape = f"({1 << 28}, 2, 1)"
    bomb(tmp_path / "author" / "selftest.npz", 1 << 28, windows=header(shape), scores=header(f"({1 << 28}, 2)"))
    assert "unpacks to more than is allowed" in in_bounds(tmp_path / "author")
    assert "unpacks to more than is allowed" in in_bounds(bomb(tmp_path / "x.npz", 0, x=header(shape)))


def test_arrays_are_counted_together(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(1000, np.uint8), b=np.zeros(1000, np.uint8))
    with open_npz(tmp_path / "x.npz", 2000) as archive:
        assert archive.shape("a") == archive.read("a").shape == archive.read("b").shape
    with open_npz(tmp_path / "x.npz", 1999) as archive:
        archive.read("a")
        with pytest.raises(FormatError, match="more than is allowed"):
            archive.read("b")


@pytest.mark.parametrize(
    "content",
    [
        header("(" * 3000 + ")" * 3000),
        header("(1, " * 300),
        header("(-1,)"),
        header("(2,)", "V0"),
        header("(2,)", "O"),
        header("(1 << 99,)"),
        b"\x93NUMPY\x02\0\xff\xff\xff\xff",
        b"\x93NUMPY\x09\0" + bytes(100),
        b"",
    ],
    ids=["nested", "open", "negative", "without size", "objects", "huge", "endless head", "unknown version", "empty"],
)
def test_a_header_made_to_harm_is_a_format_error(tmp_path: Path, content: bytes) -> None:
    path = bomb(tmp_path / "x.npz", 0, x=content)
    with pytest.raises(EdgedError) as refused:
        read_samples(path)
    assert str(path) in refused.value.message


def test_thousands_of_arrays_are_too_many(tmp_path: Path) -> None:
    path = bomb(tmp_path / "x.npz", 0, **{f"a{number}": header("(1, 1)") for number in range(2000)})
    with pytest.raises(FormatError, match="more than 1024 arrays"):
        read_samples(path)


# --- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "[" * 300 + "]" * 300,
        "a = " + "{ a = " * 20_000,
        "a." * 100_000 + "a = 1",
        "[" + "a." * 100_000 + "a]",
        "[[" + '"a".' * 20_000 + "a]]",
        "x = { " + "a." * 50_000 + "a = 1 }",
    ],
    ids=["open arrays", "arrays", "inline tables", "dotted key", "header", "quoted header", "dotted key inside"],
)
def test_toml_that_nests_without_end_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match="nested more than 16 levels deep"):
        read_toml(tmp_path / "x.toml")


def test_toml_beyond_its_bound_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("a = 1\n" * 100_000)
    with pytest.raises(FormatError, match="longer than"):
        read_toml(tmp_path / "x.toml")


@pytest.mark.parametrize("text", ["a = 2020-99-99", "a = 1e", 'a = "\\uD800"', "a = 0x", "\0"])
def test_toml_that_is_none_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match="not TOML"):
        read_toml(tmp_path / "x.toml")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a":' * 100_000, "[" * 3000 + "1" + "]" * 3000])
def test_json_that_nests_without_end_is_refused_in_words(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.jsonl").write_text(f"[1]\n{line}\n")
    with pytest.raises(FormatError, match="line 2"):
        read_samples(tmp_path / "x.jsonl")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_line_without_end_is_refused_before_it_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    with path.open("wb") as file:
        file.seek(2 << 30)
        file.write(b"\n")  # a sparse file: 2 GB of zeros in one line
    assert "is longer than" in in_bounds(path)


def test_nothing_but_errors_of_edged_comes_out_of_random_bytes(tmp_path: Path) -> None:
    good = io.BytesIO()
    np.savez(good, x=np.zeros((3, 2), np.float32))
    for number in range(300):
        content = bytearray(good.getvalue())
        for at in os.urandom(4):
            content[at * len(content) // 256] = number & 0xFF
        (tmp_path / "x.npz").write_bytes(content)
        try:
            read_samples(tmp_path / "x.npz")
        except EdgedError:
            continue
