"""A broker that does what a test tells it, right or wrong, and notes every packet. MQTT 5.0 and 3.1.1.

It shares no code with edged and has no library: the few packets are read and written here (MQTT 5.0, chapter 3).

    with ScriptedBroker() as broker:
        broker.puback = lambda packet: 0x97
        ...  # a client connects to broker.url
        broker.hand_out("t", b"reading", mid=7, dup=True)
        wait_until(lambda: broker.acknowledged == [7])
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, Self

from support.waiting import wait_until

_KINDS = ("", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
          "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH")  # fmt: skip

SESSION_EXPIRY, SERVER_KEEP_ALIVE, REASON, RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM = 0x11, 0x13, 0x1F, 0x21, 0x22
TOPIC_ALIAS, MAXIMUM_QOS, RETAIN_AVAILABLE, MAXIMUM_PACKET_SIZE = 0x23, 0x24, 0x25, 0x27

_SIZES = {SESSION_EXPIRY: 4, SERVER_KEEP_ALIVE: 2, RECEIVE_MAXIMUM: 2, TOPIC_ALIAS_MAXIMUM: 2, TOPIC_ALIAS: 2,
          MAXIMUM_QOS: 1, RETAIN_AVAILABLE: 1, MAXIMUM_PACKET_SIZE: 4, 0x01: 1, 0x02: 4, 0x17: 1, 0x18: 4, 0x19: 1}  # fmt: skip


class Packet(NamedTuple):
    """A packet that came or went.

    :ivar at: when (monotonic).
    :ivar connection: 1 for the first connection, and so on.
    :ivar kind: ``PUBLISH``, say.
    :ivar qos: of a PUBLISH, as ``retain``; of a CONNECT its will's.
    :ivar code: reason code of a PUBACK or DISCONNECT.
    :ivar topics: filters of a SUBSCRIBE, each with its options byte; of an UNSUBSCRIBE with 0.
    :ivar raw: the whole packet.
    """

    at: float
    connection: int
    kind: str
    mid: int = 0
    code: int = 0
    topic: str = ""
    payload: bytes = b""
    qos: int = 0
    dup: bool = False
    retain: bool = False
    topics: tuple[tuple[str, int], ...] = ()
    properties: Mapping[int, int] = {}
    raw: bytes = b""


@dataclass
class Connack:
    """An answer to CONNECT.

    :ivar properties: by their numbers (MQTT 5.0, section 2.2.2.2); left out for a client of 3.1.1.
    """

    code: int = 0
    session: bool = False
    properties: dict[int, int] = field(default_factory=dict)


class ScriptedBroker:
    """One broker for one client at a time: a new connection takes the place of the one before.

    :ivar connack: the answer to each CONNECT; None for no answer.
    :ivar puback: returns the reason code for a PUBLISH of QoS 1, or None for no answer.
    :ivar suback: returns the code for a filter and the QoS that is asked for.
    :ivar on_connected: called with the broker after each CONNACK that accepts, from its thread: hands out messages, say.
    :ivar pings: answer PINGREQ.
    :ivar silent: say nothing at all from now on, and read nothing: a half-open connection.
    :ivar heard: packets of clients.
    :ivar said: packets to clients.
    """

    def __init__(self) -> None:
        self.connack: Callable[[Packet], Connack | None] = lambda _packet: Connack()
        self.puback: Callable[[Packet], int | None] = lambda _packet: 0
        self.suback: Callable[[str, int], int] = lambda _topic, qos: qos
        self.on_connected: Callable[[ScriptedBroker], None] = lambda _broker: None
        self.pings = True
        self.silent = False
        self.heard: list[Packet] = []
        self.said: list[Packet] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._client: socket.socket | None = None
        self._version = 5
        self._lock = threading.RLock()
        self.port: int = self._listener.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    # --- what a test asks

    def packets(self, kind: str, connection: int | None = None) -> list[Packet]:
        """Return the packets of one kind that clients sent, on one connection or on all."""
        return [one for one in self.heard if one.kind == kind and connection in (None, one.connection)]

    @property
    def acknowledged(self) -> list[int]:
        """Packet ids that the client acknowledged on the newest connection, in order."""
        return [one.mid for one in self.packets("PUBACK", self.connections)]

    @property
    def published(self) -> list[bytes]:
        """Payloads that clients published, in order."""
        return [one.payload for one in self.packets("PUBLISH")]

    def wait_for(self, kind: str, count: int = 1) -> list[Packet]:
        """Wait until clients that run elsewhere have sent so many packets of a kind; return these."""
        wait_until(lambda: len(self.packets(kind)) >= count, told=lambda: f"{count} of {kind}: {self.heard}")
        return self.packets(kind)

    # --- what a test does

    def hand_out(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        mid: int = 1,
        dup: bool = False,
        retain: bool = False,
        alias: int = 0,
    ) -> None:
        """Send a PUBLISH, whatever the client has asked for.

        :param mid: packet id, for QoS 1 and 2.
        :param alias: a Topic Alias (MQTT 5), if it is not 0.
        """
        body = _text(topic) + (struct.pack(">H", mid) if qos else b"")
        if self._version == 5:
            body += _properties({TOPIC_ALIAS: alias} if alias else {})
        self._say("PUBLISH", dup << 3 | qos << 1 | retain, body + payload)

    def disconnect(self, code: int) -> None:
        """Send DISCONNECT with a reason code (MQTT 5), and close."""
        self._say("DISCONNECT", 0, bytes([code, 0]))
        self.cut()

    def cut(self) -> None:
        """End the connection without a word."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def say_bytes(self, data: bytes) -> None:
        """Send bytes that may be no MQTT at all."""
        client = self._client
        if client is not None and not self.silent:
            with self._lock, contextlib.suppress(OSError):
                client.sendall(data)

    # --- its work

    def _say(self, kind: str, flags: int, body: bytes) -> None:
        raw = bytes([_KINDS.index(kind) << 4 | flags]) + _length(len(body)) + body
        if not self.silent:
            self.said.append(self._parse(raw[0], body, raw))
        self.say_bytes(raw)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.cut()
                self._client = client
                self.connections += 1
                threading.Thread(target=self._serve, args=(client, client.makefile("rb")), daemon=True).start()

    def _serve(self, client: socket.socket, stream: BinaryIO) -> None:
        with client, contextlib.suppress(OSError, _EndError):
            while True:
                raw = _read_packet(stream.read)
                while self.silent and self._client is client:
                    time.sleep(0.01)
                if raw[0] >> 4 == 1:
                    self._version = raw[_length_at(raw) + 6]
                packet = self._parse(raw[0], raw[_length_at(raw) :], raw)
                self.heard.append(packet)
                self._answer(packet)
                if packet.kind == "DISCONNECT":
                    return

    def _answer(self, packet: Packet) -> None:
        modern = self._version == 5
        mid = struct.pack(">H", packet.mid)
        match packet.kind:
            case "CONNECT":
                answer = self.connack(packet)
                if answer is not None:
                    extra = _properties(answer.properties) if modern else b""
                    self._say("CONNACK", 0, bytes([answer.session, answer.code]) + extra)
                    if not answer.code:
                        self.on_connected(self)
            case "PUBLISH" if packet.qos:
                code = self.puback(packet)
                if code is not None:
                    self._say("PUBACK", 0, mid + (bytes([code]) if code and modern else b""))
            case "SUBSCRIBE":
                codes = bytes(self.suback(topic, options & 3) for topic, options in packet.topics)
                self._say("SUBACK", 0, mid + (b"\0" if modern else b"") + codes)
            case "UNSUBSCRIBE":
                self._say("UNSUBACK", 0, mid + (b"\0" + bytes(len(packet.topics)) if modern else b""))
            case "PINGREQ" if self.pings:
                self._say("PINGRESP", 0, b"")

    def _parse(self, command: int, body: bytes, raw: bytes) -> Packet:
        reader, kind = _Reader(body), _KINDS[command >> 4]
        packet = Packet(time.monotonic(), self.connections, kind, raw=raw)
        modern = self._version == 5
        if kind == "CONNECT":
            reader.take(7)  # name, version
            flags = reader.number(1)
            reader.take(2)  # keep alive
            properties = reader.properties() if modern else {}
            return packet._replace(properties=properties, qos=flags >> 3 & 3, retain=bool(flags & 32))
        if kind == "PUBLISH":
            topic, qos = reader.text(), command >> 1 & 3
            mid = reader.number(2) if qos else 0
            packet = packet._replace(topic=topic, mid=mid, properties=reader.properties() if modern else {})
            return packet._replace(payload=reader.rest(), qos=qos, dup=bool(command & 8), retain=bool(command & 1))
        if kind in ("CONNACK", "DISCONNECT"):
            return packet._replace(code=body[kind == "CONNACK"] if body else 0)
        packet = packet._replace(mid=reader.number(2))
        if kind not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return packet._replace(code=reader.number(1))
        if modern:
            reader.properties()
        topics = []
        while reader.left:
            topics.append((reader.text(), reader.number(1) if kind == "SUBSCRIBE" else 0))
        return packet._replace(topics=tuple(topics))


