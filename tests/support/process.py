"""The one way to start a process, to hear from it and to end it."""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from support.waiting import PATIENCE, wait_until

_T = TypeVar("_T")
_numbers = itertools.count()
_LONGEST = 900
"""Seconds after which a server ends by itself, should the test be killed."""
_UNIT = Path(__file__).resolve().parents[2] / "systemd" / "edged.service"
UNIT_ENVIRONMENT = dict(
    pair.split("=", 1)
    for line in re.findall(r"^Environment=(.*)$", _UNIT.read_text(), re.MULTILINE)
    for pair in line.split()
)
"""Environment that the unit gives the daemon."""


class Service:
    """A process as systemd starts it: with a notification socket, and standard error in a file.

    :param name: of the log in ``path``, which is where the process runs.
    :ivar states: what it has told systemd.
    """

    def __init__(
        self, command: Sequence[object], path: Path, name: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.notify_path = path / f"notify-{time.monotonic_ns()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.notify_path))
        self.log_path = path / f"{name}.log"
        self._log_from = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.states: list[str] = []
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, command)],
                cwd=path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(self.notify_path), **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything that it and those before it logged."""
        return self.log_path.read_text()

    @property
    def said(self) -> str:
        """Log of this process alone."""
        return self.log_path.read_bytes()[self._log_from :].decode()

    def wait_for(self, wanted: str, timeout: float = PATIENCE) -> str:
        """Wait until a notification holds ``wanted``, and return it.

        :raises AssertionError: it leaves, or does not say so in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if select.select([self._socket], [], [], 0.1)[0]:
                self.states.append(self._socket.recv(4096).decode())
                if wanted in self.states[-1]:
                    return self.states[-1]
            elif self.process.poll() is not None:
                raise AssertionError(f"it left with {self.process.returncode}:\n{self.said}")
        raise AssertionError(f"no {wanted} within {timeout} s:\n{self.states}\n{self.said}")

    def wait_ready(self) -> None:
        """Wait for READY=1."""
        self.wait_for("READY=1")

    def wait_logged(self, wanted: str) -> None:
        """Wait until a log line of this process holds ``wanted``."""
        wait_until(lambda: wanted in self.said, told=lambda: f"{wanted!r} in\n{self.said}")

    def wait_left(self) -> int:
        """Wait until it has ended by itself; return its exit code."""
        code = self.process.wait(PATIENCE)
        self._forget()
        return code

    def reload(self) -> None:
        """Send SIGHUP and wait until it is done."""
        self.process.send_signal(signal.SIGHUP)
        self.wait_for("RELOADING=1")
        self.wait_ready()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.wait_left()

    def stop(self) -> int:
        """End it as systemd does, with SIGTERM and later SIGKILL; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self._forget()

    def _forget(self) -> None:
        self._socket.close()
        self.notify_path.unlink(missing_ok=True)


class DaemonProcess(Service):
    """`edged run` in a site's directory, in the environment that the unit gives it.

    :param prefix: what stands before the command; ``program``: what Python is told to run.
    """

    def __init__(
        self,
        path: Path,
        *,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        program: Sequence[str] = ("-m", "edged"),
    ) -> None:
        command = [*prefix, sys.executable, *program, "run", "-c", "edged.toml"]
        super().__init__(command, path, "daemon", {**UNIT_ENVIRONMENT, **(environment or {})})


class Listener:
    """A program that prints results as lines of JSON, and says on standard error what it does, until the block ends."""

    def __init__(self, command: Sequence[object], path: Path) -> None:
        self._command = [*map(str, command)]
        self._path = path
        number = next(_numbers)
        self._printed, self._said = (path / f"listener-{number}.{name}" for name in ("out", "log"))

    def __enter__(self) -> Self:
        with self._printed.open("wb") as out, self._said.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self._path, stdin=subprocess.DEVNULL, stdout=out, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def said(self) -> list[str]:
        """The lines that it has said."""
        return self._said.read_text().splitlines()

    @property
    def printed(self) -> list[dict[str, Any]]:
        """The results that it has printed."""
        return [json.loads(line) for line in self._printed.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"]

    def wait_connected(self) -> None:
        """Wait until the board's announcement is believed: from then on no result is missed."""
        self.wait_said("announces epoch")

    def wait_said(self, wanted: str, times: int = 1) -> str:
        """Wait until it says ``wanted`` for the so manieth time, and return the line."""
        return self._wait(lambda: [line for line in self.said if wanted in line][times - 1 :], wanted)[0]

    def wait_printed(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many results, and return all."""
        self._wait(lambda: len(self.printed) >= count, f"{count} results")
        return self.printed

    def wait_left(self) -> int:
        """Wait until it leaves by itself; return its exit code."""
        return self.process.wait(2 * PATIENCE)

    def results(self) -> list[dict[str, Any]]:
        """Wait until it leaves by itself; return what it printed."""
        self.wait_left()
        return self.printed

    def _wait(self, holds: Callable[[], _T], what: str) -> _T:
        def running() -> _T:
            has_left = self.process.poll() is not None
            found = holds()
            assert found or not has_left, f"it left before {what}: {self.said}"
            return found

        return wait_until(running, told=lambda: f"{what}: {len(self.printed)} results, {self.said}")


class Server:
    """A process that is no subject of a test, and ends by itself if the test cannot end it.

    :param command: of the server.
    :param is_up: whether it serves; an OSError means that it does not yet.
    :param log: the file for what it says, which is thrown away without one.
    """

    def __init__(
        self,
        command: Sequence[object],
        environment: Mapping[str, str],
        is_up: Callable[[], object] = lambda: True,
        log: Path | None = None,
    ) -> None:
        self._command = ["timeout", str(_LONGEST), *map(str, command)]
        self._environment = {**os.environ, **environment}
        self._is_up = is_up
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything that it has said, over all its starts."""
        return "" if self._log is None or not self._log.exists() else self._log.read_text(errors="replace")

    def start(self) -> None:
        """Start, and wait until it serves.

        :raises AssertionError: it ended instead.
        """
        with (self._log or Path(os.devnull)).open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.wait(self._is_up)

    def wait(self, holds: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Wait until something holds, as long as the server runs."""

        def running() -> object:
            assert self._process is not None
            assert self._process.poll() is None, f"{self._command[2]} left with {self._process.returncode}: {self.log}"
            try:
                return holds()
            except OSError:
                return False

        wait_until(running, timeout, told=lambda: f"{self._command[2]}: {self.log[-3000:]}")

    def kill(self) -> None:
        """End it as a power cut would."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End it as an administrator would; does nothing if it does not run."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server itself, below ``timeout``."""
        assert self._process is not None
        if not (found := children(self._process.pid)):
            raise ProcessLookupError(f"{self._command[2]} does not run")
        return found[0]


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
