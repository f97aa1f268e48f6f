"""A control group for each host, below the one that the tests are in, in every hierarchy that the machine has."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

_TOP = Path("/sys/fs/cgroup")
_ENTER = 'while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift; exec "$@"'
_VERSION_1 = ("memory", "cpu", "cpuacct", "pids", "devices", "blkio")


class Cgroups:
    """The groups named ``name``."""

    def __init__(self, name: str) -> None:
        self._paths = [directory / name for directory in _own()]

    def entering(self, *command: str) -> list[str]:
        """Make them, and return a command that enters them before it becomes ``command``."""
        for path in self._paths:
            path.mkdir(exist_ok=True)
            if path.parent.joinpath("cpuset.cpus").exists() and not path.joinpath("cgroup.type").exists():
                for name in ("cpuset.cpus", "cpuset.mems"):  # version 1: nobody may enter until they are set
                    (path / name).write_text((path.parent / name).read_text())
        return ["sh", "-c", _ENTER, "sh", *(f"{path}/cgroup.procs" for path in self._paths), "--", *command]

    def hand_over(self, leader: int) -> bool:
        """Let the host's systemd write into groups of version 1; return whether there are any.

        systemd-nspawn mounts them read-only where both versions are in use: MemoryMax= would do nothing, and say so
        nowhere.
        """
        if not (_TOP / "unified").is_dir():
            return False
        for name in _VERSION_1:
            if (_TOP / name).is_dir():
                mount = ("mount", "-o", "remount,rw,bind", f"/sys/fs/cgroup/{name}")
                subprocess.run(("nsenter", "-t", str(leader), "-m", *mount), capture_output=True, check=False)
        return True

    def remove(self) -> None:
        """Remove them, with the groups that the host's systemd has made in them."""
        for path in self._paths:
            for directory, _, _ in os.walk(path, topdown=False):
                with suppress(OSError):
                    Path(directory).rmdir()


def _own() -> list[Path]:
    found = set()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        names = controllers.removeprefix("name=").split(",")[0]
        top = _TOP / (names or "unified")
        if not names and not top.is_dir():
            top = _TOP  # version 2 alone
        found.add(top / path.strip("/"))
    return sorted(found)
