"""Reason codes of MQTT 5 in words (MQTT 5.0, section 2.4), and the outcome that each means for a published message."""

from __future__ import annotations

from edged.broker.options import Outcome

UNSUPPORTED_VERSION = 0x84
KEEP_ALIVE_TIMEOUT = 0x8D
TAKEN_OVER = 0x8E
RECEIVE_MAXIMUM_EXCEEDED = 0x93
PACKET_TOO_LARGE = 0x95
RETAIN_NOT_SUPPORTED, QOS_NOT_SUPPORTED = 0x9A, 0x9B
_FAILURE = 0x80
_NO_SUBSCRIBERS = 0x10

_WORDS = {
    0x00: "success",
    0x04: "it published the will",
    _NO_SUBSCRIBERS: "nobody subscribes to the topic",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "a reason of its own",
    UNSUPPORTED_VERSION: "it speaks neither MQTT 5 nor 3.1.1",
    0x85: "it refuses the client id",
    0x86: "it refuses the user name or password",
    0x87: "not authorised",
    0x88: "it is not available now",
    0x89: "it is busy",
    0x8A: "it has banned this client",
    0x8B: "it shuts down",
    0x8C: "it does not know this way to authenticate",
    KEEP_ALIVE_TIMEOUT: "it heard nothing from this client for too long",
    TAKEN_OVER: "another client has connected with the same client id",
    0x8F: "it does not accept the topic filter",
    0x90: "it does not accept the topic",
    0x91: "packet id in use",
    0x92: "packet id unknown",
    RECEIVE_MAXIMUM_EXCEEDED: "too many messages ahead of their acknowledgement",
    0x94: "topic alias invalid",
    PACKET_TOO_LARGE: "the packet is too large for it",
    0x96: "messages come too fast for it",
    0x97: "quota exceeded",
    0x98: "an administrator ended it",
    0x99: "the payload is not in the format that was announced",
    RETAIN_NOT_SUPPORTED: "it does not retain messages",
    QOS_NOT_SUPPORTED: "it does not support this QoS",
    0x9C: "another server is to be used for now",
    0x9D: "it has moved to another server",
    0x9E: "it has no shared subscriptions",
    0x9F: "connections come too fast for it",
    0xA0: "the time for which it accepts a connection is over",
    0xA1: "it has no subscription identifiers",
    0xA2: "it has no subscriptions by wildcards",
}

_HINTS = {
    0x85: "give this client another id",
    0x86: "check broker.username and broker.password",
    0x87: "check broker.username, broker.password and broker.cert, and what the broker allows them (its ACL)",
    0x8A: "ask whoever runs the broker",
    KEEP_ALIVE_TIMEOUT: "this machine was suspended or overloaded, or the network held packets back: see its load",
    TAKEN_OVER: "is this board's card a copy? give each board a name and keys of its own",
    PACKET_TOO_LARGE: "raise the broker's limit (Mosquitto: max_packet_size)",
    0x97: "see the broker's limits for this client",
    0x9C: "broker.url must name the other server",
    0x9D: "broker.url must name the other server",
}

_OUTCOMES = {
    _NO_SUBSCRIBERS: Outcome.UNHEARD,
    0x80: Outcome.POSTPONED,
    0x83: Outcome.POSTPONED,
    0x91: Outcome.POSTPONED,
    0x97: Outcome.POSTPONED,
    PACKET_TOO_LARGE: Outcome.TOO_LARGE,
}


def why(code: int) -> str:
    """Return a reason code in words; one that MQTT does not know as its number."""
    return f"{_WORDS[code]} (0x{code:02x})" if code in _WORDS else f"reason code 0x{code:02x}, which MQTT does not know"


def hint(code: int) -> str | None:
    """Return the way out, where there is a usual one."""
    return _HINTS.get(code)


def is_failure(code: int) -> bool:
    """Return True if a reason code says that something was refused."""
    return code >= _FAILURE


def outcome_of(code: int) -> Outcome:
    """Return the outcome of a message whose PUBACK has a reason code."""
    return _OUTCOMES.get(code, Outcome.REFUSED if is_failure(code) else Outcome.TAKEN)
