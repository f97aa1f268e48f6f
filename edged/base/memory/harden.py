"""Keep what this process holds out of core dumps, out of swap, and from other processes of its user."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edged.base.memory import libc


@dataclass(frozen=True, slots=True)
class Protection:
    """One protection, and whether it holds.

    :ivar reason: why it does not; empty where it does.
    """

    what: str
    holds: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: yes" if self.holds else f"{self.what}: NO, {self.reason}"


@dataclass(frozen=True, slots=True)
class Protections:
    """What protects the memory of this process.

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
    """Say whether Python's objects come from libc's allocator, too: PYTHONMALLOC=malloc, which the units set."""
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
