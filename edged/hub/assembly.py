"""What a hub is made of: its brokers, the boards that it believes, and what happens to their messages."""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from edged.base.errors import ConfigError, EdgedError, StateError
from edged.base.events import Event
from edged.base.lock import Lock
from edged.broker import Broker, Delivery, Message, Outcome, configured
from edged.config.hub import HubConfig
from edged.formats.channel.inventory import Inventory
from edged.formats.channel.receiver import Opened, Receiver
from edged.hub.boards import BoardView, Enrolled
from edged.hub.counters import Tally
from edged.hub.hub_keys import HubKeys
from edged.hub.intake import Intake
from edged.hub.sinks.history import History
from edged.hub.sinks.local_broker import Republisher
from edged.hub.sinks.retained import OFFLINE, Show
from edged.hub.state import HubState
from edged.hub.upstream import Guard, Subscriptions, check_addresses
from edged.keystore.packages import PackageStore

_LOG = logging.getLogger(__name__)


class Hub:
    """One hub process's parts.

    :param instance: names this process where several share one state; the one without a name also shows boards.
    :ivar views: what is known of each board, by name.
    :ivar failed: why the process has to end; None while it need not.
    :raises EdgedError: why it cannot start.
    """

    def __init__(self, config: HubConfig, instance: str) -> None:
        self.config = config
        self.instance = instance
        if config.local.plaintext_on_upstream:
            _LOG.warning(
                "local.plaintext_on_upstream: what boards seal may be read by everybody at that broker",
                extra=Event.PLAINTEXT_UPSTREAM.about(),
            )
        else:
            check_addresses(config.local.url, {name: one.url for name, one in config.upstream.items()})
        directory = Path(config.hub.state)
        self._lock = Lock(directory, f"lock-{instance}" if instance else "lock")
        self.state = HubState(directory, instance)
        self.views: dict[str, BoardView] = {}
        self.tally = Tally()
        self.history = History()
        self.failed: EdgedError | None = None
        key = HubKeys(config.keystore, directory).open()
        self._enrolled = Enrolled(Path(config.hub.boards))
        self._receiver = Receiver(key, [], self.state)
        self.upstreams, self.local = self._brokers()
        self._subscriptions = [
            Subscriptions(broker, config.upstream[name].prefix, config.hub.share, shows=self.shows)
            for name, broker in self.upstreams.items()
        ]
        self.republisher = Republisher(self.local, self.state, self.tally, config.local.queue)
        self.show = Show(self.local, self.state, config.local.prefix, config.home_assistant, self._newest)
        self.guard = Guard(
            self.local,
            () if config.local.plaintext_on_upstream else self.upstreams.values(),
            f"{config.local.prefix}/guard",
        )
        self.intake = Intake(
            self._receiver,
            key.public,
            self.state,
            self.views,
            self.tally,
            config.local.prefix,
            self._on_change,
            self._on_result,
        )

    @property
    def shows(self) -> bool:
        """Whether this process shows boards, beside opening their results."""
        return not self.instance

    def _brokers(self) -> tuple[dict[str, Broker], Broker]:
        config = self.config
        name = f"edged-hub-{config.hub.name}" + (f"-{self.instance}" if self.instance else "")
        upstreams = {one: Broker(configured(table, f"{name}-{one}")) for one, table in config.upstream.items()}
        for broker in upstreams.values():
            broker.on_message = partial(self._on_upstream, broker)
        will = Message(f"{config.local.prefix}/status", OFFLINE, qos=1, retain=True) if self.shows else None
        local = Broker(configured(config.local, f"{name}-local", will))
        local.on_message = self._on_local
        local.on_up = self._on_local_up
        local.on_delivered = self._on_delivered
        return upstreams, local

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """All brokers, the local one first."""
        return (self.local, *self.upstreams.values())

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong, by what it is wrong with."""
        found = dict(self._enrolled.problems)
        if self.intake.error:
            found["state"] = self.intake.error
        return found

    def queued(self) -> int | None:
        """Return how many messages wait for the local broker; None while that cannot be told."""
        with suppress(StateError):
            return self.state.count_queued()
        return None

    def epoch(self, device: str) -> int | None:
        """Return the epoch of a board's that is believed."""
        return self._receiver.epoch(device)

    def open_up(self) -> None:
        """Begin to publish: no upstream broker hears what the local one is told."""
        self.republisher.open = self.show.open = True
        if self.shows:
            self.show.begin(self.views.values())
            self.sweep()

    def close(self) -> None:
        """Close the connections and the state."""
        for broker in self.brokers:
            broker.close()
        self.state.close()
        self._lock.close()

    # --- boards come and go

    def begin(self) -> None:
        """Read who is enrolled, and what boards served and said last."""
        self.enrol()
        known = self.state.inventories()
        with suppress(StateError), self.state.batch():
            for device in {*known, *(device for device, _, _ in self.state.shown())} - set(self.views):
                self.state.forget(device)  # it was removed while no hub ran
        for device, content in known.items():
            if device in self.views:
                with suppress(EdgedError):
                    self.views[device].inventory = Inventory.parse(content)
                self._subscribe_channels(device)
        self.read_shown()
        if self.shows:
            self.local.subscribe(self.show.birth_topic, 1)

    def enrol(self) -> None:
        """Follow the folder of enrolment records."""
        if not self._enrolled.read():
            return
        records = self._enrolled.records
        for device in [device for device in self.views if device not in records]:
            _LOG.info("%s is believed no more", device, extra=Event.BOARD_REMOVED.about(device=device))
            self._forget(device)
        for device, record in records.items():
            self._receiver.enrol(record)
            if device in self.views:
                self.views[device].record = record
                continue
            _LOG.info("%s is believed", device, extra=Event.BOARD_ENROLLED.about(device=device))
            self.views[device] = BoardView(record)
            self.tally.strangers.pop(device, None)
            for subscriptions in self._subscriptions:
                subscriptions.add(device)

    def _forget(self, device: str) -> None:
        del self.views[device]
        self._receiver.forget(device)
        self.tally.forget(device)
        self.history.forget(device)
        for subscriptions in self._subscriptions:
            subscriptions.remove(device)
        with suppress(StateError), self.state.batch():
            self.state.forget(device)
        if self.shows:
            self.show.remove(device)

    def read_shown(self) -> None:
        """Know the newest results, also those that other processes have opened."""
        with suppress(StateError):
            for device, channel, payload in self.state.shown():
                if device in self.views:
                    self.views[device].last[channel] = json.loads(payload)

    def sweep(self) -> None:
        """Take away what stands of boards that are gone, and drop what waits for too long."""
        with suppress(EdgedError):
            self.republisher.tidy()
        if self.shows and self.show.open and self.local.is_up:
            for device in self.show.stale(self.views):
                self.show.remove(device)
            if self.config.hub.packages is not None:
                for view in self.views.values():
                    self.show.update(view)

    def _subscribe_channels(self, device: str) -> None:
        channels = [model.channel for model in self.views[device].models]
        for subscriptions in self._subscriptions:
            subscriptions.set_channels(device, channels)

    def _newest(self, model: str) -> int:
        """Return the newest version of a model that lies ready here."""
        if self.config.hub.packages is None:
            return 0
        with suppress(EdgedError):
            found = PackageStore(Path(self.config.hub.packages)).newest(model)
            return 0 if found is None else found.version
        return 0

    # --- messages

    def _on_upstream(self, broker: Broker, delivery: Delivery) -> None:
        try:
            if self.guard.heard(delivery):
                delivery.ack()
                return
        except ConfigError as error:
            self.failed = error
            return
        self.intake.take(broker, delivery)

    def _on_local(self, delivery: Delivery) -> None:
        delivery.ack()
        if delivery.topic == self.show.birth_topic and delivery.payload == b"online":
            self.show.greet(self.views.values())

    def _on_local_up(self) -> None:
        self.republisher.added()
        if self.shows:
            self.show.begin(self.views.values())

    def _on_delivered(self, token: int, outcome: Outcome) -> None:
        self.republisher.on_delivered(token, outcome, time.monotonic())
        self.show.on_delivered(token)

    def _on_change(self, device: str) -> None:
        view = self.views[device]
        self._subscribe_channels(device)
        if self.shows:
            self.show.update(view)
        if view.inventory is None:
            return
        served = {model.channel for model in view.models}
        for channel in [channel for channel in view.last if channel not in served]:
            del view.last[channel]
            with suppress(StateError), self.state.batch():
                self.state.forget(device, channel)

    def _on_result(self, opened: Opened, newest: bool) -> None:  # noqa: FBT001  a callback
        self.republisher.added()
        if not newest:
            return
        result, view = opened.result, self.views[opened.device]
        view.note_life()
        view.last[opened.channel] = opened.to_json()
        self.show.note_result(self.show.topics(opened.device).result(opened.channel))
        value = result.value if result.score is None else result.score
        self.history.note(opened.device, opened.channel, time.time(), value, result.label)  # by the clock of the page
