"""Paho, made lean: a client that reads most packets of the broker itself, over a socket that is connected already.

For PUBLISH and PUBACK paho builds tables of all MQTT 5 properties, a message object, a matcher's walk, locks and a
condition: a third of the daemon's CPU time with a small model (``make bench``). And it raises ValueError for reason
codes that it does not know: 0x95 in a PUBACK, say. The handlers of :class:`LeanClient` read what edged needs from the
bytes (MQTT 5.0, chapter 3), and take any reason code.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edged.base.nothing import nothing
from edged.broker.options import BrokerOptions
from edged.broker.wire import Wire

MQTT5 = MQTTProtocolVersion.MQTTv5

MALFORMED, PROTOCOL_ERROR, TOPIC_ALIAS_INVALID = 0x81, 0x82, 0x94
_TAKEN = MQTTErrorCode.MQTT_ERR_SUCCESS
_OLD_REFUSALS = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
"""Reason codes of MQTT 5 for the return codes of a 3.1.1 CONNACK (MQTT 3.1.1, table 3.1)."""
_EXACTLY_ONCE, _NO_QOS = 2, 3

LONGEST_PACKET = 17 << 20
"""Bytes of a packet that are kept; its message arrives cut short, and is longer than any that edged takes."""


class ProtocolError(Exception):
    """The broker breaks the rules of MQTT.

    :ivar code: reason code for DISCONNECT.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Publish(NamedTuple):
    """A PUBLISH packet."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int


def parse_publish(command: int, body: bytes, *, properties: bool) -> Publish:
    """Return a PUBLISH packet (MQTT 5.0, section 3.3), without its properties.

    :param command: the packet's first byte.
    :param body: the packet behind its length.
    :param properties: whether this version of MQTT has them.
    :raises ProtocolError: it is none, or has a Topic Alias, which edged never allows.
    """
    qos = command >> 1 & 3
    at = 2 + int.from_bytes(body[:2], "big")
    start = at + 2 * (qos > 0)
    if properties:
        start = start + 1 if body[start : start + 1] == b"\0" else _after_properties(body, start)
    if qos == _NO_QOS or start > len(body):
        raise ProtocolError(MALFORMED, "it sends a message that is cut short")
    mid = int.from_bytes(body[at : at + 2], "big") if qos else 0
    if at == 2 or (qos and not mid):  # noqa: PLR2004  an empty topic
        raise ProtocolError(PROTOCOL_ERROR, "it sends a message without a topic or a packet id")
    try:
        topic = body[2:at].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(MALFORMED, "it sends a message whose topic is not UTF-8") from error
    return Publish(topic, body[start:], qos, bool(command & 1), bool(command & 8), mid)


def _after_properties(body: bytes, start: int) -> int:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    try:
        _, size = properties.unpack(body[start:])  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ProtocolError(MALFORMED, f"it sends properties that cannot be read ({error})") from error
    if hasattr(properties, "TopicAlias"):
        raise ProtocolError(TOPIC_ALIAS_INVALID, "it sends a Topic Alias, although this client allows none")
    return start + int(size)


class PacketHandler(Protocol):
    """Takes the broker's packets."""

    def on_publish(self, publish: Publish) -> None:
        """Take a message."""

    def on_puback(self, mid: int, code: int) -> None:
        """Take the answer to a message of QoS 1; for QoS 0 it is 0, once the message was written."""

    def on_refused(self, code: int) -> None:
        """Take a CONNACK that refuses this client."""

    def on_suback(self, mid: int, codes: list[int]) -> None:
        """Take the answers to a SUBSCRIBE."""

    def on_ended(self, code: int) -> None:
        """Take a DISCONNECT."""

    def on_pong(self) -> None:
        """Take the answer to PINGREQ."""


class LeanClient(mqtt.Client):
    """A paho client on a socket that is connected already."""

    def __init__(
        self, wire: Wire, options: BrokerOptions, protocol: MQTTProtocolVersion, handler: PacketHandler
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
        wire.on_long_read = self._cut_short
        self._version_5 = protocol == MQTT5
        self._handler = handler
        self._take_publish = handler.on_publish
        self._exactly_once: set[int] = set()
        self.on_publish = self._on_written
        # 0: no limit. Otherwise paho looks through all unacknowledged messages at each acknowledgement
        self.max_inflight_messages_set(0)
        # with this set paho leaves packets in its queue, and one loop_write() takes them all
        self.on_socket_register_write = nothing

    def acknowledge(self, mid: int) -> None:
        """Acknowledge the message of a packet id."""
        if mid in self._exactly_once:
            self._exactly_once.discard(mid)
            self._send_pubrec(mid)
        else:
            self._send_puback(mid)

    def ping(self) -> None:
        """Send PINGREQ."""
        self._send_pingreq()

    def _cut_short(self) -> None:
        del self._in_packet["packet"][LONGEST_PACKET:]

    # called by paho

    def _create_socket(self) -> Wire:
        return self._wire

    @property
    def _body(self) -> bytes:
        return bytes(self._in_packet["packet"])

    def _handle_publish(self) -> MQTTErrorCode:
        packet = self._in_packet
        publish = parse_publish(packet["command"], bytes(packet["packet"]), properties=self._version_5)
        if publish.qos == _EXACTLY_ONCE:  # from a session with another client's subscription: edged asks for 1 at most
            self._exactly_once.add(publish.mid)
        self._take_publish(publish)
        return _TAKEN

    def _handle_pubrel(self) -> MQTTErrorCode:
        return self._send_pubcomp(int.from_bytes(self._body[:2], "big"))

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        body = self._in_packet["packet"]
        mid = int.from_bytes(body[:2], "big")
        if cmd == "PUBACK" and self._out_messages.pop(mid, None) is not None:
            self._inflight_messages -= 1
            self._handler.on_puback(mid, body[2] if self._version_5 and len(body) > 2 else 0)  # noqa: PLR2004  a code
        return _TAKEN

    def _on_written(self, _client: object, _userdata: object, mid: int, _code: object, _info: object) -> None:
        self._handler.on_puback(mid, 0)

    def _handle_connack(self) -> MQTTErrorCode:
        code = self._body[1:2]
        if code in (b"", b"\0"):
            return super()._handle_connack()
        self._handler.on_refused(_OLD_REFUSALS.get(code[0], code[0]))
        return MQTTErrorCode.MQTT_ERR_CONN_REFUSED

    def _handle_suback(self) -> None:
        body = self._body
        at = 2
        if self._version_5:
            _, size = Properties(PacketTypes.SUBACK).unpack(body[at:])  # type: ignore[no-untyped-call]
            at += size
        self._handler.on_suback(int.from_bytes(body[:2], "big"), list(body[at:]))

    def _handle_unsuback(self) -> MQTTErrorCode:
        return _TAKEN

    def _handle_disconnect(self) -> None:
        self._sock_close()
        self._handler.on_ended(self._body[0] if self._body else 0)

    def _handle_pingresp(self) -> MQTTErrorCode:
        self._handler.on_pong()
        return _TAKEN
