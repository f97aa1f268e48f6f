"""Find out how a broker really behaves, for `edged check`: MQTT 3.1.1 announces none of its limits, and 5 not all.

All questions are asked with the board's own credentials, under client ids of their own (the board's, and ``-check``
behind it), so that a running daemon is not thrown out; and on topics below ``check/`` of the board's own, which nobody
else listens to. Nothing is left behind: retained messages are cleared, and the session is ended.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum

from edged.base.errors import BrokerError
from edged.broker.connection import MQTT5
from edged.broker.options import BrokerOptions, Delivery
from edged.broker.talk import ANSWER_WITHIN, Talk

_SESSION = 60
"""Seconds after which a broker forgets the session by itself, should this process die (MQTT 5)."""
MOST_AT_ONCE = 64
"""The most unacknowledged messages that are tried."""
REDELIVERED_WITHIN = 3.0
"""The longest wait for the redelivery of an unacknowledged message, in seconds."""


class Redelivery(Enum):
    """The fate of a message that was delivered and not acknowledged, once its client is back."""

    NONE = "none"
    """Not redelivered within `REDELIVERED_WITHIN`."""
    BEHIND = "behind"
    """Redelivered behind later messages."""
    UNMARKED = "unmarked"
    """Redelivered in its place, but without DUP."""
    MARKED = "marked"
    """Redelivered in its place, with DUP."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """The behaviour of a broker, seen from a client that may publish and subscribe.

    :ivar qos: granted where 1 was asked for.
    :ivar wildcards: ``+`` brings what matches.
    :ivar retained: a retained message reaches who subscribes to its very topic.
    :ivar retained_by_wildcard: and who subscribes to ``+``.
    :ivar at_once: unacknowledged messages that it hands to one client at a time; None for `MOST_AT_ONCE` or more.
    :ivar keeps: a message that was sent while the client was away reaches it when it is back.
    """

    qos: int
    wildcards: bool
    retained: bool
    retained_by_wildcard: bool
    at_once: int | None
    keeps: bool
    redelivery: Redelivery


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """The properties of a broker that accepted this client.

    :ivar description: the connection in words.
    :ivar seconds: from nothing to being accepted.
    :ivar base: first levels of the board's own topics.
    :ivar granted: the QoS granted for each of the sensors' topic filters; None where it is refused.
    :ivar barred: the reason why the client cannot use the board's own topics; empty if it can.
    :ivar behaviour: None if that kept it from being seen.
    """

    description: str
    seconds: float
    base: str
    granted: dict[str, int | None]
    barred: str
    behaviour: Behaviour | None

    def __str__(self) -> str:
        return f"{self.description}, {self.seconds * 1000:.0f} ms"


def probe(options: BrokerOptions, base: str, filters: Mapping[str, int], timeout: float) -> ProbeResult:
    """Ask a broker. Takes a second or two where answers are quick; each wait is bounded.

    :param base: first levels of the board's own topics.
    :param filters: the sensors' topic filters, each with its QoS.
    :param timeout: seconds for each connection.
    :raises BrokerError: the broker cannot be reached, or refuses this client.
    """
    questions = _Questions(
        replace(options, client_id=f"{options.client_id}-check", session_expiry=0, will=None), f"{base}/check", timeout
    )
    description, seconds, granted = questions.subscriptions(filters)
    try:
        barred, behaviour = questions.behaviour()
    finally:
        questions.clean_up()
    return ProbeResult(
        description=description,
        seconds=seconds,
        base=base,
        granted=granted,
        barred=barred,
        behaviour=behaviour,
    )


class _Questions:
    """The questions of one client.

    :param client: starts without a session.
    :param base: first levels of topics that nobody else uses.
    """

    def __init__(self, client: BrokerOptions, base: str, timeout: float) -> None:
        self._client = client
        # an id of its own: RabbitMQ trips over a client that starts clean and with a session in quick succession
        self._kept = replace(client, client_id=f"{client.client_id}-session", session_expiry=_SESSION)
        self._base = base
        self._timeout = timeout
        self._protocol = MQTT5
        self._mark = secrets.token_bytes(8)  # tells these messages from those of an earlier check that was cut off

    def _talk(self, options: BrokerOptions) -> Talk:
        talk = Talk(options, self._timeout, self._protocol)
        self._protocol = talk.protocol
        return talk

    def subscriptions(self, filters: Mapping[str, int]) -> tuple[str, float, dict[str, int | None]]:
        """Subscribe to each filter, and take it back at once; what may come meanwhile is left to the broker.

        :return: how the connection stands, after how many seconds, and the QoS granted for each filter.
        """
        granted: dict[str, int | None] = {}
        client = replace(self._client, receive_maximum=1)
        with self._talk(client) as talk:
            description, seconds = str(talk), talk.seconds
            _subscribe(talk, filters, granted)
        for topic in filters:
            if topic not in granted:  # some brokers end the connection over a refusal
                with self._talk(client) as talk:
                    _subscribe(talk, filters, granted)
        return description, seconds, {topic: granted.get(topic) for topic in filters}

    def behaviour(self) -> tuple[str, Behaviour | None]:
        """Return the reason why the own topics cannot be used, or the behaviour of the broker on them."""
        with self._talk(self._client) as talk:
            barred, qos = _echo(talk, f"{self._base}/echo", self._mark)
        if barred:
            return barred, None
        # a connection each: some brokers end it over what they do not do
        with self._talk(self._client) as talk:
            wildcards = self._wildcards(talk)
        with self._talk(self._client) as talk:
            retained, retained_by_wildcard = self._retained(talk)
        with self._talk(self._client) as talk:
            at_once = self._at_once(talk)
        keeps, redelivery = self._session(acknowledge=False)
        if not keeps:  # it may be waiting for the acknowledgement
            self._forget_session()
            keeps, _ = self._session(acknowledge=True)
        return "", Behaviour(
            qos=qos,
            wildcards=wildcards,
            retained=retained,
            retained_by_wildcard=retained_by_wildcard,
            at_once=at_once,
            keeps=keeps,
            redelivery=redelivery,
        )

    def _wildcards(self, talk: Talk) -> bool:
        topic = f"{self._base}/wildcard/one"
        talk.subscribe(f"{self._base}/wildcard/+")
        talk.publish(topic, [self._mark])
        return talk.hears_soon(topic, self._mark)

    def _retained(self, talk: Talk) -> tuple[bool, bool]:
        if not talk.retains:
            return False, False
        topic = f"{self._base}/retained/one"
        talk.publish(topic, [self._mark], retain=True)
        talk.subscribe(topic)
        by_name = talk.hears(topic, self._mark)
        talk.unsubscribe(topic)
        talk.acknowledge()
        talk.subscribe(f"{self._base}/retained/+")
        return by_name, talk.hears_soon(topic, self._mark)

    def _at_once(self, talk: Talk) -> int | None:
        topic = f"{self._base}/window"
        talk.subscribe(topic)
        talk.publish(topic, [self._mark] * MOST_AT_ONCE)
        talk.settle()
        return len(talk.heard) if len(talk.heard) < MOST_AT_ONCE else None

    def _session(self, *, acknowledge: bool) -> tuple[bool, Redelivery]:
        """Disconnect, have a message sent meanwhile, reconnect, and take the messages that arrive.

        :param acknowledge: acknowledge the first message before leaving; otherwise it should be redelivered.
        """
        topic = f"{self._base}/session"
        before, meanwhile = self._mark + b"1", self._mark + b"2"
        with self._talk(self._kept) as talk:
            talk.subscribe(topic)
            talk.publish(topic, [before])
            talk.hears(topic, before)
            if acknowledge:
                talk.acknowledge()
        with self._talk(self._client) as talk:
            talk.publish(topic, [meanwhile])
        came: list[Delivery] = []
        with self._talk(self._kept) as talk:
            until = time.monotonic() + (ANSWER_WITHIN if acknowledge else REDELIVERED_WITHIN)
            while len(came) < (1 if acknowledge else 2):
                if not talk.wait(lambda: bool(talk.heard), until - time.monotonic()):
                    break
                came += [one for one in talk.heard if one.payload in (before, meanwhile)]
                talk.acknowledge()  # or a broker that hands out one at a time would wait
        payloads = [one.payload for one in came]
        if before not in payloads:
            return meanwhile in payloads, Redelivery.NONE
        if payloads[0] != before:
            return True, Redelivery.BEHIND
        return meanwhile in payloads, Redelivery.MARKED if came[0].dup else Redelivery.UNMARKED

    def clean_up(self) -> None:
        """Leave neither a retained message nor a session behind."""
        with suppress(BrokerError):
            with self._talk(self._client) as talk:
                talk.publish(f"{self._base}/retained/one", [b""], retain=True)
            self._forget_session()

    def _forget_session(self) -> None:
        with self._talk(replace(self._kept, session_expiry=0)):
            pass


def _echo(talk: Talk, topic: str, payload: bytes) -> tuple[str, int]:
    """Return the reason why a published message does not come back, or else the granted QoS."""
    qos = talk.subscribe(topic)
    if qos is None:
        return "it refuses a subscription there", 0
    if why := talk.publish(topic, [payload]):
        return why, 0
    if not talk.hears(topic, payload):
        return "what this board publishes there does not come back to it", 0
    return "", qos


def _subscribe(talk: Talk, filters: Mapping[str, int], granted: dict[str, int | None]) -> None:
    for topic, qos in filters.items():
        if topic not in granted and talk.stands:
            granted[topic] = talk.subscribe(topic, qos)
            if granted[topic] is not None:
                talk.unsubscribe(topic)
