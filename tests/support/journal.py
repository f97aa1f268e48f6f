"""A real systemd-journald of one's own, in a mount namespace of its own: the machine's journal sees nothing of it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.process import Server

_JOURNALD = Path("/lib/systemd/systemd-journald")
_DEBIANS = Path("/usr/lib/python3/dist-packages/systemd")
_CONFIG = "[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nRateLimitBurst=0\\n"
_START = f"""
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journald.conf.d
printf '{_CONFIG}' >/run/systemd/journald.conf.d/test.conf
exec {_JOURNALD}
"""
# What systemd does before it starts a service: standard error is a stream to the journal, which prefixes are read from.
_EXEC = """
import os, socket, sys
stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
stream.connect("/run/systemd/journal/stdout")
stream.sendall(b"edged\\n\\n6\\n1\\n0\\n0\\n0\\n")
os.dup2(stream.fileno(), 2)
found = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
os.execv(sys.argv[1], sys.argv[1:])
"""


def cannot_journal() -> str:
    """Return why no journal can be had here; empty if one can."""
    if os.geteuid() != 0:
        return "a journal of one's own needs root"
    if not _JOURNALD.exists() or not shutil.which("nsenter"):
        return "this machine has no systemd-journald, or no nsenter"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "this machine gives no mount namespace"
    return ""


def systemd_python(directory: Path) -> str | None:
    """Return what PYTHONPATH has to hold for systemd-python: Debian's, where this Python is the one that it is for."""
    before = os.environ.get("PYTHONPATH", "")
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec("systemd.journal"):
            return before
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}-"
    if not any(tag in path.name for path in _DEBIANS.glob("_journal.*.so")):
        return None
    (directory / "systemd").symlink_to(_DEBIANS)
    return os.pathsep.join(filter(None, (str(directory), before)))


class Journal(Server):
    """A journal, to be used in a ``with`` block."""

    def __init__(self) -> None:
        super().__init__(("unshare", "--mount", "--propagation", "private", "sh", "-ec", _START), {}, self._listens)

    def _listens(self) -> bool:
        return Path("/proc", str(self.pid), "root", "run/systemd/journal/stdout").exists()  # as it sees it

    @property
    def inside(self) -> tuple[str, ...]:
        """Prefix of a command that runs where the journal is seen."""
        return ("nsenter", "--target", str(self.pid), "--mount", "--wd=.")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What stands before a command (by its path) to run it as a service: with standard error in the journal."""
        return (*self.inside, sys.executable, "-c", _EXEC)

    def run(self, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as a service."""
        return subprocess.run(
            [*self.prefix, *command],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ctl(self, *arguments: str) -> str:
        """Return what `journalctl` prints."""
        return self._in("journalctl", "--no-pager", *arguments)

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """Return what was written and matches, the oldest first."""
        self._in("journalctl", "--sync")
        found = self.ctl("--output=json", "--all", *matches)
        return [json.loads(line) for line in found.splitlines()]

    def _in(self, *command: str) -> str:
        done = subprocess.run([*self.inside, *command], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout
