"""Processes that a test starts, waits for and ends."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_SECONDS = 20
_LONGEST = 900
"""Seconds after which what a test started ends by itself, should the test be killed."""


class Server:
    """A process that ends with the test, and by itself if the test cannot end it."""

    def __init__(self, command: Sequence[object], environment: dict[str, str]) -> None:
        self._command = ["timeout", str(_LONGEST), *map(str, command)]
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, is_up: Callable[[], bool]) -> None:
        """Start, and wait until ``is_up`` says so.

        :raises OSError: it ended instead.
        """
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + _SECONDS
        while not is_up():
            if self._process.poll() is not None or time.monotonic() > until:
                raise OSError(f"{self._command[2]} did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_SECONDS)

    @property
    def pid(self) -> int:
        """The server itself, below ``timeout``."""
        assert self._process is not None
        return children(self._process.pid)[0]


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def two_free_ports() -> int:
    """Return a port that is free on the loopback, as is the one behind it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
