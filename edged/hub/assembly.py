"""The hub, assembled in one place: brokers, boards, intake and result sinks, and how they are wired."""

from __future__ import annotations

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
from edged.formats.channel.receiver import Receiver
from edged.hub.boards import Boards, BoardView, EnrolmentFolder
from edged.hub.counters import HubCounters
from edged.hub.hub_keys import HubKeys
from edged.hub.intake import Intake
from edged.hub.sinks import ResultSink
from edged.hub.sinks.history import History
from edged.hub.sinks.latest import LatestResults
from edged.hub.sinks.local_broker import Republisher
from edged.hub.sinks.retained import OFFLINE, RetainedState
from edged.hub.state import HubState
from edged.hub.upstream import Subscriptions, UpstreamGuard, check_addresses
from edged.keystore.packages import PackageStore

_LOG = logging.getLogger(__name__)


class Hub:
    """The parts of one hub process.

    :param instance: names this process where several share one state; the one without a name also shows boards.
    :ivar sinks: the places that accepted results go to: a further one is an entry here.
    :ivar failed: the reason for which the process has to end; None while there is none.
    :raises EdgedError: the hub cannot start.
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
        self.counters = HubCounters()
        self.failed: EdgedError | None = None
        keys = HubKeys(config.keystore, directory).open()
        self._receiver = Receiver(keys.agreement, keys.signer.public.thumbprint, [], self.state)
        self.upstreams, self.local = self._brokers()
        subscriptions = [
            Subscriptions(broker, config.upstream[name].prefix, config.hub.share, shows=self.shows)
            for name, broker in self.upstreams.items()
        ]
        self.boards = Boards(
            EnrolmentFolder(Path(config.hub.boards)),
            self._receiver,
            self.state,
            self.counters,
            subscriptions,
            self._on_removed,
        )
        views, prefix = self.boards.views, config.local.prefix
        self.republisher = Republisher(self.local, self.state, self.counters, prefix, config.local.queue)
        self.latest = LatestResults(views, self.state)
        self.history = History()
        self.retained = (
            RetainedState(self.local, self.state, views, prefix, config.home_assistant, self._newest_version)
            if self.shows
            else None
        )
        self.sinks: list[ResultSink] = [self.republisher, self.latest, self.history]
        if self.retained is not None:
            self.sinks.append(self.retained)
        self.guard = UpstreamGuard(
            self.local,
            () if config.local.plaintext_on_upstream else self.upstreams.values(),
            f"{prefix}/guard",
        )
        self.intake = Intake(self._receiver, self.state, views, self.counters, self.sinks, self._on_change)

    @property
    def shows(self) -> bool:
        """True if this process shows boards, beside opening their results."""
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
    def links(self) -> dict[str, Broker]:
        """All brokers by their names, the local one first."""
        return {"local": self.local, **self.upstreams}

    @property
    def problems(self) -> dict[str, str]:
        """Problems of the hub, by the part that has them."""
        found = dict(self.boards.problems)
        if self.intake.error:
            found["state"] = self.intake.error
        for link, broker in self.links.items():
            found |= {f"{link}: {part}": fault for part, fault in broker.faults.items()}
        return found

    def queued(self) -> int | None:
        """Return the number of messages that wait for the local broker; None if the state cannot be read."""
        with suppress(StateError):
            return self.state.count_queued()
        return None

    def epoch(self, device: str) -> int | None:
        """Return the number of a board's epoch that is believed; None if there is none."""
        return self._receiver.epoch(device)

    @property
    def views(self) -> dict[str, BoardView]:
        """Views of the enrolled boards, by name."""
        return self.boards.views

    def begin(self) -> None:
        """Read the enrolled boards, their inventories and their newest results."""
        self.boards.begin()
        self.latest.read()
        if self.retained is not None:
            self.local.subscribe(self.retained.birth_topic, 1)

    def open_up(self) -> None:
        """Begin to publish: no upstream broker hears the messages of the local one."""
        self.republisher.open = True
        if self.retained is not None:
            self.retained.open = True
            self.retained.begin()
            self.sweep()

    def sweep(self) -> None:
        """Drop queued messages beyond the limit, and look at boards that are gone and versions that have come."""
        with suppress(EdgedError):
            self.republisher.tidy()
        if self.retained is not None:
            self.retained.sweep()
            if self.config.hub.packages is not None:
                for view in self.views.values():
                    self.retained.update(view)

    def close(self) -> None:
        """Close the sinks, the connections and the state."""
        for sink in self.sinks:
            sink.close()
        for broker in self.links.values():
            broker.close()
        self.state.close()
        self._lock.close()

    def _newest_version(self, model: str) -> int:
        """Return the newest version of a model that lies ready at the hub; 0 if there is none."""
        if self.config.hub.packages is None:
            return 0
        with suppress(EdgedError):
            found = PackageStore(Path(self.config.hub.packages)).newest(model)
            return 0 if found is None else found.version
        return 0

    def _on_removed(self, device: str) -> None:
        self.intake.forget(device)
        for sink in self.sinks:
            sink.forget(device)

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
        home = self.retained
        if home is not None and delivery.topic == home.birth_topic and delivery.payload == b"online":
            home.home_assistant_started(time.monotonic())

    def _on_local_up(self) -> None:
        self.republisher.read_queue()
        if self.retained is not None:
            self.retained.begin()

    def _on_delivered(self, token: int, outcome: Outcome) -> None:
        self.republisher.on_delivered(token, outcome, time.monotonic())
        if self.retained is not None:
            self.retained.on_delivered(token)

    def _on_change(self, device: str) -> None:
        view = self.views[device]
        self.boards.follow_channels(device)
        if self.retained is not None:
            self.retained.update(view)
        self.latest.forget_unserved(view)
