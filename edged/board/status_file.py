"""The status file: what the daemon of a state directory says of itself, in RAM, for `edged status` on the same machine.

systemd gives a directory for it. Without one it stands below ``/dev/shm``, in a directory of the daemon's user alone.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from edged.base.errors import EdgedError
from edged.base.files import SHARED_FILE, check_private, make_private_directory, read_bounded, write_atomically
from edged.base.lock import Lock
from edged.base.notify import runtime_directory

_NAME = "status.json"
_SERVICE = Path("/run/edged") / _NAME
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  see above
_LIMIT = 1 << 20


class StatusFile:
    """Writes the status file.

    :param state: the state directory.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        directory = runtime_directory()
        self._path: Path | None = _own_path(state) if directory is None else directory / _NAME
        if directory is None:
            try:
                make_private_directory(_own_path(state).parent)
            except EdgedError:
                self._path = None

    def write(self, facts: Mapping[str, object]) -> None:
        """Replace what was said before.

        :raises OutputError: it cannot be written.
        """
        if self._path is not None:
            told = msgspec.json.encode({"state": str(self._state), "pid": os.getpid(), **facts})
            write_atomically(self._path, [told], mode=SHARED_FILE, replace=True, durable=False)

    def close(self) -> None:
        """Remove the file, unless it stands where systemd looks after it."""
        if self._path == _own_path(self._state):
            with suppress(OSError):
                self._path.unlink()
                self._path.parent.rmdir()


def read_status(state: Path) -> dict[str, Any] | None:
    """Return what the daemon of a state directory last said of itself."""
    directory = runtime_directory()
    for path in (_own_path(state), _SERVICE) if directory is None else (directory / _NAME,):
        with suppress(EdgedError, msgspec.DecodeError):
            if path == _own_path(state):
                check_private(path.parent)
            told = msgspec.json.decode(read_bounded(path, _LIMIT), type=dict[str, Any])
            if told.get("state") == str(state):
                return told
    return None


def is_running(state: Path, told: Mapping[str, Any] | None) -> bool:
    """Return True if a daemon runs on a state directory.

    :param told: what it last said of itself: its process counts where the lock is gone, as with its directory.
    """
    held = Lock.is_held(state)
    if held is not None:
        return held
    pid = None if told is None else told.get("pid")
    return isinstance(pid, int) and _lives(pid)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except OSError:
        return False
    return True


def _own_path(state: Path) -> Path:
    return _SHARED_MEMORY / f"edged-{os.geteuid()}" / f"{zlib.crc32(os.fsencode(state)):08x}.json"
