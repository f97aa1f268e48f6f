"""Retained messages at the local broker: availability, reports, model versions, and Home Assistant's configurations.

Each is published when it changes, and all of them after each connection and when Home Assistant has started: a
broker may have lost its retained messages, and Home Assistant subscribes to a device's topics only after it has read
the device's configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict

import msgspec

from edged import __version__
from edged.base.errors import StateError
from edged.broker import Broker
from edged.config.hub import HomeAssistantTable
from edged.formats.channel.inventory import Inventory
from edged.hub.boards import BoardView
from edged.hub.discovery import Topics, components_of, config, config_topic, update_state
from edged.hub.sinks import AcceptedResult, ResultSink
from edged.hub.state import HubState

ONLINE, OFFLINE = b"online", b"offline"
_REPEAT_AFTER = (1.0, 4.0)
"""Seconds after a new configuration at which states follow once more: Home Assistant may have missed the first."""


class RetainedState(ResultSink):
    """Publishes the retained messages of the hub and its boards.

    :param views: of the boards, by name.
    :param prefix: first levels of the local topics.
    :param newest: the newest version of a model that lies ready at the hub; 0 for none.
    """

    def __init__(
        self,
        local: Broker,
        state: HubState,
        views: Mapping[str, BoardView],
        prefix: str,
        home: HomeAssistantTable,
        newest: Callable[[str], int],
    ) -> None:
        self.hub_topic = f"{prefix}/status"
        self.birth_topic = f"{home.prefix}/status"
        self.open = False
        self._local = local
        self._state = state
        self._views = views
        self._prefix = prefix
        self._home = home
        self._newest = newest
        self._sent: dict[str, bytes] = {}
        self._noted = set(state.published())
        self._clearing: dict[int, str] = {}
        self._last = state.configurations()
        self._configured: dict[str, Inventory] = {}
        self._swept: dict[str, Inventory] = {}
        self._repeat: list[tuple[float, str]] = []

    def topics(self, device: str) -> Topics:
        """Return the local topics of a board."""
        return Topics(self.hub_topic, f"{self._prefix}/{device}")

    def begin(self) -> None:
        """Publish everything: after a connection, and when Home Assistant has started."""
        if not (self.open and self._local.is_up):
            return
        self._sent.clear()
        self._publish(self.hub_topic, ONLINE)
        for view in self._views.values():
            self.update(view, everything=True)

    def end(self) -> None:
        """Publish that the hub is offline."""
        if self._local.is_up:
            self._publish(self.hub_topic, OFFLINE)

    def update(self, view: BoardView, *, everything: bool = False) -> None:
        """Publish all changes of a board, its configuration first.

        :param everything: publish its states even if they have not changed.
        """
        if not (self.open and self._local.is_up):
            return
        device, topics = view.record.id, self.topics(view.record.id)
        fresh = self._configure(view, topics)
        everything = everything or fresh
        if fresh:  # a changed configuration makes states unavailable until they come again
            self._forget_sent(device)
        self._clear_leftovers(view)
        self.check(view)
        if view.report is not None:
            self._publish_changed(topics.health, _json(asdict(view.report)))
        for model in view.models:
            newest = max(model.installed, self._newest(model.model))
            self._publish_changed(topics.update(model.channel), _json(update_state(model, newest)))
            if everything and (last := view.last.get(model.channel)) is not None:
                self._publish(topics.result(model.channel), _json(last))
        if fresh:
            now = time.monotonic()
            self._repeat += [(now + seconds, device) for seconds in _REPEAT_AFTER]

    def check(self, view: BoardView) -> None:
        """Publish the availability of a board, if it has changed."""
        if self.open and self._local.is_up:
            online = view.state(time.monotonic()) == "online"
            self._publish_changed(self.topics(view.record.id).availability, ONLINE if online else OFFLINE)

    def turn(self, now: float) -> None:
        """See :class:`ResultSink`: publish states once more after a new configuration."""
        due = {device for at, device in self._repeat if at <= now}
        if not due:
            return
        self._repeat = [one for one in self._repeat if one[0] > now]
        for device in due & set(self._views):
            self._forget_sent(device)
            self.update(self._views[device], everything=True)

    def _forget_sent(self, device: str) -> None:
        base = f"{self._prefix}/{device}/"
        for topic in [topic for topic in self._sent if topic.startswith(base)]:
            del self._sent[topic]

    def home_assistant_started(self) -> None:
        """Publish everything to a Home Assistant that has just started.

        Components that were removed while Home Assistant was down would be unavailable there for ever: their old
        configuration is published once more, and then removed.
        """
        if self.open and self._local.is_up:
            removed: list[tuple[str, bytes]] = []
            with suppress(StateError), self._state.batch():
                removed = self._state.take_removed_configs()
            boards = {config_topic(self._home.prefix, device): device for device in self._views}
            for topic, payload in removed:
                self._local.publish(topic, payload, qos=1, retain=True)
                if topic in boards:
                    self._last[boards[topic]] = payload  # what is gone of it follows
                else:
                    self._local.publish(topic, b"", qos=1, retain=True)
        self.begin()
        with suppress(StateError), self._state.batch():
            self._state.take_removed_configs()  # Home Assistant has heard of those

    def _configure(self, view: BoardView, topics: Topics) -> bool:
        """Publish a board's configuration for Home Assistant; return True if it has changed."""
        if view.inventory is None or not self._home.discovery:
            return False
        device, fingerprint = view.record.id, view.record.fingerprint
        topic = config_topic(self._home.prefix, device)
        if topic in self._sent and self._configured.get(device) is view.inventory:
            return False
        self._configured[device] = view.inventory
        wanted = config(device, fingerprint, view.inventory, topics, __version__)
        if self._sent.get(topic) == _json(wanted):
            return False
        components, last = components_of(wanted), self._last.get(device)
        gone = (
            [] if last is None else [one for one in components_of(msgspec.json.decode(last)) if one not in components]
        )
        if gone:  # Home Assistant removes a component that comes without anything but its platform
            self._publish(topic, _json(config(device, fingerprint, view.inventory, topics, __version__, gone)))
        self._keep(device, topic, _json(wanted), removed=bool(gone))
        self._publish_changed(topic, _json(wanted))
        return True

    def _keep(self, device: str, topic: str, payload: bytes | None, *, removed: bool) -> None:
        """Keep the configuration of a board, and the one before for a Home Assistant that is down now.

        :param removed: True if a component of the configuration before is gone.
        """
        last = self._last.get(device)
        if last == payload:
            return
        with suppress(StateError), self._state.batch():
            if removed and last is not None:
                self._state.keep_removed_config(topic, last)
            self._state.keep_configuration(device, payload)
        if payload is None:
            self._last.pop(device, None)
        else:
            self._last[device] = payload

    def forget(self, device: str) -> None:
        """See :class:`ResultSink`: remove every retained message of a board."""
        self._read_noted()
        self._configured.pop(device, None)
        self._swept.pop(device, None)
        base, configuration = f"{self._prefix}/{device}/", config_topic(self._home.prefix, device)
        if configuration in self._noted:  # first: an empty state is an error to subscribers
            self._keep(device, configuration, None, removed=True)
            self._clear(configuration)
        for topic in sorted(self._noted):
            if topic.startswith(base):
                self._clear(topic)

    def _clear_leftovers(self, view: BoardView) -> None:
        """Remove the retained messages of channels that a board no longer serves, after its configuration says so."""
        device = view.record.id
        if view.inventory is None or self._swept.get(device) is view.inventory:
            return
        self._swept[device] = view.inventory
        base = f"{self._prefix}/{device}/"
        kept = {"availability", "health", *(model.channel for model in view.models)}
        for topic in sorted(self._noted):
            if topic.startswith(base) and topic[len(base) :].split("/")[0] not in kept:
                self._clear(topic)

    def sweep(self, *, packages: bool) -> None:
        """Remove the retained messages of boards that are gone.

        :param packages: publish also the versions that lie ready at the hub, where they have changed.
        """
        if not (self.open and self._local.is_up):
            return
        self._read_noted()
        found = {topic[len(self._prefix) + 1 :].split("/")[0] for topic in self._noted if self._is_ours(topic)}
        for device in sorted(found - set(self._views)):
            self.forget(device)
        if packages:
            for view in self._views.values():
                self.update(view)

    def _read_noted(self) -> None:
        """Read the topics that other processes have noted, and those that earlier ones could not clear."""
        with suppress(StateError):
            self._noted |= set(self._state.published()) - set(self._clearing.values())

    def _is_ours(self, topic: str) -> bool:
        return topic.startswith(f"{self._prefix}/") and topic != self.hub_topic

    def deliver(self, result: AcceptedResult) -> None:
        """See :class:`ResultSink`: the queue publishes a newest result, which is then retained like all else here."""
        if result.newest:
            self._note(self.topics(result.opened.device).result(result.opened.channel))

    def _publish_changed(self, topic: str, payload: bytes) -> None:
        if self._sent.get(topic) != payload:
            self._sent[topic] = payload
            self._publish(topic, payload)

    def _publish(self, topic: str, payload: bytes) -> None:
        self._note(topic)
        self._local.publish(topic, payload, qos=1, retain=True)

    def _note(self, topic: str) -> None:
        if topic not in self._noted:
            with suppress(StateError), self._state.batch():  # the disk's trouble is told elsewhere; noted the next time
                self._state.note_published(topic)
                self._noted.add(topic)

    def _clear(self, topic: str) -> None:
        self._clearing[self._local.publish(topic, b"", qos=1, retain=True)] = topic
        self._sent.pop(topic, None)
        self._noted.discard(topic)
        with suppress(StateError), self._state.batch():
            self._state.unretain(topic)

    def on_delivered(self, token: int) -> None:
        """Note that the broker has a message: a topic that was cleared need not be cleared again."""
        topic = self._clearing.pop(token, None)
        if topic is not None and topic not in self._noted:
            with suppress(StateError), self._state.batch():
                self._state.note_cleared(topic)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)  # what is not a number becomes null
