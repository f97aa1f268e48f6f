"""What the machine says of itself: versions, memory, disk, files; and what commands print, bounded in time and size."""

from __future__ import annotations

import os
import platform
import shutil
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from edged import __version__
from edged.base.machine import has_memory_controller, swap_areas

_LIBRARIES = (
    *("numpy", "tflite-runtime", "ai-edge-litert", "cryptography", "cbor2", "paho-mqtt", "msgspec", "click"),
    *("systemd-python", "pillow", "python-pkcs11", "tpm2-pytss"),
)
_MEMORY = ("MemTotal", "MemFree", "MemAvailable", "SwapTotal", "SwapFree", "Mlocked", "Shmem")
_MOST_FILES = 1000
_SECONDS = 60.0


class Printed(NamedTuple):
    """What a command printed. ``code`` is None for one that is absent, or that was ended."""

    code: int | None
    out: str
    whole: bool


def run(command: Sequence[str], most: int) -> Printed:
    """Run a command without input, for a minute at most.

    :param most: bytes of its output that are kept.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    try:
        process = subprocess.Popen(  # noqa: S603  fixed commands
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
    except OSError as error:
        return Printed(None, f"{command[0]}: {error.strerror}", whole=True)
    timer = threading.Timer(_SECONDS, process.kill)
    timer.start()
    with process:
        out = b"" if process.stdout is None else process.stdout.read(most + 1)
        whole = len(out) <= most
        if not whole:
            process.kill()
    timer.cancel()
    return Printed(process.returncode if process.returncode >= 0 else None, out[:most].decode(errors="replace"), whole)


def edged(*arguments: str) -> list[str]:
    """Return a command line of this edged's own."""
    return [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "edged", *arguments]


def versions() -> dict[str, Any]:
    """Return what runs here."""
    found: dict[str, Any] = {}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    system = os.uname()
    return {
        "edged": __version__,
        "python": sys.version,
        "libraries": found,
        "openssl": ssl.OPENSSL_VERSION,
        "libc": " ".join(platform.libc_ver()),
        "kernel": f"{system.sysname} {system.release} {system.version}",
        "machine": system.machine,
        "system": _os_release(),
        "board": _read("/proc/device-tree/model").strip("\0\n"),
    }


def machine(directory: Path) -> dict[str, Any]:
    """Return memory, processors, swap, cgroups, and the disk that ``directory`` stands on."""
    memory = (line.split(":") for line in _read("/proc/meminfo").splitlines())
    usage = shutil.disk_usage(directory) if directory.exists() else None
    return {
        "processors": os.cpu_count(),
        "load": _read("/proc/loadavg").strip(),
        "uptime": _read("/proc/uptime").split(" ")[0],
        "memory": {name: value.strip() for name, value in memory if name in _MEMORY},
        "swap": swap_areas(),
        "memory controller": has_memory_controller(),
        "command line": [word for word in _read("/proc/cmdline").split() if word.startswith("cgroup_")],
        "disk": None if usage is None else usage._asdict(),
        "mount": _mount(directory),
    }


def files(directory: Path) -> list[str]:
    """Return mode, owner, size and name of each file below ``directory``, and nothing of what they hold."""
    found = []
    for path in sorted(directory.rglob("*"))[:_MOST_FILES]:
        with suppress(OSError):
            of = path.lstat()
            name = path.relative_to(directory)
            found.append(f"{stat.filemode(of.st_mode)} {of.st_uid:>6}:{of.st_gid:<6} {of.st_size:>12} {name}")
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _os_release() -> str:
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return ""


def _mount(directory: Path) -> str:
    """Return the file system of ``directory`` and how it is mounted."""
    mounts = [line.split() for line in _read("/proc/self/mounts").splitlines()]
    holding = [one for one in mounts if directory.is_relative_to(one[1])]
    if not holding:
        return ""
    deepest = max(holding, key=lambda one: len(one[1]))
    return " ".join(deepest[:4])
