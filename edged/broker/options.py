"""Options of a broker, and the messages that go to it and come from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from edged.base.errors import ConfigError
from edged.base.units import parse_duration
from edged.config.board import BrokerTable
from edged.config.secret import read_secret, secret_path

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Message(NamedTuple):
    """A message that edged publishes."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


class Delivery(NamedTuple):
    """A message that arrived.

    :ivar dup: the broker may have delivered it before, to an earlier process: this one did not get it.
    :ivar ack: acknowledges it (QoS 1), also if the broker redelivers it on a later connection.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    ack: Callable[[], None]


class Outcome(Enum):
    """The outcome of a published message."""

    TAKEN = "taken"
    UNHEARD = "unheard"
    """The broker took it (MQTT 5), but nobody subscribes to it: nobody receives it."""
    POSTPONED = "postponed"
    """The broker does not take it now, and may later."""
    REFUSED = "refused"
    """The broker never takes it."""
    TOO_LARGE = "too large"
    """Its packet is larger than the broker takes (Maximum Packet Size)."""


@dataclass
class Stats:
    """Counts since the start.

    :ivar refused: published messages that the broker never takes, those that are too large among them.
    :ivar refusal: the reason of the last of these, or of one that was postponed, in words.
    :ivar unheard: messages that the broker took (MQTT 5) although nobody subscribes to them.
    :ivar postponed: times that the broker did not take a message for now.
    :ivar repeated: copies of messages that the caller had got already.
    :ivar turned_away: messages that were neither handed to the caller nor acknowledged: it had too many in hand.
    :ivar sessions_lost: connections without the session that the broker was to keep: it may have lost messages.
    """

    connections: int = 0
    received: int = 0
    delivered: int = 0
    refused: int = 0
    refusal: str = ""
    unheard: int = 0
    postponed: int = 0
    repeated: int = 0
    turned_away: int = 0
    sessions_lost: int = 0


@dataclass(frozen=True)
class Address:
    """The address of a broker: a host and port, or the path of a unix socket."""

    url: str
    host: str
    port: int
    path: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse ``mqtt://host[:port]``, ``mqtts://host[:port]`` or ``unix:///path``.

        :raises ConfigError: it is none of these.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ConfigError(f"broker url {url!r}: {error}") from error
        if parts.username is not None:
            # not repeated: a password may stand in it
            raise ConfigError("the broker's url holds a user name", hint="use broker.username and broker.password")
        if parts.scheme == "unix" and not parts.netloc and parts.path:
            return cls(url, "", 0, parts.path, tls=False)
        if parts.scheme not in _PORTS or not host or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ConfigError(
                f"broker url {url!r} cannot be used", hint="mqtt://host[:port], mqtts://host[:port] or unix:///path"
            )
        return cls(url, host, port or _PORTS[parts.scheme], "", tls=parts.scheme == "mqtts")

    def __str__(self) -> str:
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


@dataclass(frozen=True, kw_only=True)
class BrokerOptions:
    """How to reach a broker, and the credentials for it.

    :ivar url: see :meth:`Address.parse`.
    :ivar client_id: unique at the broker; empty lets the broker choose one, for a clean session only.
    :ivar ca: certificates to trust, PEM; None for the system's.
    :ivar cert: this client's certificate, PEM; read again at each connection, so that a renewed one is taken.
    :ivar key: its private key, PEM without a passphrase; or a key in this machine's TPM (``TSS2 PRIVATE KEY``).
    :ivar keepalive: seconds of silence after which a connection is given up; half of them after which a PINGREQ asks.
    :ivar receive_maximum: messages that the broker may send ahead of their acknowledgement
        (MQTT 5.0, section 3.1.2.11.3).
    :ivar session_expiry: seconds for which the broker keeps subscriptions and messages while this client is away;
        0 starts clean each time.
    :ivar will: the message that the broker publishes when this client is lost.
    """

    url: str
    client_id: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    keepalive: int = 30
    receive_maximum: int = 1000
    session_expiry: int = 3600
    will: Message | None = None

    @property
    def clean(self) -> bool:
        """True if each connection starts without a session."""
        return not self.session_expiry or not self.client_id


def configured(table: BrokerTable, client_id: str, will: Message | None = None) -> BrokerOptions:
    """Return the options for the broker that a table names.

    :raises MissingFileError: a secret that it refers to is absent.
    :raises PermissionsError: others may read it.
    """
    return BrokerOptions(
        url=table.url,
        session_expiry=round(parse_duration(table.session)),
        client_id=client_id,
        ca=None if table.ca is None else Path(table.ca),
        cert=None if table.cert is None else Path(table.cert),
        key=None if table.key is None else secret_path(table.key),
        username=table.username,
        password=None if table.password is None else read_secret(table.password),
        will=will,
    )
