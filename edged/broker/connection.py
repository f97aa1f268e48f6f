"""One connection: a paho client over one open socket, from CONNECT to its end.

Paho's own reconnecting is not used. A fresh client for each connection knows no message ids of the last one, honours
what this broker allows, and can speak another version of MQTT.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.broker.dial import TIMEOUT, explain
from edged.broker.options import Address, BrokerOptions, Delivery, Message
from edged.broker.wire import Wire
from edged.errors import BrokerError

MQTT5, MQTT311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
MOST_UNACKNOWLEDGED = 1000
"""Messages that are sent ahead of their acknowledgement, unless the broker takes fewer."""

UNSUPPORTED_VERSION, TAKEN_OVER = 132, 142
_TURN = 0.005
_MISC_EVERY = 1.0

_REFUSALS = {
    UNSUPPORTED_VERSION: ("it speaks neither MQTT 5 nor 3.1.1", None),
    133: ("it refuses the client id", "give this client another id"),
    134: ("it refuses the user name or password", "check broker.username and broker.password"),
    135: ("not authorised", "check broker.username, broker.password and broker.cert, and what the broker allows them"),
    136: ("it is not available now", None),
    137: ("it is busy", None),
    138: ("it has banned this client", "ask whoever runs the broker"),
}


class Events(Protocol):
    """What a connection reports, from within :meth:`Connection.turn`."""

    def on_connected(self) -> None:
        """Say that the broker has accepted this client."""

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a message."""

    def on_acknowledged(self, mid: int, code: int) -> None:
        """Take the broker's answer to a message: an MQTT 5 reason code. Comes at once for QoS 0, with success."""

    def on_subscribed(self, topic: str, code: int) -> None:
        """Take the broker's answer to a subscription: the QoS it grants, or a reason code of 128 and above."""


class _Client(mqtt.Client):
    """A paho client that takes a socket which is connected already."""

    def __init__(self, wire: Wire, options: BrokerOptions, protocol: MQTTProtocolVersion) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=protocol,
            clean_session=None if protocol == MQTT5 else not options.session_expiry,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._wire = wire
        # 0: no limit. Otherwise paho looks through all unacknowledged messages at each acknowledgement
        self.max_inflight_messages_set(0)
        # with this set paho leaves packets in its queue, and one loop_write() takes them all
        self.on_socket_register_write = _leave_it

    def _create_socket(self) -> Wire:
        return self._wire


def _leave_it(_client: mqtt.Client, _userdata: object, _socket: object) -> None:
    pass


