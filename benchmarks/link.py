"""MQTT 3.1.1 over one raw socket: one topic to publish on (QoS 1), one to count messages on (QoS 0)."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

from broker import HOST

_CONNACK, _PUBLISH, _SUBACK = 0x20, 0x30, 0x90
_QOS1 = 0x02
_MORE = 0x80  # in each byte of a length but the last
_LAST_ID = 0xFFFF
_READ = 1 << 18


class LoadError(Exception):
    """The broker or the process under test did not do what a measurement needs."""


class Link:
    """A client of the broker that spends no time on what it does not need.

    :ivar socket: connected; what it reads is for :meth:`count`.
    :param topic: where readings go.
    :param results: where answers come from.
    :raises LoadError: the broker refuses it.
    """

    def __init__(self, port: int, topic: str, results: str) -> None:
        self._topic = _text(topic)
        self._unread = b""
        self._sent = 0
        self.socket = socket.create_connection((HOST, port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flags, keepalive = b"\x02", b"\x00\x00"  # clean session, no keepalive
        self._call(_packet(0x10, _text("MQTT") + b"\x04" + flags + keepalive + _text("")), _CONNACK)
        self._call(_packet(0x82, b"\x00\x01" + _text(results) + b"\x00"), _SUBACK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self.socket.fileno()

    def _call(self, request: bytes, answer: int) -> None:
        self.socket.sendall(request)
        if self.socket.recv(_READ)[0] != answer:
            raise LoadError("the broker refuses the load generator")

    def packet(self, payload: bytes) -> bytes:
        """Return the packet that publishes a reading."""
        self._sent += 1
        mid = (1 + self._sent % _LAST_ID).to_bytes(2, "big")
        return _packet(_PUBLISH | _QOS1, self._topic + mid + payload)

    def count(self) -> int:
        """Read what is there; return how many answers were in it.

        :raises LoadError: the broker has ended the connection.
        """
        data = self.socket.recv(_READ)
        if not data:
            raise LoadError("the broker ended the connection")
        data = self._unread + data
        at = answers = 0
        while (end := _end_of_packet(data, at)) is not None:
            answers += data[at] & 0xF0 == _PUBLISH
            at = end
        self._unread = data[at:]
        return answers


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
