"""Plaintext must not reach an upstream broker by mistake: it is asked whether it is the local one under another name.

A random word is published on the local broker, and listened for on each upstream: two names of one broker, or a
bridge between two, would bring it back.
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


class Guard:
    """Finds out whether what the local broker is told comes back from an upstream one.

    :param topic: where the word is published.
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
        """Whether every upstream broker that is there was asked, and did not know the word."""
        return all(one in self._passed or (one.tried and not one.is_up) for one in self._asked)

    def heard(self, delivery: Delivery) -> bool:
        """Tell whether a message from upstream is for this guard.

        :raises ConfigError: it is what only the local broker was told.
        """
        if delivery.topic != self._topic:
            return False
        if delivery.payload == self._word:
            raise ConfigError("what the local broker is told comes back from an upstream one", hint=_HINT)
        return True

    def turn(self, now: float) -> None:
        """Ask each upstream broker once it is there, and wait a moment for the answer."""
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
