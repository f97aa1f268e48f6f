"""A search for a model in plain outside RAM: in files, core dumps and swap."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

_NEEDLE = 32
_NEEDLES = 8


@dataclass(frozen=True)
class Search:
    """The places that were searched, and the findings.

    :ivar files: how many files were searched.
    :ivar found: those that hold a piece of the weights.
    :ivar core_limit: bytes of a core dump that the kernel would write for the process.
    :ivar swapped: bytes of the process that are in swap.
    :ivar locked: true if all memory of the process is locked.
    """

    files: int
    found: list[Path]
    core_limit: int
    swapped: int
    locked: bool

    @property
    def clean(self) -> bool:
        """True if the model was found nowhere, and nothing can bring it there."""
        return not self.found and not self.core_limit and not self.swapped


def look_for_plaintext(weights: Path, directory: Path, pid: int) -> Search:
    """Search every file below ``directory`` for pieces of ``weights``, and ask the kernel about process ``pid``."""
    needles = _pieces(weights.read_bytes())
    files = [path for path in directory.rglob("*") if path.is_file() and path.stat().st_size >= _NEEDLE]
    status = _fields(Path(f"/proc/{pid}/status").read_text())
    return Search(
        files=len(files),
        found=[path for path in files if _holds(path, needles)],
        core_limit=_core_limit(Path(f"/proc/{pid}/limits").read_text()),
        swapped=_kilobytes(status.get("VmSwap", "0 kB")),
        locked=_kilobytes(status["VmLck"]) > _kilobytes(status["VmRSS"]),
    )


def _pieces(data: bytes) -> list[bytes]:
    """Return pieces that are the model's own: those with the most different bytes, which nothing else has by chance."""
    pieces = [data[at : at + _NEEDLE] for at in range(0, len(data) - _NEEDLE, _NEEDLE)]
    return sorted(pieces, key=lambda piece: len(set(piece)), reverse=True)[:_NEEDLES]


def _holds(path: Path, needles: list[bytes]) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        return any(data.find(needle) >= 0 for needle in needles)


def _fields(status: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}


def _kilobytes(value: str) -> int:
    return int(value.split(maxsplit=1)[0]) * 1024


def _core_limit(limits: str) -> int:
    line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    hard = line.split()[-2]
    return -1 if hard == "unlimited" else int(hard)
