"""The calls of Linux and glibc that Python leaves out. Lengths are in bytes; what fails raises OSError."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_DUMPABLE = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_MLOCK_ONFAULT = 1
_M_PERTURB = -6
_SMALL_SIZES = range(24, 1033, 16)
"""Sizes that glibc's malloc caches: a list for each size and thread, with up to this many chunks:"""


def _small_count(version: str) -> int:
    """Return how long such a list may be, by ``CS_GNU_LIBC_VERSION`` of confstr(3)."""
    numbers = version.removeprefix("glibc ").split(".")
    old = len(numbers) > 1 and all(map(str.isdecimal, numbers[:2])) and (int(numbers[0]), int(numbers[1])) < (2, 42)
    return 7 if old else 16


_SMALL_COUNT = _small_count(os.confstr("CS_GNU_LIBC_VERSION") or "")

_BUSY = ctypes.PyDLL(None)  # for calls of less than a microsecond, which giving up the interpreter's lock would double
_copy, _free = _BUSY.strdup, _BUSY.free
_copy.argtypes, _copy.restype = (ctypes.c_char_p,), ctypes.c_void_p
_free.argtypes, _free.restype = (ctypes.c_void_p,), None
_FILLERS = [b"\xff" * (size - 1) for size in _SMALL_SIZES for _ in range(_SMALL_COUNT)]
"""A text for each small chunk, which fills it together with the byte that ends it."""


class _Blank(ctypes.Structure):
    """More zeros than the functions of a runtime need stack."""

    _fields_ = (("zeros", ctypes.c_char * (1 << 16)),)


def _call(name: str, *arguments: ctypes.c_void_p | ctypes.c_size_t | ctypes.c_ulong | int) -> None:
    if getattr(_LIBC, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def lock(start: int, length: int) -> None:
    """Bring pages into RAM and keep them out of swap (mlock)."""
    _call("mlock", ctypes.c_void_p(start), ctypes.c_size_t(length))


def lock_on_fault(start: int, length: int) -> None:
    """Keep pages out of swap, each from its first touch on (mlock2 with MLOCK_ONFAULT)."""
    _call("mlock2", ctypes.c_void_p(start), ctypes.c_size_t(length), _MLOCK_ONFAULT)


def unlock(start: int, length: int) -> None:
    """Undo :func:`lock` and :func:`lock_on_fault`, and what :func:`lock_all` did for these pages."""
    _call("munlock", ctypes.c_void_p(start), ctypes.c_size_t(length))


def lock_all() -> None:
    """Keep every page of this process out of swap, now and later, from its first touch on (mlockall).

    Without MCL_ONFAULT each library and thread stack would be brought into RAM whole: 80 MB more, measured.
    """
    _call("mlockall", _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)


def advise(start: int, length: int, advice: int) -> None:
    """Call madvise, with an ``mmap.MADV_*``."""
    _call("madvise", ctypes.c_void_p(start), ctypes.c_size_t(length), advice)


_PROCMAP_QUERY = 0xC0686611  # linux/fs.h: _IOWR('f', 17, struct procmap_query)
_QUERY = struct.Struct("9Q4I2Q")
_SHARED_FILES_FROM = 0x08 | 0x10 | 0x20  # PROCMAP_QUERY_VMA_SHARED, _COVERING_OR_NEXT_VMA, _FILE_BACKED_VMA


def shared_maps(file: os.stat_result) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and offset of every shared map of a file in this process.

    :raises OSError: the kernel is older than Linux 6.11.
    """
    at = 0
    with Path("/proc/self/maps").open("rb", buffering=0) as maps:
        while True:
            query = _QUERY.pack(_QUERY.size, _SHARED_FILES_FROM, at, *bytes(12))
            try:
                answer = _QUERY.unpack(fcntl.ioctl(maps, _PROCMAP_QUERY, query))
            except OSError as error:
                if error.errno == errno.ENOENT:  # there are no more
                    return
                raise
            _, _, _, start, at, _, _, offset, inode, major, minor, *_ = answer
            if (os.makedev(major, minor), inode) == (file.st_dev, file.st_ino):
                yield start, at, offset


def forbid_dumps() -> None:
    """Refuse core dumps of this process, and debuggers and ``/proc/PID/mem`` to its own user (PR_SET_DUMPABLE)."""
    _call("prctl", _PR_SET_DUMPABLE, *[ctypes.c_ulong(0)] * 4)


def overwrite_freed_memory() -> None:
    """Let ``free`` overwrite what it takes back (M_PERTURB), but for small chunks, which :func:`trim` sees to."""
    if _LIBC.mallopt(_M_PERTURB, 0xFF) != 1:
        raise OSError("malloc does not know how")


def trim() -> None:
    """Overwrite what this thread left on its stack and freed last in small chunks; give freed pages to the kernel."""
    clear_stack()
    for chunk in [*map(_copy, _FILLERS)]:  # all of them first: each that is free again would be the next
        _free(chunk)
    _LIBC.malloc_trim(ctypes.c_size_t(0))


def clear_stack() -> None:
    """Overwrite what this thread left on its stack, below the frames in use.

    It is worth it: XNNPACK leaves vector registers with weights there, and glibc keeps an ended thread's stack.
    """
    _LIBC.getpid(_Blank())  # which takes no argument: by value, it is copied to the unused part of the stack
