"""A load generator that is no bottleneck: packets are encoded before the clock starts.

Closed loop: a bounded number of windows is on its way, and each result that comes back lets another window go.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from dataclasses import dataclass

from link import Link, LoadError
from process import cpu_seconds_here

OUTSTANDING = 200


@dataclass(frozen=True)
class Run:
    """What one run came to.

    :ivar count: results that came back.
    :ivar seconds: from the first window sent to the last result received.
    :ivar busy: share of that time for which the generator itself was on a CPU.
    """

    count: int
    seconds: float
    busy: float

    @property
    def rate(self) -> float:
        """Results a second."""
        return self.count / self.seconds


class LoadGenerator(Link):
    """Sends windows as fast as they are answered."""

    def run(self, payloads: Sequence[bytes], timeout: float) -> Run:
        """Send each payload once and wait for as many results.

        :raises LoadError: they did not come within ``timeout`` seconds.
        """
        packets = [self.packet(payload) for payload in payloads]
        self.socket.settimeout(0)
        started, busy = time.perf_counter(), cpu_seconds_here()
        sent = got = 0
        unsent = memoryview(b"")
        while got < len(packets):
            if not unsent and sent < min(len(packets), got + OUTSTANDING):
                upto = min(len(packets), got + OUTSTANDING)
                unsent = memoryview(b"".join(packets[sent:upto]))
                sent = upto
            left = started + timeout - time.perf_counter()
            if left <= 0:
                raise LoadError(f"{got} results for {sent} windows within {timeout:.0f} s")
            readable, writable, _ = select.select([self], [self] if unsent else [], [], left)
            if writable:
                unsent = unsent[self.socket.send(unsent) :]
            if readable:
                got += self.count()
        seconds = time.perf_counter() - started
        return Run(got, seconds, (cpu_seconds_here() - busy) / seconds)
