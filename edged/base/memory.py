"""Keep plaintext in RAM and nowhere else: buffers that are wiped, a process that is hardened, code that is let go.

A model's weights are in a file without a name that a runtime can map. Why a memfd: both runtimes map a file instead of
copying it, and neither accepts a buffer that can be wiped.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
import resource
import sys
import traceback as traceback_module
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edged.base import libc
from edged.base.errors import ModelError

_NAME = "edged-model"
"""The name of the maps in /proc/PID/maps."""

_STEP = 1 << 20
"""Bytes whose lock passes from one map to the other at a time; a multiple of the page size."""


class SecretBuffer:
    """Room for a plaintext of ``size`` bytes: in no core dump, wiped on leaving, out of swap once it is locked.

    :ivar view: the bytes, writable; not to be used after :meth:`close`.
    :ivar path: where this process, and no other, can open them as a file.
    :ivar locked: True if they are kept out of swap.
    :raises ModelError: there is no such room.
    """

    def __init__(self, size: int) -> None:
        try:
            self._file, self._map = _allocate(size)
        except (OSError, ValueError) as error:
            raise ModelError(f"no room in RAM for a model of {size} bytes: {error}") from error
        self.view = memoryview(self._map)
        self.path = f"/proc/self/fd/{self._file}"
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._map.madvise(mmap.MADV_DONTDUMP)
        self.locked = False

    def lock(self) -> None:
        """Keep each page in RAM from the first byte that is written to it, where the limit allows."""
        self.locked = _succeeds(libc.lock_on_fault, self._start, len(self._map))

    def seal_runtime_maps(self) -> None:
        """Once the runtime maps these bytes, give its map the protections of our own, and drop our own's pages.

        A lock is counted for each map, and so are resident pages: held in both maps, a model would count twice. They
        pass over step by step, so that every page is locked all the time. Where the limit leaves no room for one step
        more, our own map goes on holding what did not pass over.
        """
        for start, end, offset in self._runtime_maps():
            libc.advise(start, end - start, mmap.MADV_DONTDUMP)
            for at in range(start, end, _STEP):
                length = min(_STEP, end - at)
                ours = self._start + offset + at - start
                if self.locked:  # where it is not, a container may forbid these calls altogether
                    if not _succeeds(libc.lock, at, length):
                        return
                    libc.unlock(ours, length)
                libc.advise(ours, length, mmap.MADV_DONTNEED)  # of a shared map: the bytes themselves stay

    def _runtime_maps(self) -> list[tuple[int, int, int]]:
        """Return start, end and offset in the file of every map of it but our own."""
        file = os.fstat(self._file)
        try:
            maps = list(libc.shared_maps(file))
        except OSError:
            maps = list(_read_maps(file))
        return [one for one in maps if one[0] != self._start]

    def close(self) -> None:
        """Wipe and free the bytes, and overwrite freed memory. Runtimes that map the bytes must be closed before.

        Where somebody still holds a piece of :attr:`view`, the wiped pages are freed when that is let go.
        """
        if self._file >= 0:
            wipe(self.view)
            self.view.release()
            with contextlib.suppress(BufferError):
                self._map.close()
            os.close(self._file)
            self._file = -1
            libc.trim()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while error is not None:  # its frames hold views of the bytes, and what was computed from them
            traceback_module.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__
        self.close()


def _read_maps(file: os.stat_result) -> Iterator[tuple[int, int, int]]:
    """Yield the maps of a secret buffer from their list (proc_pid_maps(5)), which takes ten times as long."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if f"/memfd:{_NAME}" in line:
            addresses, _, offset, _, inode, *_ = line.split()
            start, end = (int(address, 16) for address in addresses.split("-"))
            if int(inode) == file.st_ino:
                yield start, end, int(offset, 16)


def _allocate(size: int) -> tuple[int, mmap.mmap]:
    file = os.memfd_create(_NAME, os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, size)
        return file, mmap.mmap(file, size)
    except BaseException:
        os.close(file)
        raise


def wipe(secret: bytearray | memoryview) -> None:
    """Overwrite ``secret`` with zeros."""
    length = memoryview(secret).nbytes
    if length:
        ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(secret)), 0, length)


def _succeeds(lock: Callable[[int, int], None], start: int, length: int) -> bool:
    try:
        lock(start, length)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Protection:
    """A protection that holds, or the reason why it does not.

    :ivar reason: why it does not; empty where it does.
    """

    what: str
    holds: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: yes" if self.holds else f"{self.what}: NO, {self.reason}"


@dataclass(frozen=True, slots=True)
class Protections:
    """The protections of the memory of this process.

    :ivar undumpable: it goes into no core dump, and no other process of the same user can read it.
    :ivar cores: should that be lifted, the size and the content of a core dump are still nothing.
    :ivar swap: none of it is ever swapped out. Where this does not hold, a model's own pages can still be locked:
        see :attr:`SecretBuffer.locked`.
    :ivar remains: what is freed is overwritten, the runtime's packed copy of the weights included; Python's objects,
        where libc's allocator has them, too.
    """

    undumpable: Protection
    cores: Protection
    swap: Protection
    remains: Protection

    def describe(self) -> tuple[str, ...]:
        """Return a line for the log on each."""
        return tuple(map(str, (self.undumpable, self.cores, self.swap, self.remains)))


def harden() -> Protections:
    """Take every protection that this machine allows. Never raises: the caller logs what does not hold."""
    # First: an undumpable process does not own its files under /proc, and could not set its filter.
    cores = _attempt("core limit and core filter 0", _empty_cores)
    return Protections(
        undumpable=_attempt("no core dumps, memory closed to other processes of this user", libc.forbid_dumps),
        cores=cores,
        swap=_attempt("all memory locked against swapping", _lock_all),
        remains=_attempt(f"freed memory overwritten{_objects_too()}", libc.overwrite_freed_memory),
    )


def _objects_too() -> str:
    """Return a note if Python's objects come from libc's allocator, too: PYTHONMALLOC=malloc, which the units set."""
    heard = os.environ.get("PYTHONMALLOC") == "malloc" and not sys.flags.ignore_environment
    return ", Python's objects too" if heard else ""


def _attempt(what: str, protect: Callable[[], None]) -> Protection:
    try:
        protect()
    except (OSError, ValueError) as error:
        return Protection(what, holds=False, reason=getattr(error, "strerror", None) or str(error))
    return Protection(what, holds=True, reason="")


def _empty_cores() -> None:
    """Limit size and content (core(5)): the size alone does not bind a core_pattern that is a pipe."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path("/proc/self/coredump_filter").write_text("0")


def _lock_all() -> None:
    """Lock all memory, but only where no limit can make a later allocation fail."""
    _, limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        if limit != resource.RLIM_INFINITY:
            # Under a limit of 0 mlockall goes through only with CAP_IPC_LOCK, which no limit binds (mlock(2)).
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, limit))
        libc.lock_all()
    except OSError as error:
        raise OSError(error.errno, f"RLIMIT_MEMLOCK is {limit} bytes (systemd: LimitMEMLOCK=infinity)") from error
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))


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
