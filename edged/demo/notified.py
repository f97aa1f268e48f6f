"""The other end of sd_notify(3): what a supervisor hears from the daemon."""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from edged.base.errors import EdgedError

_LONGEST = 4096


class NotifySocket:
    """A socket to be named in ``$NOTIFY_SOCKET``.

    :param path: where it is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def environment(self) -> dict[str, str]:
        """Return this process's environment with the socket's name in it."""
        return {**os.environ, "NOTIFY_SOCKET": str(self._path)}

    def wait_for(self, wanted: str, timeout: float) -> str:
        """Return the first notification that holds ``wanted``.

        :raises EdgedError: none came within ``timeout`` seconds.
        """
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            readable, _, _ = select.select([self._socket], [], [], left)
            if readable and wanted in (state := self._socket.recv(_LONGEST).decode()):
                return state
        raise EdgedError(f"the daemon did not say {wanted} within {timeout:.0f} s", hint="its log is shown above")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)
