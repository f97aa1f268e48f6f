"""A lock on a state directory, so that one daemon runs on it."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
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
        self._path = directory / name
        self._descriptor = _take(self._path)
        self._note: str | None = None
        self.note("")

    def note(self, note: str) -> None:
        """Leave a note for processes that ask :meth:`contradicts`, where the disk can be written."""
        if note != self._note:
            self._note = note
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, note.encode(), 0)

    @classmethod
    def contradicts(cls, note: str, directory: Path, name: str = "lock") -> bool:
        """Return True if a process holds the lock whose note is another one."""
        with suppress(OSError, ValueError):
            said = (directory / name).read_text()
            return said not in {"", note} and bool(cls.is_held(directory, name))
        return False

    @staticmethod
    def is_held(directory: Path, name: str = "lock") -> bool | None:
        """Return True if a process holds the lock, None if it cannot be told: its file is absent, or cannot be read."""
        try:
            descriptor = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def renew(self) -> None:
        """Take the lock once more if its file was removed or replaced: another process could take it there.

        :raises StateLockedError: another process did.
        :raises StateError: it cannot be taken.
        """
        held = os.fstat(self._descriptor)
        with suppress(OSError):
            found = self._path.stat()
            if os.path.samestat(found, held):
                return
        taken = _take(self._path)
        self.close()
        self._descriptor, self._note = taken, None

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def _take(path: Path) -> int:
    try:
        descriptor = _open(path)
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StateLockedError(
            f"another edged already runs on {path.parent}", hint="one daemon to one state directory"
        ) from error
    return descriptor


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # flock(2) asks for no more
