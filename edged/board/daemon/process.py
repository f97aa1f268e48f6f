"""The daemon's process: start, main loop, reload, stop."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import closing
from pathlib import Path
from types import FrameType

from edged import __version__
from edged.base import notify
from edged.base.errors import EdgedError, StateError, advice
from edged.base.events import Event
from edged.base.log import set_up_logging
from edged.base.memory import harden, release_code
from edged.base.nothing import nothing
from edged.base.timer import Timer, Timers
from edged.base.units import parse_duration
from edged.board.daemon.assembly import assemble
from edged.board.daemon.file_watch import FileWatch
from edged.board.daemon.loader import RELOAD, BackgroundLoad, LoadedModels, PackageChanges, load_models, next_lanes
from edged.board.daemon.reports import STATUS, expired
from edged.board.delivery import outbox, row_log
from edged.board.delivery.announcing import ANNOUNCE, NONCE
from edged.board.delivery.replay import Replay
from edged.board.installation import Board
from edged.board.pipeline import Decoders, Lane
from edged.board.state import RowStore, State
from edged.config.load import load_board

_LOG = logging.getLogger(__name__)
_TICK = 1.0
_STATUS_EVERY = 5.0
_MARKS_EVERY, _MARKS_ON_DISK_EVERY = 0.1, 10.0
_MARKS_WITHOUT_RAM_EVERY = 2.0
_MARKS = "replay marks"
_GOODBYE = 5.0
"""Seconds to wait for results on their way before the daemon leaves."""
_STUCK = 30.0
"""Seconds at one window after which a model's thread makes no progress, or ten times what its self-test took."""


