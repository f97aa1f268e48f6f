"""Network namespaces with links that lose packets, gone with their test."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def inside(name: str) -> list[str]:
    """Return what a command is put behind to run inside a namespace."""
    return ["ip", "netns", "exec", name]


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Have the calling thread, with the threads and processes that it starts, be in a namespace for the block."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
    try:
        _set(there)
        yield
    finally:
        _set(before)
        os.close(there)
        os.close(before)


def _set(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """One namespace in the middle, and others around it, each behind a link of its own.

    :param around: names of those; number n reaches the middle at ``10.77.n.1``, from 1 on.
    """

    def __init__(self, middle: str, around: list[str]) -> None:
        self.middle = middle
        self.around = around
        for name in (middle, *around):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        for number, name in enumerate(around, 1):
            near, far = f"to-{name}"[:15], "uplink"
            _ip("-n", middle, "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
            for where, device, address in ((middle, near, 1), (name, far, 2)):
                _ip("-n", where, "address", "add", f"10.77.{number}.{address}/24", "dev", device)
                _ip("-n", where, "link", "set", device, "up")

    def lose(self, percent: int) -> None:
        """Lose so many of a hundred packets, in both directions of each link; 100 is a partition."""
        for name in (self.middle, *self.around):
            rule = "drop" if percent >= 100 else f"numgen random mod 100 < {percent} drop"
            text = f"""table inet faults
delete table inet faults
table inet faults {{
    chain input {{
        type filter hook input priority 0
        iifname "lo" accept
        {rule if percent else ""}
    }}
}}
"""
            subprocess.run([*inside(name), "nft", "-f", "-"], input=text, text=True, check=True, capture_output=True)

    def close(self) -> None:
        """Remove the namespaces, and with them everything in them."""
        for name in (self.middle, *self.around):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@contextmanager
def network(middle: str, around: list[str]) -> Iterator[Network]:
    """Make a :class:`Network`, and remove it."""
    made = Network(middle, around)
    try:
        yield made
    finally:
        made.close()
