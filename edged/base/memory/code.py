"""Let go of the code of libraries that only the start needed: a third of a small board's resident memory."""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from edged.base.memory import libc

_HEAD = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ \S+ +/(?!memfd:)", re.MULTILINE)
_ANONYMOUS = re.compile(r"^Anonymous: +([0-9]+) kB$", re.MULTILINE)


def release_code() -> None:
    """Unlock and unmap the pages of read-only files (proc_pid_smaps(5)): what runs again is mapped again when it does.

    Files hold nothing secret. A map with pages of its own, such as relocated tables, stays as it is: it could not be
    read again.
    """
    for start, end in _untouched_files():
        with contextlib.suppress(OSError):  # what the kernel will not do costs memory, and nothing else
            libc.unlock(start, end - start)
            libc.advise(start, end - start, mmap.MADV_DONTNEED)


def _untouched_files() -> Iterator[tuple[int, int]]:
    smaps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    for head in _HEAD.finditer(smaps):
        anonymous = _ANONYMOUS.search(smaps, head.end())
        if anonymous is not None and anonymous[1] == "0":
            yield int(head[1], 16), int(head[2], 16)
