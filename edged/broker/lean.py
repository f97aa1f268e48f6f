"""A paho client that reads the two packets which make up the traffic, PUBLISH and PUBACK, without paho's detours.

For each of them paho builds tables of all MQTT 5 properties, a message object, a matcher's walk, locks and a condition:
a third of the daemon's CPU time with a small model (``make bench``). Both handlers below read what edged needs from the
bytes (MQTT 5.0, sections 3.3 and 3.4) and leave everything out of the ordinary to paho. Should a paho to come no longer
call them, its own way through its callbacks is still there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edged.base.nothing import nothing
from edged.broker.options import BrokerOptions
from edged.broker.wire import Wire

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