class _EndError(Exception):
    """The client has gone."""


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, low = size >> 7, size & 127
        out.append(low | (128 if size else 0))
        if not size:
            return bytes(out)


def _size(length: bytes) -> int:
    return sum((byte & 127) << 7 * at for at, byte in enumerate(length))


def _length_at(raw: bytes) -> int:
    """Return where the body of a packet begins."""
    return next(at for at in range(1, 5) if raw[at] < 128) + 1


def _properties(values: Mapping[int, int]) -> bytes:
    data = b"".join(bytes([number]) + value.to_bytes(_SIZES[number], "big") for number, value in values.items())
    return _length(len(data)) + data


def _read_packet(read: Callable[[int], bytes]) -> bytes:
    def exactly(count: int) -> bytes:
        data = read(count)
        if len(data) < count:
            raise _EndError
        return data

    head = exactly(2)
    while head[-1] & 128:
        head += exactly(1)
    return head + exactly(_size(head[1:]))


class _Reader:
    """Reads fields; zeros and nothing behind the end."""

    def __init__(self, body: bytes) -> None:
        self.left = body

    def take(self, count: int) -> bytes:
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self) -> str:
        return self.take(self.number(2)).decode()

    def rest(self) -> bytes:
        return self.take(len(self.left))

    def properties(self) -> dict[int, int]:
        at = _length_at(b"\0" + self.left) - 1
        inner = _Reader(self.take(at + _size(self.left[:at]))[at:])
        found = {}
        while inner.left:
            number = inner.number(1)
            if number in _SIZES:
                found[number] = inner.number(_SIZES[number])
            else:
                inner.text()  # a reason string and its like
        return found
