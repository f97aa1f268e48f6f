"""Archives of arrays (.npz) from people's disks: nothing is unpacked beyond a bound, whatever the file claims."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edged.base.errors import FormatError, MissingFileError

_format: Any = np.lib.format
_MOST_ARRAYS = 1024
_SUFFIX = ".npy"
_BROKEN = (
    ValueError, TypeError, KeyError, EOFError, SyntaxError, MemoryError, OverflowError, RuntimeError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Errors of numpy and zipfile for a file that is damaged or made to harm."""


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Archive:
    """An open archive.

    :ivar names: of its arrays.
    """

    def __init__(self, path: Path, zipped: zipfile.ZipFile, limit: int) -> None:
        self._path, self._zipped, self._left = path, zipped, limit
        if len(zipped.infolist()) > _MOST_ARRAYS:
            raise FormatError(f"{path} holds more than {_MOST_ARRAYS} arrays")
        self.names = [name.removesuffix(_SUFFIX) for name in zipped.namelist() if name.endswith(_SUFFIX)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array, without unpacking it."""
        with self._zipped.open(name + _SUFFIX) as file:
            return self._read_header(file).shape

    def read(self, name: str) -> npt.NDArray[Any]:
        """Unpack an array.

        :raises FormatError: with it, more is unpacked than this archive may.
        """
        with self._zipped.open(name + _SUFFIX) as file:
            size = self._read_header(file).size
        self._left -= size
        if self._left < 0:
            raise FormatError(f"{self._path} unpacks to more than is allowed, with {size} bytes in array {name!r}")
        with self._zipped.open(name + _SUFFIX) as file:
            array: npt.NDArray[Any] = _format.read_array(file, allow_pickle=False)
        return array

    @staticmethod
    def _read_header(file: IO[bytes]) -> _Header:
        read = {(1, 0): _format.read_array_header_1_0, (2, 0): _format.read_array_header_2_0}
        version = _format.read_magic(file)
        if version not in read:
            raise ValueError(f"an array of format {version}, which is not read")
        shape, _, dtype = read[version](file)
        if dtype.hasobject or not dtype.itemsize:
            raise ValueError("an array of objects, or of values without a size")
        return _Header(shape, dtype)


@contextmanager
def open_npz(path: Path, limit: int) -> Iterator[Archive]:
    """Open an archive.

    :param limit: bytes that all arrays read from it may take.
    :raises MissingFileError: it cannot be read.
    :raises FormatError: it is damaged, no archive, or holds more; reading in the block raises the same.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as zipped:
            yield Archive(path, zipped, limit)
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except _BROKEN as error:
        raise FormatError(f"{path} is damaged, or no .npz file: {type(error).__name__}: {error}") from error
