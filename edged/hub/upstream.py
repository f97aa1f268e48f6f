"""The upstream brokers: subscriptions to boards, and the guard that keeps plaintext away from these brokers.

Each board's topics are subscribed to by name, because some brokers retain for no wildcard.

Plaintext must not reach an upstream broker by mistake. A random word is published on the local broker, and listened
for on each upstream: two names of one broker, or a bridge between two, would bring it back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping

from edged.base.errors import ConfigError
from edged.broker import Address, Broker, Delivery

_WAIT = 1.0
_HINT = (
    "give [local] a broker of its own; or, if everybody there may read everything, local.plaintext_on_upstream = true"
)


def check_addresses(local: str, upstreams: Mapping[str, str]) -> None:
    """Refuse a local broker whose address is that of an upstream one.

    :param upstreams: URLs by name.
    :raises ConfigError: it is.
    """
    here = _places(Address.parse(local))
    for name, url in upstreams.items():
        if here & _places(Address.parse(url)):
            raise ConfigError(
                f"local.url and upstream.{name}.url name one broker: it would get everything in plain", hint=_HINT
            )


def _places(address: Address) -> set[tuple[str, int]]:
    """Return host and port under every name that this machine knows for them."""
    if address.path:
        return {(address.path, 0)}
    places = {(address.host, address.port)}
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return places
    return places | {(str(info[4][0]), address.port) for info in found}


class UpstreamGuard:
    """Checks that no upstream broker is, or is bridged to, the local broker.

    :param topic: topic of the random word.
    """

    def __init__(self, local: Broker, upstreams: Iterable[Broker], topic: str) -> None:
        self._local = local
        self._topic = topic
        self._word = os.urandom(16)
        self._asked: dict[Broker, float | None] = dict.fromkeys(upstreams)
        self._passed: set[Broker] = set()
        for upstream in self._asked:
            upstream.subscribe(topic, 1)

    @property
    def passed(self) -> bool:
        """True if every upstream broker that is connected was asked, and did not bring the word back."""
        return all(one in self._passed or (one.tried and not one.is_up) for one in self._asked)

    def heard(self, delivery: Delivery) -> bool:
        """Return True if a message from upstream is on the guard's topic.

        :raises ConfigError: it is the word that was published on the local broker only.
        """
        if delivery.topic != self._topic:
            return False
        if delivery.payload == self._word:
            raise ConfigError("what the local broker is told comes back from an upstream one", hint=_HINT)
        return True

    def turn(self, now: float) -> None:
        """Publish the word once an upstream broker is connected, and wait a moment for it to come back."""
        if len(self._passed) == len(self._asked) or not self._local.is_up:
            return
        for upstream, asked_at in self._asked.items():
            if not upstream.is_up or upstream in self._passed:
                continue
            if asked_at is None:
                self._asked[upstream] = now
                self._local.publish(self._topic, self._word, qos=1)
            elif now - asked_at > _WAIT:
                self._passed.add(upstream)
                upstream.unsubscribe(self._topic)


class Subscriptions:
    """Subscriptions at one broker.

    :param prefix: the boards' ``results.prefix``.
    :param share: name of the shared subscription (MQTT 5, section 4.8.2) by which processes share results; None: this
        process gets all.
    :param shows: True if this process shows boards, and so subscribes to their status and reports.
    """

    def __init__(self, broker: Broker, prefix: str, share: str | None, *, shows: bool) -> None:
        self._broker = broker
        self._prefix = prefix
        self._share = share
        self._shows = shows
        self._channels: dict[str, frozenset[str]] = {}
        if shows:
            broker.subscribe(f"{prefix}/+/announce", 1)  # to name boards that are not enrolled

    def add(self, device: str) -> None:
        """Subscribe to the topics of a board."""
        for topic in self._topics(device):
            self._broker.subscribe(topic, 1)

    def remove(self, device: str) -> None:
        """Unsubscribe from the topics of a board."""
        self.set_channels(device, ())
        for topic in self._topics(device):
            self._broker.unsubscribe(topic)

    def set_channels(self, device: str, channels: Iterable[str]) -> None:
        """Share the results of a board's channels, where they are shared: each by name."""
        if self._share is None:
            return
        before, now = self._channels.get(device, frozenset()), frozenset(channels)
        for channel in now - before:
            self._broker.subscribe(self._shared(device, channel), 1)
        for channel in before - now:
            self._broker.unsubscribe(self._shared(device, channel))
        self._channels[device] = now

    def _shared(self, device: str, channel: str) -> str:
        return f"$share/{self._share}/{self._prefix}/{device}/{channel}"

    def _topics(self, device: str) -> list[str]:
        levels = ["announce", "inventory"]
        if self._shows:
            levels.append("status")
            levels.append("health" if self._share is not None else "+")
        return [f"{self._prefix}/{device}/{level}" for level in levels]
