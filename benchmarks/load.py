"""A load generator that is no bottleneck: MQTT 3.1.1 over one raw socket, packets encoded before the clock starts.

Closed loop: a bounded number of windows is on its way, and each result that comes back lets another window go.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from broker import HOST
from process import cpu_seconds_here

OUTSTANDING = 200
_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 0x20, 0x30, 0x40, 0x90
_QOS1 = 0x02
_MORE = 0x80  # in each byte of a length but the last
_LAST_ID = 0xFFFF
_READ = 1 << 18


class LoadError(Exception):
    """The broker or the process under test did not do what a measurement needs."""


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


class LoadGenerator:
    """Publishes windows on one topic (QoS 1) and counts results on another (QoS 0: nothing to acknowledge)."""

    def __init__(self, port: int, topic: str, results: str) -> None:
        self._topic = topic
        self._unread = b""
        self._socket = socket.create_connection((HOST, port), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flags, keepalive = b"\x02", b"\x00\x00"  # clean session, no keepalive
        self._call(_packet(0x10, _text("MQTT") + b"\x04" + flags + keepalive + _text("")), _CONNACK)
        self._call(_packet(0x82, b"\x00\x01" + _text(results) + b"\x00"), _SUBACK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _call(self, request: bytes, answer: int) -> None:
        self._socket.sendall(request)
        if self._socket.recv(_READ)[0] != answer:
            raise LoadError("the broker refuses the load generator")

    def run(self, payloads: Sequence[bytes], timeout: float) -> Run:
        """Send each payload once and wait for as many results.

        :raises LoadError: they did not come within ``timeout`` seconds.
        """
        topic = _text(self._topic)
        packets = [
            _packet(_PUBLISH | _QOS1, topic + (1 + at % _LAST_ID).to_bytes(2, "big") + payload)
            for at, payload in enumerate(payloads)
        ]
        self._socket.settimeout(0)
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
            readable, writable, _ = select.select([self._socket], [self._socket] if unsent else [], [], left)
            if writable:
                unsent = unsent[self._socket.send(unsent) :]
            if readable:
                got += self._count_results()
        seconds = time.perf_counter() - started
        return Run(got, seconds, (cpu_seconds_here() - busy) / seconds)

    def _count_results(self) -> int:
        """Read what is there; return how many results were in it."""
        data = self._socket.recv(_READ)
        if not data:
            raise LoadError("the broker ended the connection")
        data = self._unread + data
        at = results = 0
        while (end := _end_of_packet(data, at)) is not None:
            results += data[at] & 0xF0 == _PUBLISH
            at = end
        self._unread = data[at:]
        return results


def _end_of_packet(data: bytes, at: int) -> int | None:
    """Return where the packet at ``at`` ends, or None while it is incomplete."""
    size = shift = 0
    for position in range(at + 1, min(at + 5, len(data))):
        byte = data[position]
        size |= (byte & ~_MORE) << shift
        shift += 7
        if not byte & _MORE:
            end = position + 1 + size
            return end if end <= len(data) else None
    return None


def _packet(kind: int, body: bytes) -> bytes:
    size, head = len(body), bytearray([kind])
    while size >= _MORE:
        head.append(size % _MORE | _MORE)
        size >>= 7
    head.append(size)
    return bytes(head) + body


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data
