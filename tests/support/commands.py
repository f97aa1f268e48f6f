"""edged's command line: in the test's process where it only makes something, as a process where it is under test."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from edged.cli import main

Done = subprocess.CompletedProcess[str]


def run_edged(*arguments: object, cwd: Path, check: bool = True, **options: Any) -> Done:
    """Run a command line of edged as users do, in a process of its own."""
    options.setdefault("stdin", subprocess.DEVNULL)
    command = [sys.executable, "-m", "edged", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **options)
    return _checked(done, check=check)


def edged(*arguments: object, cwd: Path, check: bool = True) -> Done:
    """Run a command line of edged in this process: a tenth of the time, and the same code from its entry point on."""
    words = ["edged", *map(str, arguments)]
    out, err = _Output(), _Output()
    code: object = 0
    with (
        contextlib.chdir(cwd),
        Path(os.devnull).open() as nothing,
        mock.patch.multiple(sys, argv=words, stdin=nothing),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _logging_of_its_own(),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return _checked(Done(words, int(code or 0), out.text(), err.text()), check=check)  # type: ignore[call-overload]


class _Output(io.TextIOWrapper):
    """Output of a command, as text or as bytes."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, "utf-8", write_through=True)

    def text(self) -> str:
        return self._bytes.getvalue().decode()


@contextlib.contextmanager
def _logging_of_its_own() -> Iterator[None]:
    """Put back what a command changes for its process: the root logger's handlers are pytest's."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:], root.level, sys.excepthook = handlers, level, hook


def _checked(done: Done, *, check: bool) -> Done:
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, done.args))} left with {done.returncode}:\n{done.stderr}")
    return done
