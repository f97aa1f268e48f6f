"""Checks of the machine: clock, randomness, owner of the state, room on the disk, swap."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from edged.base.clock import BUILD, is_synchronised
from edged.base.errors import MachineError, PermissionsError

SERVICE_USER = "edged"
_STATE = Path("/var/lib/edged")
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_LEAST_ROOM = 16_000_000
"""Bytes that are wanted in any case: state.db, its log, and a package beside the one that it replaces."""


def check_clock(*, trusted: bool) -> str:
    """Describe the clock: its time, and whether it is known to be right.

    :param trusted: the operator vouches for it.
    :raises MachineError: it cannot be right: it lies before this release was made.
    """
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).isoformat(sep=" ", timespec="minutes").removesuffix("+00:00")
    if now < BUILD:
        raise MachineError(
            f"the clock is not set: it shows {shown} UTC, before this release was made",
            hint="`timedatectl` says whether a time server is reached; without one, set it: date -s 'YYYY-MM-DD HH:MM'",
        )
    if trusted:
        return f"{shown} UTC, vouched for by device.clock"
    if is_synchronised():
        return f"{shown} UTC, synchronised"
    return f'{shown} UTC, NOT known to be right: nothing synchronises it (`timedatectl`), or device.clock = "trusted"'


def check_entropy() -> str:
    """Check that keys and nonces can be made.

    :raises MachineError: the kernel has not gathered enough randomness since it booted.
    """
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        raise MachineError(
            "the kernel has no randomness yet: every key would wait for it",
            hint="wait a minute; on a board without a random number generator, install rng-tools-debian or haveged",
        ) from None
    return "the kernel's random numbers are ready"


def check_owner(directory: Path, user: str = SERVICE_USER, default: Path = _STATE) -> str:
    """Check that the state belongs to one user, the right one.

    :param user: whom the service runs as, where its own directory, ``default``, is asked about.
    :raises PermissionsError: the daemon cannot read all of it.
    """
    owner = directory.stat().st_uid
    account = _account(user)
    if directory == default and account is not None and owner != account.pw_uid:
        raise PermissionsError(
            f"{directory} belongs to {_name(owner)}, and the service runs as {user}",
            hint=f"chown -R {user}: {directory}",
        )
    for path in _below(directory):
        if (found := path.lstat().st_uid) != owner:
            raise PermissionsError(
                f"{path} belongs to {_name(found)}, and the state directory to {_name(owner)}",
                hint=f"chown -R {owner} {directory}",
            )
    return f"all of it belongs to {_name(owner)}"


def check_room(directory: Path, wanted: int) -> str:
    """Describe the free space of a disk.

    :param wanted: bytes that may still come to be written there.
    :raises MachineError: that would not fit.
    """
    room = os.statvfs(directory)
    free = room.f_bavail * room.f_frsize
    wanted = max(wanted, _LEAST_ROOM)
    if free < wanted:
        raise MachineError(
            f"{directory}: {_megabytes(free)} free, {_megabytes(wanted)} may be needed",
            hint="make room, or let less be kept: results.outbox.size, model.collect.size",
        )
    return f"{_megabytes(free)} free, up to {_megabytes(wanted)} may be needed"


def describe_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> str:
    """Describe the swap areas, and whether the kernel enforces the memory limits of the unit."""
    swaps = [name for name in swap_areas(proc) if not name.startswith("/dev/zram")]
    said = ["no swap on a disk"]
    if swaps:
        said = [f"swap on {', '.join(swaps)}: weights stay out of it where they are locked (LimitMEMLOCK=infinity)"]
    if not has_memory_controller(proc, cgroups):
        said.append(
            "the kernel's memory controller is OFF, MemoryMax= and MemorySwapMax= do nothing"
            " (Raspberry Pi: cgroup_enable=memory in cmdline.txt)"
        )
    return "; ".join(said)


def swap_areas(proc: Path = _PROC) -> list[str]:
    """Return the swap areas of this machine."""
    try:
        lines = (proc / "swaps").read_text().splitlines()[1:]
    except OSError:
        return []
    return [line.split()[0] for line in lines if line.strip()]


def has_memory_controller(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> bool:
    """Return True if the kernel limits memory by cgroup, or if that cannot be found out."""
    try:
        return "memory" in (cgroups / "cgroup.controllers").read_text().split()
    except OSError:
        pass
    try:
        lines = [line.split() for line in (proc / "cgroups").read_text().splitlines()]
    except OSError:
        return True
    return ["memory", "0"] not in [[line[0], line[-1]] for line in lines if line]


def _below(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        yield from (Path(folder, name) for name in (*folders, *files))


def _account(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        return None


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
