"""A model's weights in RAM alone: a file without a name that a runtime can map, and that is wiped before it is let go.

Why a memfd: both runtimes map a file instead of copying it, and neither can be handed a buffer that can be wiped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from edged.base.errors import ModelError
from edged.base.memory import libc

_NAME = "edged-model"
"""What the maps are called in /proc/PID/maps."""

_STEP = 1 << 20
"""Bytes whose lock passes from one map to the other at a time; a multiple of the page size."""


class SecretBuffer:
    """Room for a plaintext of ``size`` bytes: in no core dump, wiped on leaving, out of swap once it is locked.

    :ivar view: the bytes, writable; not to be used after :meth:`close`.
    :ivar path: where this process, and no other, can open them as a file.
    :ivar locked: whether they are kept out of swap.
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
        """Bring all of it into RAM and keep it there, where the limit allows. In a thread, others go on meanwhile."""
        self.locked = _try_to_lock(self._start, len(self._map))

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
                    if not _try_to_lock(at, length):
                        return
                    libc.unlock(ours, length)
                libc.advise(ours, length, mmap.MADV_DONTNEED)  # of a shared map: the bytes themselves stay

    def _runtime_maps(self) -> Iterator[tuple[int, int, int]]:
        """Yield start, end and offset in the file of every map of it but our own (proc_pid_maps(5))."""
        inode = str(os.fstat(self._file).st_ino)
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        for line in [line for line in lines if f"/memfd:{_NAME}" in line]:
            addresses, _, offset, _, of, *_ = line.split()
            start, end = (int(address, 16) for address in addresses.split("-"))
            if of == inode and start != self._start:
                yield start, end, int(offset, 16)

    def close(self) -> None:
        """Wipe the bytes and let them go, and freed memory with them. Whoever maps them must have closed before."""
        if not self._map.closed:
            wipe(self.view)
            self.view.release()
            self._map.close()
            os.close(self._file)
            libc.trim()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


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


def _try_to_lock(start: int, length: int) -> bool:
    try:
        libc.lock(start, length)
    except OSError:
        return False
    return True
