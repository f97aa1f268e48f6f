"""One connection: a paho client over one open socket, from CONNECT to its end.

Paho's own reconnecting is not used. A fresh client for each connection knows no message ids of the last one, honours
what this broker allows, and can speak another version of MQTT. Nor is paho's keepalive: it waits for twice as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from paho.mqtt import client as mqtt
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edged.base.errors import BrokerError
from edged.broker.dial import TIMEOUT, explain
from edged.broker.lean_paho import LONGEST_PACKET, PROTOCOL_ERROR, LeanClient, ProtocolError, Publish
from edged.broker.limits import BrokerLimits, Filter
from edged.broker.options import Address, BrokerOptions, Message
from edged.broker.reasons import PACKET_TOO_LARGE, UNSUPPORTED_VERSION, hint, why
from edged.broker.wire import Wire

MQTT5, MQTT311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311

_TURN = 0.005
_DO_NOT_SEND_RETAINED = 2
_UNSPECIFIED = 0x80


class Events(NamedTuple):
    """Callbacks of :meth:`Connection.turn`. They must not raise.

    :ivar connected: the broker has accepted this client.
    :ivar delivered: a message arrived.
    :ivar acknowledged: reason code for the message of that id; for QoS 0 it is 0, once the message was written.
    :ivar subscribed: reason code for the subscription to that topic.
    :ivar pinged: a PINGREQ goes out behind all packets so far.
    :ivar ponged: the broker has read all that was sent before the last PINGREQ.
    """

    connected: Callable[[], None]
    delivered: Callable[[Publish], None]
    acknowledged: Callable[[int, int], None]
    subscribed: Callable[[Filter, int], None]
    pinged: Callable[[], None]
    ponged: Callable[[], None]


class Connection:
    """Speaks MQTT over a wire until it is lost.

    :ivar up: the broker has accepted this client, and the connection stands.
    :ivar up_since: when it did (monotonic); 0 if never.
    :ivar lost: the reason for its end; None while it lasts.
    :ivar code: the reason code that the broker gave when it refused or ended the connection; 0 if none.
    :ivar other_version: the broker refused this version of MQTT, or hung up without an answer, as some do then.
    :ivar session: the broker has the session of an earlier connection.
    :ivar limits: the broker's, once it has accepted this client.
    :ivar pinging: a PINGREQ waits for its answer.
    :ivar drained_at: when everything that had arrived was last handled (monotonic).
    """

    def __init__(self, wire: Wire, options: BrokerOptions, protocol: MQTTProtocolVersion, events: Events) -> None:
        self.protocol = protocol
        self.up = False
        self.up_since = 0.0
        self.lost: BrokerError | None = None
        self.code = 0
        self.other_version = False
        self.session = False
        self.limits = BrokerLimits()
        self.pinging = False
        self._accepted = False
        self._wire = wire
        self._address = Address.parse(options.url)
        self._events = events
        self._keepalive = options.keepalive
        self.drained_at = now = time.monotonic()
        self._give_up_at = now + TIMEOUT
        self._check_at = self._turn_ends = self._pinged_at = 0.0
        self._subscribing: dict[int, list[Filter]] = {}
        self._client = client = LeanClient(wire, options, protocol, self)
        self.acknowledge = client.acknowledge
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        if options.username is not None:
            client.username_pw_set(options.username, options.password)  # type: ignore[arg-type]  # bytes are fine
        if options.will is not None:
            client.will_set(*options.will)
        self._connect(options)

    def _connect(self, options: BrokerOptions) -> None:
        host = self._address.host or "localhost"
        if self.protocol == MQTT5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = LONGEST_PACKET
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

    @property
    def due_in(self) -> float:
        """Seconds until a turn is due even if nothing arrives."""
        return max(0.0, self._check_at - time.monotonic())

    def publish(self, message: Message) -> int:
        """Send a message with the next turn or flush, as the broker takes it; return its message id."""
        topic, payload, qos, retain = message
        while True:
            info = self._client.publish(topic, payload, min(qos, self.limits.most_qos), retain and self.limits.retains)
            # after 65,535 messages ids start again; one that is still unacknowledged is passed over
            if info.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                return info.mid

    def subscribe(self, filters: Iterable[Filter]) -> None:
        """Subscribe, in packets that the broker takes."""
        for some in self.limits.portions(filters):
            if not self.limits.fits_filter(some[0]):
                self._events.subscribed(some[0], PACKET_TOO_LARGE)
                continue
            wanted = [(one.topic, self._options_of(one)) for one in some]
            _, mid = self._client.subscribe(wanted)  # type: ignore[arg-type]  # one kind of options in a list
            if mid is not None:
                self._subscribing[mid] = some

    def _options_of(self, one: Filter) -> SubscribeOptions | int:
        if self.protocol != MQTT5:
            return one.qos
        return SubscribeOptions(one.qos, retainHandling=0 if one.retained else _DO_NOT_SEND_RETAINED)

    def unsubscribe(self, topics: Iterable[str]) -> None:
        """Unsubscribe, in packets that the broker takes."""
        for some in self.limits.portions(Filter(topic, 0) for topic in topics):
            self._client.unsubscribe([one.topic for one in some])

    def ping(self) -> None:
        """Send PINGREQ behind all packets so far."""
        self.pinging = True
        self._pinged_at = time.monotonic()
        self._client.ping()
        self._events.pinged()

    def turn(self, *, readable: bool, now: float) -> None:
        """Handle arrived packets: one read, and as many of its packets as begin within a few milliseconds.

        :param readable: True if there was something to read.
        :param now: when that was seen (monotonic).
        """
        wire = self._wire
        self._turn_ends = time.monotonic() + _TURN
        try:
            if readable and not wire.unread:
                wire.fill()
            while self.lost is None and wire.unread:
                self._client.loop_read()
                if self._accepted:
                    self._accepted = False
                    self._events.connected()
            wire.held = False
            if not wire.unread:
                self.drained_at = wire.emptied_at if readable else now
            self.flush()
            if now >= self._check_at and self.lost is None:
                self._check_at = now + self._step
                self._check(now, idle=not readable and not wire.unread)
        except ProtocolError as error:
            self.leave(error.code, str(error))
        except Exception as error:  # noqa: BLE001  whatever paho makes of bytes that are no MQTT
            self._lose(f"it sent what cannot be read ({type(error).__name__}: {error})")

    def flush(self) -> None:
        """Write queued packets."""
        if self._client.want_write():
            self._client.loop_write()
        if self._wire.unsent:
            self._wire.flush()

    def _check(self, now: float, *, idle: bool) -> None:
        """Ping a silent broker, and give up one that is silent for a keepalive.

        :param idle: nothing waits to be read: what arrives while this process is held up is no silence.
        """
        silent = now - self._wire.heard_at
        if not self.up:
            if now >= self._give_up_at:
                self._lose("it does not answer", hint="is it an MQTT broker?")
        elif not self.pinging:
            if now - min(self._wire.heard_at, self._wire.said_at) >= self._keepalive / 2:
                self.ping()
        elif idle and silent >= self._keepalive - self._step and now - self._pinged_at >= self._keepalive / 4:
            self._lose(
                f"nothing came from it for {silent:.0f} s, not even an answer to a ping",
                hint="the broker's machine, or the network to it, went away without a word: check both",
            )

    @property
    def _step(self) -> float:
        return min(1.0, self._keepalive / 8)

    def leave(self, code: int, what: str = "connection closed") -> None:
        """Disconnect with a reason code (MQTT 5). Blocks for about three seconds at most."""
        self._wire.linger = self.up
        self._note_loss(what)
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=code) if code and self.protocol == MQTT5 else None
        self._client.disconnect(reasoncode=reason)
        self.flush()
        self._lose(what)

    def close(self) -> None:
        """Disconnect, so that no will is published. Blocks for about three seconds at most."""
        self.leave(0)

    def _lose(self, what: str, *, hint: str | None = None) -> None:
        self.up = False
        self._note_loss(what, hint=hint)
        self._wire.close()

    def _note_loss(self, what: str, *, hint: str | None = None) -> None:
        """Keep the first reason: what follows it is its consequence."""
        self.lost = self.lost or BrokerError(f"broker {self._address}: {what}", hint=hint)

    # called by the client

    def _on_connect(
        self, _client: object, _userdata: object, flags: mqtt.ConnectFlags, _code: object, info: Properties | None
    ) -> None:
        self.session = flags.session_present
        self.limits = limits = BrokerLimits.read(info)
        if not limits.window or not limits.most_bytes:
            raise ProtocolError(PROTOCOL_ERROR, "it takes no message at all: its Receive Maximum or packet size is 0")
        # a longer one would hide for longer that the broker has gone
        self._keepalive = min(self._keepalive, limits.keepalive or self._keepalive)
        self.up = True
        self.up_since = time.monotonic()
        self._accepted = True  # reported later: paho would trip over what is published from within

    def on_refused(self, code: int) -> None:
        """See :class:`PacketHandler`."""
        self.code = code
        self.other_version = code == UNSUPPORTED_VERSION
        self._note_loss(why(code), hint=hint(code))

    def on_ended(self, code: int) -> None:
        """See :class:`PacketHandler`."""
        self.code = code
        self.up = False
        self._note_loss(f"it ended the connection: {why(code)}", hint=hint(code))

    def _on_disconnect(
        self, _client: object, _userdata: object, _flags: object, code: ReasonCode, _info: object
    ) -> None:
        error = self._wire.error
        behind = time.monotonic() - self.drained_at
        if not self.up_since and (error is None or isinstance(error, ConnectionError)):
            self.other_version = self.other_version or self.lost is None
            self._note_loss(
                "it closed the connection without an answer",
                hint="is this its TLS port? then broker.url starts with mqtts://",
            )
        elif self.up_since and behind >= self._keepalive / 2:
            self._note_loss(
                f"the connection ended while messages waited here for {behind:.0f} s",
                hint="this machine does not keep up, or was suspended: see its load, or send less often",
            )
        elif error is not None:
            self.lost = self.lost or explain(error, self._address)
        else:
            self._note_loss("connection lost" if code.value == _UNSPECIFIED else f"connection lost: {why(code.value)}")
        self.up = False

    def on_publish(self, publish: Publish) -> None:
        """See :class:`PacketHandler`."""
        self._events.delivered(publish)
        if time.monotonic() > self._turn_ends:
            self._wire.held = True

    def on_puback(self, mid: int, code: int) -> None:
        """See :class:`PacketHandler`."""
        self._events.acknowledged(mid, code)

    def on_suback(self, mid: int, codes: list[int]) -> None:
        """See :class:`PacketHandler`."""
        for one, code in zip(self._subscribing.pop(mid, ()), codes, strict=False):
            self._events.subscribed(one, code)

    def on_pong(self) -> None:
        """See :class:`PacketHandler`."""
        if self.pinging:
            self.pinging = False
            self._events.ponged()