class Connection:
    """Speaks MQTT over a wire until it is lost.

    :ivar up: the broker has accepted this client, and the connection stands.
    :ivar lost: why it is over.
    :ivar code: the reason code that the broker gave when it refused or ended the connection; 0 if none.
    :ivar window: messages that may be sent ahead of their acknowledgement.
    """

    def __init__(self, wire: Wire, options: BrokerOptions, protocol: MQTTProtocolVersion, events: Events) -> None:
        self.protocol = protocol
        self.up = False
        self.up_since = 0.0
        self.lost: BrokerError | None = None
        self.code = 0
        self.window = MOST_UNACKNOWLEDGED
        self._wire = wire
        self._address = Address.parse(options.url)
        self._events = events
        self._give_up_at = time.monotonic() + TIMEOUT
        self._misc_at = 0.0
        self._turn_ends = 0.0
        self._subscribing: dict[int, list[str]] = {}
        self._client = client = _Client(wire, options, protocol)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        if options.username is not None:
            client.username_pw_set(options.username, options.password)  # type: ignore[arg-type]  # bytes are fine
        if options.will is not None:
            client.will_set(*options.will)
        self._connect(options)

    def _connect(self, options: BrokerOptions) -> None:
        host = self._address.host or "localhost"
        if self.protocol == MQTT5:
            properties = Properties(PacketTypes.CONNECT)
            properties.ReceiveMaximum = options.receive_maximum
            properties.SessionExpiryInterval = options.session_expiry
            clean = not options.session_expiry
            self._client.connect(host, keepalive=options.keepalive, clean_start=clean, properties=properties)
        else:
            self._client.connect(host, keepalive=options.keepalive)

    def __str__(self) -> str:
        version = "5" if self.protocol == MQTT5 else "3.1.1"
        tls = self._wire.tls
        return f"MQTT {version}" + (f" over {tls}" if tls else "")

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._wire.fileno()

    @property
    def wants_turn(self) -> bool:
        """Whether a turn is due without anything new to read."""
        return self._wire.unread

    @property
    def wants_write(self) -> bool:
        """Whether something waits until the kernel takes more."""
        return self._wire.unsent

    def publish(self, message: Message) -> int:
        """Send a message with the next turn or flush; return its message id."""
        while True:
            info = self._client.publish(*message)
            # after 65,535 messages ids start again; one that is still unacknowledged is passed over
            if info.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                return info.mid

    def subscribe(self, topics: Iterable[tuple[str, int]]) -> None:
        """Ask for topics, each with its QoS; at least one."""
        wanted = list(topics)
        _, mid = self._client.subscribe(wanted)
        if mid is not None:
            self._subscribing[mid] = [topic for topic, _ in wanted]

    def unsubscribe(self, topics: Iterable[str]) -> None:
        """Do without topics; at least one."""
        self._client.unsubscribe(list(topics))

    def _ack(self, mid: int) -> None:
        if self.lost is None:
            self._client.ack(mid, 1)

    def turn(self, *, readable: bool) -> None:
        """Handle what has arrived: one read, and as many of its packets as begin within a few milliseconds."""
        wire = self._wire
        now = time.monotonic()
        if readable and not wire.unread:
            wire.fill()
        self._turn_ends = now + _TURN
        wire.hold(False)
        while self.lost is None and wire.unread and not wire.held:
            self._client.loop_read()
        self.flush()
        if now >= self._misc_at:
            self._misc_at = now + _MISC_EVERY
            self._check(now)

    def flush(self) -> None:
        """Write what waits."""
        if self._client.want_write():
            self._client.loop_write()
        if self._wire.unsent:
            self._wire.flush()

    def _check(self, now: float) -> None:
        if not self.up and now >= self._give_up_at:
            self._lose(BrokerError(f"broker {self._address}: it does not answer", hint="is it an MQTT broker?"))
        else:
            self._client.loop_misc()

    def close(self) -> None:
        """Say goodbye, so that no will is published. Blocks for about three seconds at most."""
        self._wire.linger = self.up
        self._client.disconnect()
        self.flush()
        self.abort()

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.up = False
        self.lost = self.lost or BrokerError(f"broker {self._address}: connection closed")
        self._wire.close()

    def _lose(self, error: BrokerError) -> None:
        self.lost = self.lost or error
        self.abort()

    # paho's callbacks. An exception must not pass through paho: it would leave it with half a packet

    def _on_connect(self, _client: object, _userdata: Any, _flags: object, code: ReasonCode, info: Properties) -> None:
        if code.is_failure:
            self.code = code.value
            what, hint = _REFUSALS.get(code.value, (str(code).lower(), None))
            self.lost = BrokerError(f"broker {self._address}: {what}", hint=hint)
            return
        self.window = min(MOST_UNACKNOWLEDGED, getattr(info, "ReceiveMaximum", MOST_UNACKNOWLEDGED))
        self.up = True
        self.up_since = time.monotonic()
        self._events.on_connected()

    def _on_disconnect(
        self, _client: object, _userdata: Any, flags: mqtt.DisconnectFlags, code: ReasonCode, _info: object
    ) -> None:
        if self.lost is None:
            if flags.is_disconnect_packet_from_server:
                self.code = code.value
                self.lost = BrokerError(f"broker {self._address}: it ended the connection: {str(code).lower()}")
            elif self._wire.error is not None:
                self.lost = explain(self._wire.error, self._address)
            elif self.up:
                self.lost = BrokerError(f"broker {self._address}: connection lost ({str(code).lower()})")
            else:
                self.lost = BrokerError(
                    f"broker {self._address}: it closed the connection without an answer",
                    hint="is this its TLS port? then broker.url starts with mqtts://",
                )
        self.up = False

    def _on_message(self, _client: object, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        ack = partial(self._ack, message.mid) if message.qos else _nothing_to_acknowledge
        self._events.on_delivery(
            Delivery(message.topic, message.payload, message.qos, message.retain, message.dup, ack)
        )
        if time.monotonic() > self._turn_ends:
            self._wire.hold(True)

    def _on_publish(self, _client: object, _userdata: Any, mid: int, code: ReasonCode, _info: object) -> None:
        self._events.on_acknowledged(mid, code.value)

    def _on_subscribe(self, _client: object, _userdata: Any, mid: int, codes: list[ReasonCode], _info: object) -> None:
        for topic, code in zip(self._subscribing.pop(mid, ()), codes, strict=False):
            self._events.on_subscribed(topic, code.value)


def _nothing_to_acknowledge() -> None:
    pass
