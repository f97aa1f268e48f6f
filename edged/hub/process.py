"""The hub's process: start, main loop, stop."""

from __future__ import annotations

import json
import logging
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

from edged import __version__, notify
from edged.broker import Broker, Delivery, Message, Outcome, configured, run_once
from edged.channel.inventory import Inventory
from edged.channel.receiver import Opened, Receiver
from edged.config.hub import HubConfig, PageTable
from edged.config.secret import read_secret
from edged.errors import ConfigError, EdgedError
from edged.hub.enrolled import Enrolled
from edged.hub.guard import Guard, check_addresses
from edged.hub.intake import Intake
from edged.hub.keys import HubKeys
from edged.hub.page.history import History
from edged.hub.page.server import Page
from edged.hub.republish import Republisher
from edged.hub.show import OFFLINE, Show
from edged.hub.snapshot import Snapshot
from edged.hub.subscriptions import Subscriptions
from edged.hub.tally import Tally
from edged.hub.view import BoardView
from edged.keystore.packages import PackageStore
from edged.log import set_up_logging
from edged.memory import harden
from edged.state import HubState, Lock
from edged.timer import Timer, Timers

_LOG = logging.getLogger(__name__)
_TICK, _STATUS_EVERY, _SWEEP_EVERY = 1.0, 5.0, 10.0
_GOODBYE = 3.0


