"""A real external delegate, compiled from C: it takes no operator, and tells what the runtime told it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

_MOST_OPERATORS = 1024


class ToldDelegate:
    """The library, and what it was told.

    :ivar path: to load it by.
    """

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("gcc")
        if compiler is None:
            pytest.skip("no gcc to compile a delegate with")
        self.path = str(directory / "told.so")
        source = Path(__file__).with_name("delegate.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", self.path, source], check=True)
        self._library = ctypes.CDLL(self.path)
        self._library.given_options.restype = ctypes.c_char_p

    @property
    def options(self) -> bytes:
        """What it was created with, as ``key=value;``."""
        given: bytes = self._library.given_options()
        return given

    @property
    def destroyed(self) -> int:
        """How many there were, and are no more."""
        return int(self._library.how_many_destroyed())

    def plan(self) -> list[int]:
        """Return which nodes of the main subgraph the runtime executes now."""
        room = (ctypes.c_int * _MOST_OPERATORS)()
        return list(room[: self._library.execution_plan(room, _MOST_OPERATORS)])
