"""A lock on a state directory, so that one daemon runs on it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from edged.base.errors import StateError, StateLockedError
from edged.base.files import make_private_directory


class Lock:
    """A process's exclusive hold on a state directory, until closed or the process ends.

    :param name: of the file that is locked, where several processes may share the directory.
    :raises StateLockedError: another process holds it.
    :raises StateError: it cannot be taken.
    """

    def __init__(self, directory: Path, name: str = "lock") -> None:
        make_private_directory(directory)
        path = directory / name
        try:
            self._descriptor = _open(path)
        except OSError as error:
            raise StateError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise StateLockedError(
                f"another edged already runs on {directory}", hint="one daemon to one state directory"
            ) from error

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # flock(2) asks for no more