class HubProcess:
    """One hub process.

    :param page: serve the page also where the configuration has no ``[page]``.
    :param instance: names this process where several share one state; the one without a name also shows boards.
    :raises EdgedError: why it cannot start.
    """

    def __init__(self, config: HubConfig, instance: str = "", *, page: bool = False) -> None:
        self._config = config
        set_up_logging(config.log.level)
        _LOG.info("edged hub %s starts", __version__)
        for line in harden().describe():
            _LOG.info("%s", line)
        if not config.local.plaintext_on_upstream:
            check_addresses(config.local.url, {name: one.url for name, one in config.upstream.items()})
        else:
            _LOG.warning("local.plaintext_on_upstream: what boards seal may be read by everybody at that broker")
        self.instance = instance
        directory = Path(config.hub.state)
        self._lock = Lock(directory, f"lock-{instance}" if instance else "lock")
        self._state = HubState(directory, instance)
        key = HubKeys(config.keystore, directory).open()
        self._enrolled = Enrolled(Path(config.hub.boards))
        self._receiver = Receiver(key, [], self._state)
        self._views: dict[str, BoardView] = {}
        self._tally = Tally()
        self._history = History()
        name = f"edged-hub-{config.hub.name}" + (f"-{instance}" if instance else "")
        self._connect(name)
        self._intake = Intake(
            self._receiver,
            key.public,
            self._state,
            self._views,
            self._tally,
            config.local.prefix,
            self._on_change,
            self._on_result,
        )
        self._snapshot = Snapshot(self)
        self._page: Page | None = None
        if page or config.page is not None:
            self._serve_page(config.page or PageTable())
        self._stopping = self._ready = False
        self._failed: EdgedError | None = None

    def _connect(self, name: str) -> None:
        """Make the connections, and what publishes over them."""
        config = self._config
        self.upstreams = {
            upstream: Broker(configured(table, f"{name}-{upstream}")) for upstream, table in config.upstream.items()
        }
        will = None if self.instance else Message(f"{config.local.prefix}/status", OFFLINE, qos=1, retain=True)
        self.local = Broker(configured(config.local, f"{name}-local", will))
        self._subscriptions = {
            upstream: Subscriptions(broker, config.upstream[upstream].prefix, config.hub.share, shows=not self.instance)
            for upstream, broker in self.upstreams.items()
        }
        self._republisher = Republisher(self.local, self._state, self._tally, config.local.queue)
        self._show = Show(self.local, self._state, config.local.prefix, config.home_assistant, self._newest)
        self._guard = Guard(
            self.local,
            () if config.local.plaintext_on_upstream else self.upstreams.values(),
            f"{config.local.prefix}/guard",
        )
        for broker in self.upstreams.values():
            broker.on_message = partial(self._on_upstream, broker)
        self.local.on_message = self._on_local
        self.local.on_up = self._on_local_up
        self.local.on_delivered = self._on_delivered

    def _serve_page(self, table: PageTable) -> None:
        token = None if table.token is None else read_secret(table.token).decode()
        self._snapshot.refresh()
        self._page = Page(table.address, token, self._snapshot.page, self._history)
        _LOG.info("page: %s", self._page.url)

    # --- what others ask

    @property
    def config(self) -> HubConfig:
        """What it was configured with."""
        return self._config

    @property
    def views(self) -> dict[str, BoardView]:
        """What is known of each board."""
        return self._views

    @property
    def tally(self) -> Tally:
        """What was counted."""
        return self._tally

    @property
    def history(self) -> History:
        """The last hour."""
        return self._history

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong, by what it is wrong with."""
        found = dict(self._enrolled.problems)
        if self._intake.error:
            found["state"] = self._intake.error
        return found

    @property
    def held(self) -> int:
        """Results that wait for an announcement."""
        return self._intake.held

    def queued(self) -> int:
        """Return how many messages wait for the local broker."""
        return self._state.count_queued()

    def epoch(self, device: str) -> int | None:
        """Return the epoch of a board's that is believed."""
        return self._receiver.epoch(device)

    # --- the loop

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        :raises EdgedError: why it cannot go on.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        brokers = (self.local, *self.upstreams.values())
        try:
            self._enrol()
            self._restore()
            if not self.instance:
                self.local.subscribe(self._show.birth_topic, 1)
            timers = [
                Timer(_TICK, self._tick),
                Timer(_STATUS_EVERY, self._say_status),
                Timer(_SWEEP_EVERY, self._sweep),
            ]
            if interval := notify.watchdog_interval():
                timers.append(Timer(interval / 3, notify.watchdog))
            due = Timers(timers)
            for broker in brokers:
                broker.connect()
            now = time.monotonic()
            while not self._stopping:
                waiting = 0.0 if self._intake.waiting and not self._intake.error else due.at - now
                run_once(brokers, max(0.0, min(waiting, self._republisher.due_in(now))))
                now = time.monotonic()
                due.run_due(now)
                self._after_turn(now)
                if self._failed is not None:
                    raise self._failed
        finally:
            self._leave()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = number != signal.SIGHUP
        self.local.wake()

    def _after_turn(self, now: float) -> None:
        self._intake.turn(now)
        self._guard.turn(now)
        if self._guard.passed and not self._republisher.open:
            self._republisher.open = self._show.open = True
            if not self.instance:
                self._show.begin(self._views.values())
                self._sweep()
        self._republisher.turn(now)
        if not self.instance:
            self._show.turn(now, self._views)
        if not self._ready and all(one.tried for one in (self.local, *self.upstreams.values())):
            self._ready = True
            notify.ready()
            self._say_status()
            _LOG.info("ready: %d boards, local broker %s", len(self._views), self.local.describe())

    # --- boards come and go

    def _enrol(self) -> None:
        if not self._enrolled.read():
            return
        records = self._enrolled.records
        for device in [device for device in self._views if device not in records]:
            _LOG.info("%s is believed no more", device)
            self._forget(device)
        for device, record in records.items():
            self._receiver.enrol(record)
            if device in self._views:
                self._views[device].record = record
                continue
            self._views[device] = BoardView(record)
            self._tally.strangers.pop(device, None)
            for subscriptions in self._subscriptions.values():
                subscriptions.add(device)

    def _forget(self, device: str) -> None:
        del self._views[device]
        self._receiver.forget(device)
        self._tally.forget(device)
        self._history.forget(device)
        for subscriptions in self._subscriptions.values():
            subscriptions.remove(device)
        with self._state.batch():
            self._state.forget(device)
        if not self.instance:
            self._show.remove(device)

    def _restore(self) -> None:
        """Know again what boards served and said last."""
        for device, content in self._state.inventories().items():
            if device in self._views:
                with suppress(EdgedError):
                    self._views[device].inventory = Inventory.parse(content)
                self._subscribe_channels(device)
        self._read_shown()

    def _read_shown(self) -> None:
        for device, channel, payload in self._state.shown():
            if device in self._views:
                self._views[device].last[channel] = json.loads(payload)

    def _subscribe_channels(self, device: str) -> None:
        channels = [model.channel for model in self._views[device].models]
        for subscriptions in self._subscriptions.values():
            subscriptions.set_channels(device, channels)

    def _newest(self, model: str) -> int:
        """Return the newest version of a model that lies ready here."""
        if self._config.hub.packages is None:
            return 0
        with suppress(EdgedError):
            found = PackageStore(Path(self._config.hub.packages)).newest(model)
            return 0 if found is None else found.version
        return 0

    # --- messages

    def _on_upstream(self, broker: Broker, delivery: Delivery) -> None:
        try:
            if self._guard.heard(delivery):
                delivery.ack()
                return
        except ConfigError as error:
            self._failed = error
            return
        self._intake.take(broker, delivery)

    def _on_local(self, delivery: Delivery) -> None:
        delivery.ack()
        if delivery.topic == self._show.birth_topic and delivery.payload == b"online":
            self._show.greet(self._views.values())

    def _on_local_up(self) -> None:
        self._republisher.added()
        if not self.instance:
            self._show.begin(self._views.values())

    def _on_delivered(self, token: int, outcome: Outcome) -> None:
        self._republisher.on_delivered(token, outcome, time.monotonic())

    def _on_change(self, device: str) -> None:
        view = self._views[device]
        self._subscribe_channels(device)
        if not self.instance:
            self._show.update(view)
        served = {model.channel for model in view.models}
        if view.inventory is not None:
            for channel in [channel for channel in view.last if channel not in served]:
                del view.last[channel]
                with self._state.batch():
                    self._state.forget(device, channel)
                if not self.instance:
                    self._show.remove_channel(device, channel)

    def _on_result(self, opened: Opened, newest: bool) -> None:  # noqa: FBT001  a callback
        self._republisher.added()
        if not newest:
            return
        result, view = opened.result, self._views[opened.device]
        view.note_life()
        view.last[opened.channel] = opened.to_json()
        self._show.note_result(self._show.topics(opened.device).result(opened.channel))
        value = result.value if result.score is None else result.score
        self._history.note(opened.device, opened.channel, result.time, value, result.label)

    # --- from time to time

    def _tick(self) -> None:
        self._enrol()
        self._intake.tidy(time.monotonic())
        if self.instance:
            return
        if self._config.hub.share is not None:
            self._read_shown()
        for view in self._views.values():
            self._show.update(view)
        if self._page is not None and self._snapshot.looked_at:
            self._snapshot.refresh()

    def _sweep(self) -> None:
        """Take away what stands of boards that are gone, and drop what waits too long."""
        with suppress(EdgedError):
            self._republisher.tidy()
        if not self.instance and self._show.open and self.local.is_up:
            for device in self._show.stale(self._views):
                self._show.remove(device)

    def _say_status(self) -> None:
        notify.status(self._snapshot.line())
        self._snapshot.write()

    def _leave(self) -> None:
        notify.stopping()
        if self._page is not None:
            self._page.close()
        if not self.instance:
            self._show.end()
        until = time.monotonic() + _GOODBYE
        while self.local.is_up and self.local.pending and time.monotonic() < until:
            self.local.run_once(0.1)
            self._republisher.turn(float("inf"))
        for broker in (self.local, *self.upstreams.values()):
            broker.close()
        self._state.close()
        self._lock.close()
        _LOG.info("stopped: %s", self._snapshot.line())
