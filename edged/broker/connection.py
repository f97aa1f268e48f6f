"""One connection: a paho client over one open socket, from CONNECT to its end.

Paho's own reconnecting is not used. A fresh client for each connection knows no message ids of the last one, honours
what this broker allows, and can speak another version of MQTT.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from paho.mqtt import client as mqtt
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.base.errors import BrokerError
from edged.base.nothing import nothing
from edged.broker.dial import TIMEOUT, explain
from edged.broker.lean_paho import LeanClient, Publish, Wire
from edged.broker.options import Address, BrokerOptions, Delivery, Message

MQTT5, MQTT311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
MOST_UNACKNOWLEDGED = 1000
"""Messages that are sent ahead of their acknowledgement, unless the broker takes fewer."""

_UNSUPPORTED_VERSION = 132
_TURN = 0.005
_CHECK_EVERY = 1.0

_REFUSALS = {
    _UNSUPPORTED_VERSION: ("it speaks neither MQTT 5 nor 3.1.1", None),
    133: ("it refuses the client id", "give this client another id"),
    134: ("it refuses the user name or password", "check broker.username and broker.password"),
    135: ("not authorised", "check broker.username, broker.password and broker.cert, and what the broker allows them"),
    136: ("it is not available now", None),
    137: ("it is busy", None),
    138: ("it has banned this client", "ask whoever runs the broker"),
}


class Events(NamedTuple):
    """Callbacks of :meth:`Connection.turn`. They must not raise.

    :ivar connected: the broker has accepted this client.
    :ivar delivered: a message arrived.
    :ivar acknowledged: the broker's answer to the message of that id; for QoS 0 success, once it is on its way.
    :ivar subscribed: the broker's answer to the subscription to that topic.
    """

    connected: Callable[[], None]
    delivered: Callable[[Delivery], None]
    acknowledged: Callable[[int, ReasonCode], None]
    subscribed: Callable[[str, ReasonCode], None]


class Connection:
    """Speaks MQTT over a wire until it is lost.

    :ivar up: the broker has accepted this client, and the connection stands.
    :ivar up_since: when it did (monotonic); 0 if never.
    :ivar lost: the reason for its end; None while it lasts.
    :ivar code: the reason code that the broker gave when it refused or ended the connection; 0 if none.
    :ivar other_version: the broker refused this version of MQTT, or hung up without an answer, as some do then.
    :ivar window: messages that may be sent ahead of their acknowledgement.
    :ivar most_bytes: bytes of a packet that the broker takes (MQTT 5, section 3.2.2.3.6).
    """

    def __init__(self, wire: Wire, options: BrokerOptions, protocol: MQTTProtocolVersion, events: Events) -> None:
        self.protocol = protocol
        self.up = False
        self.up_since = 0.0
        self.lost: BrokerError | None = None
        self.code = 0
        self.other_version = False
        self.window = MOST_UNACKNOWLEDGED
        self.most_bytes = math.inf
        self._accepted = False
        self._wire = wire
        self._address = Address.parse(options.url)
        self._events = events
        self._give_up_at = time.monotonic() + TIMEOUT
        self._check_at = 0.0
        self._turn_ends = 0.0
        self._subscribing: dict[int, list[str]] = {}
        self._client = client = LeanClient(
            wire, options, protocol, on_publish_packet=self._on_message, on_puback=events.acknowledged
        )
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        if options.username is not None:
            client.username_pw_set(options.username, options.password)  # type: ignore[arg-type]  # bytes are fine
        if options.will is not None:
            client.will_set(*options.will)
        self._connect(options)

    def _connect(self, options: BrokerOptions) -> None:
        host = self._address.host or "localhost"
        if self.protocol == MQTT5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = options.receive_maximum
            properties.SessionExpiryInterval = options.session_expiry
            self._client.connect(host, keepalive=options.keepalive, clean_start=options.clean, properties=properties)
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
    def unread(self) -> bool:
        """True if a turn is due even if nothing more arrives."""
        return self._wire.unread

    @property
    def unsent(self) -> bool:
        """True while data waits for the kernel."""
        return self._wire.unsent

    def publish(self, message: Message) -> int:
        """Send a message with the next turn or flush; return its message id."""
        while True:
            info = self._client.publish(*message)
            # after 65,535 messages ids start again; one that is still unacknowledged is passed over
            if info.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                return info.mid

    def subscribe(self, topics: Iterable[tuple[str, int]]) -> None:
        """Subscribe to topics, each with its QoS; at least one."""
        wanted = list(topics)
        _, mid = self._client.subscribe(wanted)
        if mid is not None:
            self._subscribing[mid] = [topic for topic, _ in wanted]

    def unsubscribe(self, topics: Iterable[str]) -> None:
        """Unsubscribe from topics; at least one."""
        self._client.unsubscribe(list(topics))

    def _ack(self, mid: int) -> None:
        if self.lost is None:
            self._client.ack(mid, 1)

    def turn(self, *, readable: bool) -> None:
        """Handle arrived packets: one read, and as many of its packets as begin within a few milliseconds.

        :param readable: True if there is something to read.
        """
        now = time.monotonic()
        self._turn_ends = now + _TURN
        try:
            if readable and not self._wire.unread:
                self._wire.fill()
            while self.lost is None and self._wire.unread:
                self._client.loop_read()
                if self._accepted:
                    self._accepted = False
                    self._events.connected()
            self._wire.held = False
            self.flush()
            if now >= self._check_at:
                self._check_at = now + _CHECK_EVERY
                self._check(now)
        except Exception as error:  # noqa: BLE001  whatever paho makes of bytes that are no MQTT
            self._lose(f"it sent what cannot be read ({type(error).__name__}: {error})")

    def flush(self) -> None:
        """Write queued packets."""
        if self._client.want_write():
            self._client.loop_write()
        if self._wire.unsent:
            self._wire.flush()

    def _check(self, now: float) -> None:
        if not self.up and now >= self._give_up_at:
            self._lose("it does not answer", hint="is it an MQTT broker?")
        else:
            self._client.loop_misc()

    def close(self) -> None:
        """Disconnect, so that no will is published. Blocks for about three seconds at most."""
        self._wire.linger = self.up
        self._client.disconnect()
        self.flush()
        self._lose("connection closed")

    def _lose(self, what: str, *, hint: str | None = None) -> None:
        self.up = False
        self._note_loss(what, hint=hint)
        self._wire.close()

    def _note_loss(self, what: str, *, hint: str | None = None) -> None:
        """Keep the first reason: what follows it is its consequence."""
        self.lost = self.lost or BrokerError(f"broker {self._address}: {what}", hint=hint)

    # paho's callbacks

    def _on_connect(
        self, _client: object, _userdata: object, _flags: object, code: ReasonCode, info: Properties | None
    ) -> None:
        if code.is_failure:
            self.code = code.value
            self.other_version = code.value == _UNSUPPORTED_VERSION
            what, hint = _REFUSALS.get(code.value, (_words(code), None))
            self._note_loss(what, hint=hint)
            return
        self.window = min(MOST_UNACKNOWLEDGED, getattr(info, "ReceiveMaximum", MOST_UNACKNOWLEDGED))
        self.most_bytes = getattr(info, "MaximumPacketSize", math.inf)
        self.up = True
        self.up_since = time.monotonic()
        self._accepted = True  # reported later: paho would trip over what is published from within

    def _on_disconnect(
        self, _client: object, _userdata: object, flags: mqtt.DisconnectFlags, code: ReasonCode, _info: object
    ) -> None:
        error = self._wire.error
        if flags.is_disconnect_packet_from_server:
            self.code = code.value
            self._note_loss(f"it ended the connection: {_words(code)}")
        elif not self.up_since and (error is None or isinstance(error, ConnectionError)):
            self.other_version = self.other_version or self.lost is None
            self._note_loss(
                "it closed the connection without an answer",
                hint="is this its TLS port? then broker.url starts with mqtts://",
            )
        elif error is not None:
            self.lost = self.lost or explain(error, self._address)
        else:
            self._note_loss(f"connection lost: {_words(code)}")
        self.up = False

    def _on_message(self, message: Publish) -> None:
        ack = partial(self._ack, message.mid) if message.qos else nothing
        self._events.delivered(Delivery(message.topic, message.payload, message.qos, message.retain, message.dup, ack))
        if time.monotonic() > self._turn_ends:
            self._wire.held = True

    def _on_subscribe(
        self, _client: object, _userdata: object, mid: int, codes: list[ReasonCode], _info: object
    ) -> None:
        for topic, code in zip(self._subscribing.pop(mid, ()), codes, strict=False):
            self._events.subscribed(topic, code)


def _words(code: ReasonCode) -> str:
    return str(code).lower()
