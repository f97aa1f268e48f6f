"""Retained messages at the local broker: availability, reports, model versions, and Home Assistant's configurations.

Each topic has one value: the message that is wanted there, the one that the broker was given last, and the times at
which it is due though the two are equal. :meth:`RetainedState.turn` makes them equal. All are due after each connection
and when Home Assistant has started: a broker may have lost its retained messages, and Home Assistant subscribes to a
device's topics only after it has read the device's configuration.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

import msgspec

from edged import __version__
from edged.base.errors import StateError
from edged.broker import Broker
from edged.config.hub import HomeAssistantTable
from edged.hub.boards import BoardView
from edged.hub.discovery import config, config_topic, device_of_config, removal, union, update_state
from edged.hub.sinks import AcceptedResult, ResultSink
from edged.hub.state import HubState
from edged.hub.topics import Topics

ONLINE, OFFLINE = b"online", b"offline"
NOTHING = b""
"""Removes a retained message (MQTT 5, section 3.3.1.3)."""
_REPEAT_AFTER = (1.0, 4.0)
"""Seconds after a configuration at which states follow once more: Home Assistant may have missed the first."""


@dataclass
class RetainedTopic:
    """One topic of the local broker.

    :ivar device: the board that it is about; empty for the hub itself.
    :ivar is_config: True for a configuration for Home Assistant.
    :ivar wanted: the message to be retained; ``NOTHING`` to have none, None while that is not known.
    :ivar given: the message that the broker was given last; None while that is not known.
    :ivar due: times at which it is published in any case, monotonic seconds.
    :ivar noted: True if the state knows that something may be retained there.
    """

    device: str
    is_config: bool
    wanted: bytes | None = None
    given: bytes | None = None
    due: tuple[float, ...] = ()
    noted: bool = False

    def due_at(self) -> float:
        """Return the time of its next publication, monotonic seconds."""
        if self.wanted is None:
            return math.inf
        return -math.inf if self.wanted != self.given else min(self.due, default=math.inf)


class RetainedState(ResultSink):
    """Publishes the retained messages of the hub and its boards.

    :param views: of the boards, by name.
    :param prefix: first levels of the local topics.
    :param newest: the newest version of a model that lies ready at the hub; 0 for none.
    :ivar open: True once publishing is allowed at all.
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
        self._topics: dict[str, RetainedTopic] = {}
        self._removals: dict[int, str] = {}
        """Topics whose removal is on its way, by its token."""
        self._due = -math.inf
        for device, payload in state.configurations().items():
            self._at(config_topic(home.prefix, device)).given = payload

    def _at(self, topic: str) -> RetainedTopic:
        """Return the value of a topic."""
        if topic not in self._topics:
            configured = device_of_config(self._home.prefix, topic)
            prefix, _, below = topic.partition(f"{self._prefix}/")
            shown = "" if prefix or topic == self.hub_topic else below.partition("/")[0]
            self._topics[topic] = RetainedTopic(configured or shown, is_config=bool(configured))
        return self._topics[topic]

    def _want(self, topic: str, message: bytes) -> None:
        one = self._at(topic)
        one.wanted = message
        self._due = min(self._due, one.due_at())

    def _of(self, device: str) -> Iterable[tuple[str, RetainedTopic]]:
        return [(topic, one) for topic, one in self._topics.items() if one.device == device]

    def topics(self, device: str) -> Topics:
        """Return the local topics of a board."""
        return Topics.of(self._prefix, device)

    # --- the wanted messages

    def begin(self) -> None:
        """Make everything due: after a connection, and when Home Assistant has started."""
        self._want(self.hub_topic, ONLINE)
        self.sweep()
        for view in self._views.values():
            self.update(view)
        for one in self._topics.values():
            one.due = (-math.inf,)
        self._due = -math.inf

    def end(self, now: float) -> None:
        """Publish that the hub is offline."""
        self._want(self.hub_topic, OFFLINE)
        self.turn(now)

    def sweep(self) -> None:
        """Remove what is retained of boards that are gone, also where other processes of this hub have noted it.

        A board may have been removed and enrolled again before its removal reached the broker: its results are gone
        from the state, and must not stand at the broker.
        """
        with suppress(StateError):
            known = {self.topics(device).result(place) for device, place, _ in self._state.shown()}
            for topic in self._state.published():
                one = self._at(topic)
                one.noted = True
                if one.wanted is None and topic not in known and self.topics(one.device).place(topic):
                    self._want(topic, NOTHING)
        for device in {one.device for one in self._topics.values()} - {"", *self._views}:
            self.forget(device)

    def forget(self, device: str) -> None:
        """See :class:`ResultSink`: remove every retained message of a board."""
        for topic, _ in self._of(device):
            self._want(topic, NOTHING)

    def update(self, view: BoardView) -> None:
        """Take in all changes of a board."""
        device, topics = view.record.id, self.topics(view.record.id)
        self.check(view)
        if view.report is not None:
            self._want(topics.health, _json(asdict(view.report)))
        if view.inventory is None:
            return
        if self._home.discovery:
            wanted = config(device, view.record.fingerprint, view.inventory, view.places, topics, __version__)
            self._want(config_topic(self._home.prefix, device), _json(wanted))
        for model in view.models:
            newest = max(model.installed, self._newest(model.model))
            self._want(topics.update(model.channel), _json(update_state(model, newest)))
        for place, last in view.last.items():
            if place in view.places:
                self._show(topics.result(place), _json(last))
        self._remove_unserved(view)

    def _remove_unserved(self, view: BoardView) -> None:
        """Remove what is retained of channels that a board serves no more, and of places that made room for others."""
        topics = self.topics(view.record.id)
        channels = {model.channel for model in view.models}
        kept = {topics.availability, topics.health, *map(topics.update, channels), *map(topics.result, view.places)}
        for topic, one in self._of(view.record.id):
            if one.is_config or topic in kept:
                continue
            place = topics.place(topic)
            if place is None or place.channel not in channels or one.wanted is not None:
                self._want(topic, NOTHING)

    def check(self, view: BoardView) -> None:
        """Take in the availability of a board."""
        online = view.state(time.monotonic()) == "online"
        self._want(self.topics(view.record.id).availability, ONLINE if online else OFFLINE)

    def deliver(self, result: AcceptedResult) -> None:
        """See :class:`ResultSink`."""
        if not result.newest:
            return
        topic, device = self.topics(result.opened.device).result(result.place), result.opened.device
        is_new = not self._at(topic).wanted
        self._show(topic, result.payload)
        if is_new:
            self.update(self._views[device])

    def _show(self, topic: str, result: bytes) -> None:
        """Take in a newest result, which the queue of the process that accepted it has noted, and publishes."""
        one = self._at(topic)
        one.wanted = one.given = result

    # --- and what the broker has

    def due_in(self, now: float) -> float:
        """See :class:`ResultSink`."""
        return self._due - now if self.open and self._local.is_up else math.inf

    def turn(self, now: float) -> None:
        """See :class:`ResultSink`: publish what is due, configurations first.

        An empty state is an error to subscribers, and one that nobody has heard of yet is lost.
        """
        if self.due_in(now) > 0:
            return
        for of_config in (True, False):
            for topic, one in self._topics.items():
                if one.is_config is of_config and one.due_at() <= now:
                    self._publish(topic, one, now)
        self._due = min((one.due_at() for one in self._topics.values()), default=math.inf)

    def _publish(self, topic: str, one: RetainedTopic, now: float) -> None:
        message = one.wanted or NOTHING
        if one.is_config:
            self._configure(topic, one, message, now)
        if not (one.noted and message):
            with suppress(StateError), self._state.batch():  # the disk's trouble is told elsewhere
                if message:
                    self._state.note_published(topic)
                    one.noted = True
                else:
                    self._state.unretain(topic)
        token = self._local.publish(topic, message, qos=1, retain=True)
        if not message:
            self._removals[token] = topic
        one.given = message
        one.due = tuple(at for at in one.due if at > now)

    def _configure(self, topic: str, one: RetainedTopic, message: bytes, now: float) -> None:
        """Remove the components that a configuration has no more, and have the board's states follow it.

        The configuration before is kept for a Home Assistant that is down now.
        """
        before = one.given or NOTHING
        removed = removal(before, message)
        with suppress(StateError), self._state.batch():
            if removed is not None:
                self._state.keep_removed_config(topic, union(self._state.removed_config(topic), before))
            if message != before:
                self._state.keep_configuration(one.device, message or None)
        if removed:
            self._local.publish(topic, removed, qos=1, retain=True)
        if message:
            for _, other in self._of(one.device):
                if other.wanted and not other.is_config:
                    other.due = (now, *(now + seconds for seconds in _REPEAT_AFTER))

    def home_assistant_started(self, now: float) -> None:
        """Publish everything to a Home Assistant that has just started.

        Components that were removed while Home Assistant was down would be unavailable there for ever: their old
        configuration is published once more, and then removed.
        """
        self.begin()
        if self.due_in(now) > 0:
            return
        with suppress(StateError), self._state.batch():
            for topic, payload in self._state.take_removed_configs():
                one = self._at(topic)
                one.given = payload
                if one.device not in self._views:
                    one.wanted = NOTHING
                self._local.publish(topic, payload, qos=1, retain=True)
        self.turn(now)
        with suppress(StateError), self._state.batch():
            self._state.take_removed_configs()  # Home Assistant has heard of those

    def on_delivered(self, token: int) -> None:
        """Note that the broker has a message: a topic that was removed need not be removed again."""
        topic = self._removals.pop(token, None)
        one = None if topic is None else self._topics.get(topic)
        if topic is not None and one is not None and one.wanted == NOTHING:
            with suppress(StateError):
                with self._state.batch():
                    self._state.note_cleared(topic)
                del self._topics[topic]


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)  # what is not a number becomes null
