"""Paho, made lean: a socket that reads and writes in large pieces, a client that parses PUBLISH and PUBACK itself.

Paho asks for one byte, one more, and then the rest of each packet, and writes each packet by itself. :class:`Wire` is a
buffer between paho and the kernel: one read and one write serve all packets of a turn.

For PUBLISH and PUBACK paho builds tables of all MQTT 5 properties, a message object, a matcher's walk, locks and a
condition: a third of the daemon's CPU time with a small model (``make bench``). The two handlers of :class:`LeanClient`
read what edged needs from the bytes (MQTT 5.0, sections 3.3 and 3.4) and leave unusual packets to paho. If a later paho
no longer calls them, paho's own callbacks still work.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edged.base.nothing import nothing
from edged.broker.options import BrokerOptions

MQTT5 = MQTTProtocolVersion.MQTTv5


class Publish(NamedTuple):
    """A PUBLISH packet of QoS 0 or 1."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int


def parse_publish(command: int, body: bytes, *, properties: bool) -> Publish | None:
    """Return a PUBLISH packet; None where it is of QoS 2, has properties, or is none: for paho to judge.

    :param command: the packet's first byte.
    :param body: the packet behind its length.
    :param properties: whether this version of MQTT has them.
    """
    qos = command >> 1 & 3
    at = 2 + int.from_bytes(body[:2], "big")
    start = at + 2 * (qos > 0) + properties
    if qos > 1 or at == 2 or start > len(body) or (properties and body[start - 1]):  # noqa: PLR2004  an empty topic
        return None
    try:
        topic = body[2:at].decode()
    except UnicodeDecodeError:
        return None
    mid = int.from_bytes(body[at : at + 2], "big") if qos else 0
    return Publish(topic, body[start:], qos, bool(command & 1), bool(command & 8), mid)


@lru_cache
def _reason(code: int) -> ReasonCode:
    return ReasonCode(PacketTypes.PUBACK, identifier=code)


class LeanClient(mqtt.Client):
    """A paho client on a socket that is connected already.

    :param on_publish_packet: takes each message.
    :param on_puback: takes the broker's answer to a message: its id and the reason code.
    """

    def __init__(
        self,
        wire: Wire,
        options: BrokerOptions,
        protocol: MQTTProtocolVersion,
        *,
        on_publish_packet: Callable[[Publish], None],
        on_puback: Callable[[int, ReasonCode], None],
    ) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=protocol,
            clean_session=None if protocol == MQTT5 else options.clean,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._wire = wire
        self._version_5 = protocol == MQTT5
        self._on_publish_packet = on_publish_packet
        self._on_puback = on_puback
        self.on_message = self._take_message
        self.on_publish = self._take_answer
        # 0: no limit. Otherwise paho looks through all unacknowledged messages at each acknowledgement
        self.max_inflight_messages_set(0)
        # with this set paho leaves packets in its queue, and one loop_write() takes them all
        self.on_socket_register_write = nothing

    def _create_socket(self) -> Wire:
        return self._wire

    def _handle_publish(self) -> MQTTErrorCode:
        packet = self._in_packet
        publish = parse_publish(packet["command"], bytes(packet["packet"]), properties=self._version_5)
        if publish is None:
            return super()._handle_publish()
        self._on_publish_packet(publish)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        body = self._in_packet["packet"]
        if cmd != "PUBACK" or len(body) not in (2, 3):
            return super()._handle_pubackcomp(cmd)
        mid = int.from_bytes(body[:2], "big")
        if self._out_messages.pop(mid, None) is not None:
            self._inflight_messages -= 1
            self._on_puback(mid, _reason(body[2] if len(body) == 3 else 0))  # noqa: PLR2004  with a reason code
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _take_message(self, _client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        payload = bytes(message.payload)
        self._on_publish_packet(Publish(message.topic, payload, message.qos, message.retain, message.dup, message.mid))

    def _take_answer(self, _client: object, _userdata: object, mid: int, code: ReasonCode, _info: object) -> None:
        self._on_puback(mid, code)


_READ = 1 << 16
_WRITE_AHEAD = 1 << 18
_GOODBYE = 1.0
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire:
    """The socket for paho.

    :ivar error: the error that ended the connection, if there was one.
    :ivar held: make :meth:`recv` look empty, so that paho returns after the packet that it handles.
    :ivar linger: make :meth:`close` write queued packets and let the broker read them, which a bare close may cut off.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self.error: OSError | None = None
        self.held = False
        self.linger = False
        self._sock = sock
        self._by_record = isinstance(sock, ssl.SSLSocket)
        self._in = b""
        self._at = 0
        self._out = bytearray()
        self._ended = False

    def fill(self) -> None:
        """Read all that the kernel has, up to about 64 kB. TLS hands out records one by one, often a packet each."""
        pieces: list[bytes] = []
        size = 0
        try:
            while size < _READ and not self._ended:
                pieces.append(self._sock.recv(_READ))
                size += len(pieces[-1])
                self._ended = not pieces[-1]
                if not self._by_record:
                    break
        except _WOULD_BLOCK:
            pass
        except OSError as error:
            self.error = error  # says more than an earlier failure to write: a TLS alert is only read
            self._ended = True
        self._in = b"".join(pieces)
        self._at = 0

    @property
    def unread(self) -> bool:
        """True if :meth:`recv` returns bytes, or the end, without another :meth:`fill`."""
        return not self.held and (self._at < len(self._in) or self._ended)

    @property
    def unsent(self) -> bool:
        """True while bytes wait for the kernel."""
        return bool(self._out)

    @property
    def tls(self) -> str | None:
        """Return the version of TLS that is spoken, if any."""
        return self._sock.version() if isinstance(self._sock, ssl.SSLSocket) else None

    def flush(self) -> None:
        """Write all that the kernel accepts. After an error only reading goes on: the broker may have said why."""
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except _WOULD_BLOCK:
            return
        except OSError as error:
            self.error = self.error or error
            self._out.clear()

    # called by paho

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001
        """Do nothing: the socket never blocks."""

    def recv(self, size: int) -> bytes:
        """Return up to ``size`` bytes of what was read; none at the connection's end."""
        if self.held:
            raise BlockingIOError
        piece = self._in[self._at : self._at + size]
        self._at += len(piece)
        if not piece and not self._ended:
            raise BlockingIOError
        return piece

    def send(self, data: bytes | bytearray) -> int:
        """Take a whole packet, unless too much waits already."""
        if len(self._out) > _WRITE_AHEAD:
            raise BlockingIOError
        if self.error is None:
            self._out += data
        return len(data)

    def close(self) -> None:
        """Close; where :attr:`linger` is set, within about three seconds."""
        with self._sock, contextlib.suppress(OSError):
            if not self.linger or self._ended:
                return
            until = time.monotonic() + _GOODBYE
            self._sock.settimeout(_GOODBYE)
            self._sock.sendall(self._out)
            self._sock.shutdown(socket.SHUT_WR)
            while time.monotonic() < until and self._sock.recv(_READ):
                pass
