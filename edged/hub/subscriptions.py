"""What a hub asks an upstream broker for: each board's topics by name, because some brokers retain for no wildcard."""

from __future__ import annotations

from collections.abc import Iterable

from edged.broker import Broker


class Subscriptions:
    """Subscriptions at one broker.

    :param prefix: the boards' ``results.prefix``.
    :param share: name of the shared subscription (MQTT 5, section 4.8.2) by which processes share results; None: this
        process gets all.
    :param shows: whether this process shows boards, and so wants all that they say of themselves.
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
        """Listen to a board."""
        for topic in self._topics(device):
            self._broker.subscribe(topic, 1)

    def remove(self, device: str) -> None:
        """Listen to a board no more."""
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
