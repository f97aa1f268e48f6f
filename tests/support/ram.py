"""What root sees of another process: its memory map by map, and every file that it wrote or has open."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PTRACE, _ADMIN = 19, 21
"""CAP_SYS_PTRACE opens /proc/PID/mem of an undumpable process, CAP_SYS_ADMIN /proc/PID/map_files."""


def cannot_look() -> str:
    """Return why this process cannot look into others; empty if it can."""
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    if os.geteuid() or any(not held >> capability & 1 for capability in (_PTRACE, _ADMIN)):
        return "needs root, with CAP_SYS_PTRACE and CAP_SYS_ADMIN"
    return ""


@dataclass(frozen=True)
class Map:
    """One map of a process, as smaps describes it."""

    start: int
    end: int
    permissions: str
    name: str
    resident: int
    flags: frozenset[str]

    @property
    def locked(self) -> bool:
        """Whether it stays out of swap."""
        return "lo" in self.flags

    @property
    def undumped(self) -> bool:
        """Whether it stays out of core dumps."""
        return "dd" in self.flags

    @property
    def of_model(self) -> bool:
        """Whether it maps the nameless file that a model's weights are decrypted into."""
        return self.name.startswith("/memfd:edged-model")

    @property
    def anonymous(self) -> bool:
        """Whether it is heap, stack, or other memory without a file."""
        return not self.name or self.name.startswith("[")


def maps(pid: int) -> Iterator[Map]:
    """Yield the maps of a process."""
    lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(" ")
        if not key.endswith(":"):
            fields = {"": line}
        else:
            fields[key] = value
        if key == "VmFlags:":
            addresses, permissions, _, _, _, *name = fields[""].split(maxsplit=5)
            start, end = (int(address, 16) for address in addresses.split("-"))
            resident = int(fields["Rss:"].split()[0]) * 1024
            yield Map(start, end, permissions, *(name or [""]), resident, frozenset(value.split()))


def search_memory(pid: int, *needles: bytes) -> list[Map]:
    """Return the maps of a process that hold one of ``needles``; the process stands still meanwhile."""
    with _standing_still(pid), Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        return [each for each in maps(pid) if any(needle in _content(memory.fileno(), each) for needle in needles)]


@contextmanager
def _standing_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        while "State:\tT" not in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.001)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _content(memory: int, each: Map) -> bytes:
    """Return what a map holds; nothing for what was reserved and never touched, or is the kernel's own."""
    if (not each.resident and "r" not in each.permissions) or each.name in {"[vvar]", "[vsyscall]"}:
        return b""
    pieces = []
    at = each.start
    while at < each.end:
        try:
            piece = os.pread(memory, min(each.end - at, 1 << 26), at)
        except OSError:  # behind the end of a mapped file
            break
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def files_of(pid: int) -> dict[str, Path]:
    """Return every regular file that a process has open or mapped: its name, and a path to open it by."""
    found = {}
    for path in [*Path(f"/proc/{pid}/fd").iterdir(), *Path(f"/proc/{pid}/map_files").iterdir()]:
        if path.is_file():
            found[str(path.readlink())] = path
    return found


def files_since(then: float, folders: Sequence[Path]) -> dict[str, Path]:
    """Return every regular file below ``folders`` that was written, made or renamed since ``then`` (Unix seconds).

    What is mounted below them is left out: somebody else's /proc, say.
    """
    found = {}
    for folder in folders:
        for parent, folders_below, names in os.walk(folder):
            folders_below[:] = [name for name in folders_below if not Path(parent, name).is_mount()]
            for path in (Path(parent, name) for name in names):
                try:
                    if path.lstat().st_ctime >= then and path.is_file() and not path.is_symlink():
                        found[str(path)] = path
                except FileNotFoundError:  # somebody else's, and gone
                    continue
    return found


def holding(files: dict[str, Path], *needles: bytes) -> list[str]:
    """Return the names of those files that hold one of ``needles``."""
    found = []
    for name, path in files.items():
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        if any(needle in content for needle in needles):
            found.append(name)
    return found
