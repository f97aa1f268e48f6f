"""The conditions for training: mains, temperature, load, hours, network, and a reachable aggregator.

Sources: Documentation/ABI/testing/sysfs-class-power and sysfs-class-thermal of the Linux kernel; proc_stat(5);
proc_pid_net(5) for the routes.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edged.config.federated import When

_IDLE, _IOWAIT = 3, 4
"""Columns of a ``cpu`` line in /proc/stat, after its name."""
_ALL_CPU = 8
"""Columns of it that add up to the whole: guests are counted within ``user``."""
_ROUTE_UP = 0x1
_NO_ADDRESS = "0" * 32
_SECONDS = 5.0
"""Seconds to wait for the aggregator."""


class Ticks(NamedTuple):
    """CPU time since the machine booted, of all CPUs together, in ticks of 1 / SC_CLK_TCK seconds.

    :ivar idle: with what this process took.
    """

    idle: int
    all: int


class Conditions:
    """Checks that this machine is free to train.

    :param when: what its owner wants.
    :param root: of the file system that holds ``proc`` and ``sys``.
    """

    def __init__(self, when: When, root: Path = Path("/")) -> None:
        self._when = when
        self._root = root
        self._before = self._ticks()

    def in_the_way(self) -> str | None:
        """Return the reason against training now, for the log, or None.

        How idle the CPUs are is measured since the call before. What this process itself took of them counts as idle:
        else its own training would be in its way.
        """
        return next(self._reasons(), None)

    def _reasons(self) -> Iterator[str]:
        when = self._when
        before, self._before = self._before, self._ticks()
        if when.window is not None and not within(when.window, time.localtime()):
            yield f"it is {time.strftime('%H:%M')}, and it may train {when.hours}"
        if when.mains and (supply := self._battery()) is not None:
            yield f"it runs on its battery ({supply})"
        if when.temperature is not None and (hottest := self._hottest()) is None:
            yield "it has no temperature sensor, and federated.when.temperature wants one"
        elif when.temperature is not None and hottest is not None and hottest >= when.temperature:
            yield f"it is {hottest:.0f} °C hot, and must be below {when.temperature:g}"
        if when.idle is not None and (idle := _share(before, self._before)) < when.idle:
            yield f"its CPUs are {idle:.0%} idle, and must be {when.idle:.0%}"
        if when.network and (through := self._default_routes()).isdisjoint(when.network):
            yield f"its network is {', '.join(sorted(through)) or 'down'}, and must be {' or '.join(when.network)}"

    def _battery(self) -> str | None:
        """Return the name of a battery that is being emptied; None on mains, or where there is no battery."""
        supplies = sorted((self._root / "sys/class/power_supply").glob("*"))
        for one in supplies:
            if _text(one / "type") not in {"Battery", ""} and _text(one / "online") not in {"0", ""}:
                return None
        for one in supplies:
            # of a mouse or a pen, which power nothing but themselves, `scope` says Device
            ours = _text(one / "type") == "Battery" and _text(one / "scope") != "Device"
            if ours and _text(one / "status") not in {"Charging", "Full", "Not charging"}:
                return one.name
        return None

    def _hottest(self) -> float | None:
        """Return degrees Celsius of the hottest sensor."""
        found = []
        for zone in (self._root / "sys/class/thermal").glob("thermal_zone*/temp"):
            with suppress(ValueError):
                found.append(int(_text(zone)) / 1000)
        return max(found, default=None)

    def _ticks(self) -> Ticks:
        columns = [int(column) for column in _text(self._root / "proc/stat").partition("\n")[0].split()[1:]]
        own = os.times()
        ours = round((own.user + own.system) * os.sysconf("SC_CLK_TCK"))
        return Ticks(columns[_IDLE] + columns[_IOWAIT] + ours, sum(columns[:_ALL_CPU]))

    def _default_routes(self) -> set[str]:
        """Return the interfaces that lead to everywhere."""
        routes = set()
        for line in _text(self._root / "proc/net/route").splitlines()[1:]:
            name, destination, _, flags, *_, mask, _, _, _ = line.split()
            if int(destination, 16) == int(mask, 16) == 0 and int(flags, 16) & _ROUTE_UP:
                routes.add(name)
        for line in _text(self._root / "proc/net/ipv6_route").splitlines():
            destination, length, *_, flags, name = line.split()
            # the kernel lists a route that refuses everything, on lo
            if destination == _NO_ADDRESS and length == "00" and int(flags, 16) & _ROUTE_UP and name != "lo":
                routes.add(name)
        return routes


def within(window: tuple[int, int], now: time.struct_time) -> bool:
    """Return True if a time of day lies within a window of minutes, which may hold midnight."""
    minute = 60 * now.tm_hour + now.tm_min
    begins, ends = window
    return begins <= minute < ends if begins < ends else minute >= begins or minute < ends


def _share(before: Ticks, after: Ticks) -> float:
    return (after.idle - before.idle) / max(1, after.all - before.all)


def _text(path: Path) -> str:
    """Return the content of a file of the kernel, or an empty string."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def unreachable(address: str, ca: str) -> str | None:
    """Return the reason why no TLS connection can be made, or None.

    Whether the board is allowed is not asked: an aggregator tells that to no one but the holder of its node key.

    :param address: ``HOST:PORT``.
    :param ca: the file of who vouches for the aggregator's certificate.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        context = ssl.create_default_context(cafile=ca)
        with (
            socket.create_connection((host, int(port)), _SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not believed: {error.verify_message}"
    except TimeoutError:
        return f"no answer within {_SECONDS:.0f} s"
    except ssl.SSLError as error:
        return f"no TLS: {error.reason or error}"
    except OSError as error:
        return error.strerror or str(error)
