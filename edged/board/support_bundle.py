"""What goes into a bundle: a file a section."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.board.bundle import facts
from edged.board.bundle.names import learn_board, learn_gathered, shown
from edged.board.bundle.redact import Redactor
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
    """What a bundle is made of.

    :ivar path: of the configuration.
    :ivar config: None where it cannot be used.
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
    """Return what a command printed, line by line, and how it ended."""
    printed = facts.run(command, _MOST)
    cut = [] if printed.whole else ["(cut)"]
    end = [] if printed.code == 0 else [f"(left with {printed.code})"]
    return [*printed.out.splitlines(), *cut, *end]


def _own(*arguments: str) -> Any:  # noqa: ANN401  what JSON holds
    """Return what one of edged's own commands prints as JSON; as text, where that is not what it prints."""
    printed = facts.run(facts.edged(*arguments), _MOST)
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
    """Return the last entries of the service, of systemd about it, and of commands; not what the machine is called."""
    bounds = (f"--lines={_JOURNAL_LINES}", f"--since={_JOURNAL_SINCE}")
    matches = (f"_SYSTEMD_UNIT={_UNIT}", "+", f"UNIT={_UNIT}", "_PID=1", "+", "SYSLOG_IDENTIFIER=edged")
    printed = facts.run(["journalctl", "--no-pager", "--quiet", "--output=json", *bounds, *matches], _MOST)
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
    Section("versions.json", "edged, Python, libraries, kernel, system, board", lambda _: facts.versions()),
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
    Section("machine.json", "memory, processors, swap, cgroups, disk", lambda of: facts.machine(of.state)),
    Section("files.txt", "names, sizes and modes in the state directory, no content", lambda of: facts.files(of.state)),
)
"""In the order in which they are read."""