class Daemon:
    """The daemon of one board.

    :param path: its configuration.
    :raises EdgedError: why it cannot start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._board = board = Board(load_board(path))
        set_up_logging(board.config.log.level)
        _LOG.info("edged %s starts: %s", __version__, path, extra=Event.STARTED.about())
        for line in harden().describe():
            _LOG.info("%s", line, extra=Event.PROTECTION.about())
        self._parts = assemble(board)
        self._decoders = Decoders()
        self._load: BackgroundLoad | None = None
        self._changes = PackageChanges()
        self._watch = FileWatch(self._path, board, self._parts.keystore, self._parts.health)
        self._turns = [self._parts.guard(name, part.turn) for name, part in self._parts.timed.items()]
        self._say_status = self._parts.guard("status file", self._show_status)
        self._stopping = False
        self._reload_asked = self._packages_changed = False
        self._ready = False
        self._parts.recovery.on_new_state += (self._accept_served,)
        self._parts.links.sensors.on_up = self._on_sensors_up
        self._parts.links.uplink.on_up = self._on_uplink_up

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        :raises EdgedError: no configured model can be used.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._load_at_start()
            guard, marks = self._parts.guard, self._parts.marks
            timers = [
                Timer(_TICK, guard("packages", self._watch_packages)),
                Timer(_TICK, guard("announcing", self._parts.announcing.announce_if_due)),
                Timer(_TICK, guard("inventory", self._publish_inventory)),
                Timer(_TICK, guard("upkeep", self._tick)),
                Timer(_STATUS_EVERY, self._say_status),
                Timer(parse_duration(self._board.config.results.heartbeat), guard("reports", self._beat)),
                Timer(_MARKS_ON_DISK_EVERY if marks.in_ram else _MARKS_WITHOUT_RAM_EVERY, guard(_MARKS, marks.save)),
            ]
            if marks.in_ram:
                timers.append(Timer(_MARKS_EVERY, guard(f"{_MARKS} in RAM", marks.save_in_ram)))
            if interval := notify.watchdog_interval():
                timers.append(Timer(interval / 3, self._show_progress))
            due = Timers(timers)
            self._parts.links.connect()
            now = time.monotonic()
            while not self._stopping:
                wait = min(due.at - now, *(part.due_in(now) for part in self._parts.timed.values()))
                self._parts.links.run_once(max(0.0, wait))
                now = time.monotonic()
                due.run_due(now)
                self._after_turn(now)
        finally:
            self._leave()

    def _load_at_start(self) -> None:
        self._changes.due(self._board.packages.stamp())
        loaded = load_models(self._board, self._parts.keystore, self._parts.engine, self._parts.recovery.state, {})
        if loaded.models:
            self._take(loaded)
        if loaded.errors and not self._parts.path.lanes:
            raise next(iter(loaded.errors.values()))
        self._changes.loaded()
        for level in (ANNOUNCE, NONCE):
            self._parts.links.uplink.subscribe(self._board.topic(level), 1)
        self._replay()

    def _replay(self) -> None:
        """Fill the windows that the last run left open."""
        parts, store = self._parts, RowStore(self._parts.recovery.state)
        replay = Replay(parts.path, parts.rows, parts.quarantine, parts.links.sensors.remember)
        try:
            count = replay.run(store.readings(), store.windows())
        except StateError as error:
            parts.health.trouble(error.message, "StateError")
            return
        if count:
            _LOG.info("%d readings taken from the journal", count, extra=Event.REPLAYED.about())

    def _take(self, loaded: LoadedModels) -> None:
        """Serve the loaded models, and no others."""
        sensors = self._parts.links.sensors
        before = self._topics()
        self._parts.path.threads.rest()
        lanes = next_lanes(loaded, self._parts.path.lanes, self._parts.marks.guard, self._decoders)
        for channel, lane in self._parts.path.lanes.items():
            if lanes.get(channel) is not lane:
                lane.close()
        self._parts.path.set_lanes(lanes)
        self._parts.examples.set_lanes(lanes.values())
        for lane in lanes.values():
            self._log_lane(lane)
        topics = self._topics()
        for topic, (qos, retained) in topics.items():
            sensors.subscribe(topic, qos, retained=retained)
        for topic in before.keys() - topics:
            sensors.unsubscribe(topic)
        for error in loaded.errors.values():
            self._parts.health.last_error = error.message
        unserved = {channel: error.message for channel, error in loaded.errors.items() if channel not in lanes}
        self._parts.health.note_all("model", unserved)
        self._parts.audit_trail.hubs(loaded.hubs)
        self._parts.audit_trail.serving(lanes, loaded.errors)

    def _topics(self) -> dict[str, tuple[int, bool]]:
        """Return the topics to subscribe to, each with its QoS, and whether retained messages are wanted.

        Labels come with QoS 0, as the age of a queued label is unknown.
        """
        tables = [lane.config for lane in self._parts.path.lanes.values()]
        wanted = {topic for table in tables if table.wants_retained for topic in table.filters}
        read = {topic: (int(table.qos), topic in wanted) for table in tables for topic in table.filters}
        return {**dict.fromkeys(self._parts.examples.topics(read), (0, False)), **read}

    def _log_lane(self, lane: Lane) -> None:
        config, manifest = lane.config, lane.model.manifest
        _LOG.info(
            "model %s %d on %s, weights %s in RAM, %.2f ms a window, %s",
            manifest.name,
            manifest.version,
            ", ".join(config.filters) or f"the answers of {config.from_}",
            "locked" if lane.model.locked else "NOT locked (they may be swapped out)",
            lane.model.seconds * 1000,
            f"in a thread of its own (over runtime.slow, {self._board.config.runtime.slow})"
            if self._parts.path.threads.serves(config.channel)
            else "in the main loop",
            extra=Event.MODEL_SERVING.about(model=manifest.name, version=manifest.version, channel=config.channel),
        )

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
        else:
            self._stopping = True
        self._parts.links.wake()

    def _on_sensors_up(self) -> None:
        """Write in groups that suit the broker: some deliver few messages ahead of their acknowledgement."""
        hasty = self._parts.links.sensors.limits_redelivery
        self._parts.rows.group_seconds = row_log.HASTY if hasty else row_log.PATIENT
        self._parts.results.outbox.group_seconds = outbox.HASTY if hasty else outbox.PATIENT

    def _on_uplink_up(self) -> None:
        if self._parts.links.uplink is self._parts.links.sensors:
            self._on_sensors_up()
        self._parts.results.on_up()
        self._parts.links.uplink.publish(self._board.topic(STATUS), b"online", qos=1, retain=True)
        self._parts.inventory.publish(self._parts.path.lanes, repeat=True)
        self._beat()

    def _after_turn(self, now: float) -> None:
        """Do the work that may follow any turn of the loop: waiting messages, readiness, reloads."""
        for turn in self._turns:
            turn(now)
        if not self._ready and self._parts.links.tried:
            self._ready = True
            release_code()
            self._say_status()
            notify.ready()
            broker = self._parts.links.describe()
            _LOG.info("ready: %d models, broker %s", len(self._parts.path.lanes), broker, extra=Event.READY.about())
        if (self._reload_asked or self._packages_changed) and self._load is None:
            by_hand, self._reload_asked, self._packages_changed = self._reload_asked, False, False
            self._reload(by_hand=by_hand)
        if self._load is not None and self._load.done:
            load, self._load = self._load, None
            self._finish_reload(load)

    def _watch_packages(self) -> None:
        if self._changes.due(self._board.packages.stamp(), self._parts.health.faults):
            self._packages_changed = True

    def _publish_inventory(self) -> None:
        if self._parts.inventory.publish(self._parts.path.lanes):
            self._beat()

    def _tick(self) -> None:
        self._watch.look(self._parts.path.lanes)
        self._parts.audit_trail.write()
        self._parts.health.note_all("link", self._parts.links.faults())
        self._parts.health.set_aside = self._parts.quarantine.count
        self._parts.health.note_state("journal", self._parts.rows.error)
        self._parts.health.note_state("examples", self._parts.examples.error)
        self._parts.recovery.watch()
        lanes = self._parts.path.lanes.values()
        self._parts.recovery.note_open_windows(sum(lane.open_windows() for lane in lanes if not lane.config.journal))
        if self._parts.quarantine.is_calm(time.monotonic()):
            self._parts.recovery.calm()

    def _reload(self, *, by_hand: bool) -> None:
        notify.reloading()
        _LOG.info("reload: configuration and key store", extra=Event.RELOADING.about())
        running = {
            channel: (lane.config, lane.model.manifest.name, lane.model.manifest.version)
            for channel, lane in self._parts.path.lanes.items()
        }
        in_memory = self._parts.recovery.state.in_memory

        def work() -> LoadedModels:
            if not by_hand:
                self._watch.check_configuration()
            board = Board(load_board(self._path))
            with closing(State(board.directory, in_memory=in_memory, create=False)) as state:
                return load_models(board, self._parts.keystore, self._parts.engine, state, running)

        self._load = BackgroundLoad(work, self._parts.links.wake)

    def _finish_reload(self, load: BackgroundLoad) -> None:
        try:
            loaded = load.result()
            self._parts.announcer.set_hubs(loaded.hubs)
            self._parts.quarantine.hubs = loaded.hubs
            self._board = loaded.board
            self._watch.take(loaded.board)
            self._take(loaded)
            self._parts.announcing.announce_if_due()
        except (EdgedError, OSError) as error:
            why = f"refused, going on as before: {advice(error)}"
            _LOG.warning("reload %s", why, extra=Event.RELOAD_REFUSED.about(error=type(error).__name__))
            self._parts.health.note_state(RELOAD, why)
        else:
            self._changes.loaded()
            self._parts.health.note_state(RELOAD, "")
        self._say_status()
        notify.ready()

    def _accept_served(self) -> None:
        """Write the floors of the models that are served."""
        for lane in self._parts.path.lanes.values():
            self._board.accept(lane.model, self._parts.recovery.state)

    def _show_status(self) -> None:
        now = self._parts.time.read().now
        self._parts.health.note_all("expiry", expired(self._parts.path.lanes, now))
        self._parts.heartbeat.say(self._parts.path.lanes, self._parts.links.describe())
        if self._parts.metrics is not None:
            self._parts.metrics.show(self._parts.path.lanes)

    def _beat(self) -> None:
        self._parts.heartbeat.beat(self._parts.path.lanes)

    def _show_progress(self) -> None:
        """Feed the watchdog if this loop and each model in a thread make progress."""
        slowest = max((lane.model.seconds for lane in self._parts.path.lanes.values()), default=0.0)
        if self._parts.path.threads.busy_for() < max(_STUCK, 10 * slowest):
            notify.watchdog()

    def _leave(self) -> None:
        """Shut down: deliver results on their way, publish the status, wipe the models."""
        notify.stopping()
        if self._ready:
            _LOG.info("stops: %s", self._parts.health.line(), extra=Event.STOPPED.about())
        uplink, until = self._parts.links.uplink, time.monotonic() + _GOODBYE
        # the session stays, and the broker keeps what is not acknowledged
        uplink.on_message = self._parts.links.sensors.on_message = nothing
        self._parts.path.threads.rest()
        while uplink.is_up and self._parts.results.in_flight and time.monotonic() < until:
            self._parts.links.run_once(until - time.monotonic())
            self._parts.results.turn(time.monotonic())
        self._parts.guard("results", self._parts.results.stash)()
        self._parts.rows.turn(float("inf"))
        if uplink.is_up:
            uplink.publish(self._board.topic(STATUS), b"offline", qos=1, retain=True)
        self._parts.links.close()
        self._parts.examples.close()
        if self._parts.metrics is not None:
            self._parts.metrics.close()
        self._parts.guard(_MARKS, self._parts.marks.save)()
        for lane in self._parts.path.lanes.values():
            lane.close()
        self._parts.audit_trail.stopped()
        self._parts.recovery.end()
        self._parts.heartbeat.close()
        self._parts.lock.close()
