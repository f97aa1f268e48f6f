"""Loopback ports that nobody else takes, also while a server that was killed starts again on its own."""

from __future__ import annotations

import random
import socket

_QUIET = range(20_000, 32_000)
"""Below those that the kernel gives to clients (Linux: from 32768), or a client could get one while its server is down."""

_claims: list[socket.socket] = []


def quiet_port() -> int:
    """Return a free port that no other process of any test run gets as long as this one lives."""
    return quiet_ports(1)


def quiet_ports(count: int) -> int:
    """Return the first of ``count`` such ports, one behind the other."""
    while True:
        first = random.choice(_QUIET[:-count])
        ports = range(first, first + count)
        claims = [claim for port in ports if (claim := _claim(port))]
        if len(claims) == count:
            _claims.extend(claims)
            return first
        for claim in claims:
            claim.close()


def _claim(port: int) -> socket.socket | None:
    """Claim a port by an abstract socket of its name, which ends with this process; None where it is taken."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0edged-test-port-{port}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        return None
    return claim
