"""A support bundle: all that a maintainer needs to see of a board, and nothing that its owner must not hand out.

Each section becomes a file. :mod:`edged.board.redact` masks secrets and names in all of them.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import ssl
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from edged import __version__
from edged.base.machine import has_memory_controller, swap_areas
from edged.board.redact import Redactor, learn_board, learn_gathered, shown
from edged.config.board import BoardConfig, Device

_UNIT = "edged.service"
_MOST = 4_000_000
_JOURNAL_LINES, _JOURNAL_SINCE = 3000, "-7d"
_JOURNAL_FIELDS = ("__REALTIME_TIMESTAMP", "PRIORITY", "MESSAGE", "_PID", "_TRANSPORT", "CODE_FILE", "CODE_LINE")
_PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "FragmentPath", "DropInPaths", "Type", "User"),
    *("NRestarts", "ExecMainStartTimestamp", "ExecMainCode", "ExecMainStatus", "WatchdogUSec", "Restart", "StatusText"),
    *("MemoryCurrent", "MemoryHigh", "MemoryMax", "MemorySwapMax", "TasksCurrent", "CPUUsageNSec", "OOMScoreAdjust"),
    *("LimitMEMLOCK", "LimitCORE", "LimitNOFILE", "IPAddressAllow", "IPAddressDeny", "StateDirectory"),
)


@dataclass(frozen=True)
class Subject:
    """The subject of a bundle.

    :ivar path: of the configuration.
    :ivar config: None if it cannot be used.
    """

    path: Path
    config: BoardConfig | None

    @property
    def state(self) -> Path:
        """The state directory."""
        return Path(Device().state if self.config is None else self.config.device.state)


@dataclass(frozen=True)
class Section:
    """One file of a bundle: ``.json`` holds a JSON value, ``.jsonl`` one a line, ``.txt`` text."""

    name: str
    what: str
    gather: Callable[[Subject], Any]


def gather(path: Path, redactor: Redactor) -> dict[str, bytes]:
    """Return the files of a bundle by name, masked.

    :param path: of the board's configuration.
    """
    subject = Subject(path, learn_board(redactor, path))
    gathered = {section.name: section.gather(subject) for section in SECTIONS}
    learn_gathered(redactor, gathered)
    return {name: _encode(name, value, redactor) for name, value in gathered.items()}


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive, compressed, that only its owner may read once it is unpacked."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"edged-support/{name}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _encode(name: str, value: Any, redactor: Redactor) -> bytes:  # noqa: ANN401  what JSON holds
    masked = redactor.tree(value)
    if name.endswith(".json"):
        return f"{json.dumps(masked, indent=2, ensure_ascii=False)}\n".encode(errors="replace")
    lines = masked if name.endswith(".txt") else [json.dumps(one, ensure_ascii=False) for one in masked]
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")


def _command(*command: str) -> list[str]:
    """Return the output of a command, line by line, and its exit code if it failed."""
    printed = _run(command, _MOST)
    cut = [] if printed.whole else ["(cut)"]
    end = [] if printed.code == 0 else [f"(left with {printed.code})"]
    return [*printed.out.splitlines(), *cut, *end]


def _own(*arguments: str) -> Any:  # noqa: ANN401  what JSON holds
    """Return the JSON that one of edged's own commands prints, or else its text."""
    printed = _run(_own_command(*arguments), _MOST)
    start = min((printed.out.find(one) for one in ("[\n", "{\n", "[]") if one in printed.out), default=0)
    try:
        found, end = json.JSONDecoder().raw_decode(printed.out[start:])
    except ValueError:
        return {"code": printed.code, "printed": printed.out.splitlines()}
    said = (printed.out[:start] + printed.out[start + end :]).split("\n")
    return {"code": printed.code, "said": [line for line in said if line], "found": found}


def _configuration(subject: Subject) -> Any:  # noqa: ANN401  what JSON holds
    return "cannot be used: see check.json" if subject.config is None else shown(subject.config)


def _journal(_subject: Subject) -> list[dict[str, Any]]:
    """Return the last entries of the service, of systemd about it, and of commands, without the name of the machine."""
    bounds = (f"--lines={_JOURNAL_LINES}", f"--since={_JOURNAL_SINCE}")
    matches = (f"_SYSTEMD_UNIT={_UNIT}", "+", f"UNIT={_UNIT}", "_PID=1", "+", "SYSLOG_IDENTIFIER=edged")
    printed = _run(["journalctl", "--no-pager", "--quiet", "--output=json", *bounds, *matches], _MOST)
    found = []
    for line in printed.out.splitlines():
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:
            found.append({"MESSAGE": line})
            continue
        fields = {name: value for name, value in entry.items() if name in _JOURNAL_FIELDS or name.startswith("EDGED_")}
        found.append({name: value if isinstance(value, str) else "(not text)" for name, value in fields.items()})
    return found


def _exposure(_subject: Subject) -> list[str]:
    return _command("systemd-analyze", "--no-pager", "security", _UNIT)


def _unit(_subject: Subject) -> list[str]:
    return _command("systemctl", "--no-pager", "show", f"--property={','.join(_PROPERTIES)}", _UNIT)


SECTIONS = (
    Section("versions.json", "edged, Python, libraries, kernel, system, board", lambda _: _versions()),
    Section("configuration.json", "the configuration; of secrets only where they are", _configuration),
    Section("check.json", "`edged check`", lambda of: _own("check", "--json", str(of.path))),
    Section("status.json", "`edged status`", lambda of: _own("status", "--json", "-c", str(of.path))),
    Section("models.json", "`edged models`", lambda of: _own("models", "--json", "-c", str(of.path))),
    Section(
        "audit.json",
        "the last 200 entries of `edged audit`",
        lambda of: _own("audit", "-n", "200", "--json", "-c", str(of.path)),
    ),
    Section(
        "journal.jsonl", f"the last {_JOURNAL_LINES} entries of {_UNIT} in the journal, of 7 days at most", _journal
    ),
    Section("unit.txt", f"state and limits of {_UNIT} (systemctl show)", _unit),
    Section("exposure.txt", f"what {_UNIT} may do (systemd-analyze security)", _exposure),
    Section("machine.json", "memory, processors, swap, cgroups, disk", lambda of: _machine(of.state)),
    Section("files.txt", "names, sizes and modes in the state directory, no content", lambda of: _files(of.state)),
)
"""In the order in which they are read."""


_LIBRARIES = (
    *("numpy", "tflite-runtime", "ai-edge-litert", "cryptography", "cbor2", "paho-mqtt", "msgspec", "click"),
    *("systemd-python", "pillow", "python-pkcs11", "tpm2-pytss"),
)
_MEMORY = ("MemTotal", "MemFree", "MemAvailable", "SwapTotal", "SwapFree", "Mlocked", "Shmem")
_MOST_FILES = 1000
_SECONDS = 60.0


class Printed(NamedTuple):
    """The output of a command. ``code`` is None for a command that is absent, or was ended."""

    code: int | None
    out: str
    whole: bool


def _run(command: Sequence[str], most: int) -> Printed:
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


def _own_command(*arguments: str) -> list[str]:
    """Return a command line of this installation."""
    return [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "edged", *arguments]


def _versions() -> dict[str, Any]:
    """Return the versions of all software here."""
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


def _machine(directory: Path) -> dict[str, Any]:
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


def _files(directory: Path) -> list[str]:
    """Return mode, owner, size and name of each file below ``directory``, without content."""
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
