"""Messages to systemd by sd_notify(3), and what systemd gives a process. Without ``$NOTIFY_SOCKET`` none are sent."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def ready() -> None:
    """Report that the daemon serves, after its start or after a reload."""
    _send("READY=1")


def reloading() -> None:
    """Report that a reload has begun; :func:`ready` ends it."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """Report that the daemon stops."""
    _send("STOPPING=1")


def status(text: str) -> None:
    """Report the status in one line."""
    _send(f"STATUS={' '.join(text.splitlines())}")  # a line of its own would be a message of its own


def watchdog() -> None:
    """Report that the daemon makes progress."""
    _send("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """Return the seconds within which systemd wants to hear :func:`watchdog`, or None if it does not."""
    meant_for = os.environ.get("WATCHDOG_PID", "")
    interval = os.environ.get("WATCHDOG_USEC", "")
    if meant_for not in ("", str(os.getpid())) or not interval.isdecimal() or not int(interval):
        return None
    return int(interval) / 1e6


def runtime_directory() -> Path | None:
    """Return the directory that systemd made for this service on a file system in RAM (systemd.exec(5))."""
    directories = os.environ.get("RUNTIME_DIRECTORY", "")
    return Path(directories.split(":")[0]) if directories else None


def _send(state: str) -> None:
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    try:
        from systemd.daemon import notify  # noqa: PLC0415  an extra, and not worth its time where nobody listens
    except ImportError:
        _send_datagram(state)
    else:
        notify(state)


def _send_datagram(state: str) -> None:
    import socket  # noqa: PLC0415  slow, and not for commands that only ask for the directory

    address = os.environ["NOTIFY_SOCKET"]
    if address.startswith("@"):  # an abstract socket
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        # a manager that does not read must not hold up the daemon; libsystemd's own call would wait
        sock.sendto(state.encode(), socket.MSG_DONTWAIT, address)
