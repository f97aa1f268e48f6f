"""Flower's own programs as children: each with an environment that asks nobody home, and its secrets in RAM.

Secrets reach a child as a memfd that it opens by the name of its descriptor: they stand in no file, no argument and no
environment.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from edged.base.errors import ConfigError
from edged.base.files import make_private_directory
from edged.federated.flower import SWITCHES

_GRACE = 10.0
"""Seconds that a child has to end by itself."""

_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "NO_PROXY", "HTTPS_PROXY", "https_proxy", "no_proxy")


class Child:
    """One of Flower's programs, which ends with the thread that started it: the main one, where it is to last.

    :param program: its name; it stands beside this Python.
    :param arguments: after its name; :class:`Secret` stands for the path of one.
    :param home: a private directory for whatever it keeps.
    :param log: a file for what it says; default: where this process writes.
    """

    def __init__(self, program: str, arguments: Sequence[str | Secret], home: Path, log: Path | None = None) -> None:
        path = Path(sys.executable).with_name(program)
        if not path.exists():
            raise ConfigError(f"{path} does not exist", hint="pip install 'edged[federated]' beside edged itself")
        make_private_directory(home)
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        with ExitStack() as stack:
            passed: list[int] = []
            command = [str(path)]
            for argument in arguments:
                if isinstance(argument, Secret):
                    descriptor = argument.open()
                    stack.callback(os.close, descriptor)
                    passed.append(descriptor)
                    command.append(f"/proc/self/fd/{descriptor}")
                else:
                    command.append(argument)
            output = None if log is None else stack.enter_context(log.open("ab"))
            self.process = subprocess.Popen(  # noqa: S603  our own arguments; -P: nothing is imported from where it stands
                [sys.executable, "-P", "-c", _STARTER, str(os.getpid()), *command],
                env={**kept, **SWITCHES, "FLWR_HOME": str(home), "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=passed,
                cwd=home,
            )

    @property
    def running(self) -> bool:
        """True until the program has ended."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the program: first by a signal, after some seconds by force."""
        if self.running:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE)
        if self.running:
            self.process.kill()
        self.process.wait(_GRACE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class Secret:
    """Bytes that a child reads from a file in RAM.

    :param name: what the file is called in /proc.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self._name = name
        self._content = content

    def open(self) -> int:
        """Return a descriptor that a child may inherit; the content cannot be changed any more."""
        descriptor = os.memfd_create(self._name, os.MFD_ALLOW_SEALING)
        with suppress(OSError):
            os.fchmod(descriptor, 0o400)
        os.write(descriptor, self._content)
        seals = _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW | _F_SEAL_WRITE
        fcntl.fcntl(descriptor, _F_ADD_SEALS, seals)
        return descriptor


_F_ADD_SEALS = 1033  # fcntl(2); Python 3.11 does not name it
_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW, _F_SEAL_WRITE = 1, 2, 4, 8

_STARTER = """
import ctypes, os, runpy, signal, sys
parent, sys.argv = int(sys.argv[1]), sys.argv[2:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the process that started it
if os.getppid() != parent:
    sys.exit(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
