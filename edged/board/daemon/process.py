"""The daemon's process: start, main loop, reload, stop."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Literal

from edged import __version__
from edged.base import notify
from edged.base.errors import EdgedError, StateError, advice
from edged.base.events import Event
from edged.base.log import set_up_logging
from edged.base.memory import harden, release_code
from edged.base.nothing import nothing
from edged.base.timer import Timer, Timers
from edged.base.units import parse_duration
from edged.board.daemon.file_watch import FileWatch
from edged.board.daemon.guard import Guard
from edged.board.daemon.loader import RELOAD, BackgroundLoad, LoadedModels, PackageChanges, load_models, next_lanes
from edged.board.daemon.parts import Parts
from edged.board.daemon.reports import STATUS, expired
from edged.board.delivery import outbox, row_log
from edged.board.delivery.outgoing import ANNOUNCE, NONCE
from edged.board.installation import Board
from edged.board.pipeline import Decoders, Lane
from edged.board.state import RowStore, State
from edged.config.load import load_board

_LOG = logging.getLogger(__name__)
_TICK = 1.0
_STATUS_EVERY = 5.0
_MARKS_EVERY, _MARKS_ON_DISK_EVERY = 0.1, 10.0
_MARKS_WITHOUT_RAM_EVERY = 2.0
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
        parts = Parts(board)
        self._lock = parts.lock
        self._health = parts.health
        self._recovery = parts.recovery
        self._state = parts.recovery.state
        self._keystore = parts.keystore
        self._engine = parts.engine
        self._marks = parts.marks
        self._audit_trail = parts.audit_trail
        self._links = parts.links
        self._announcer = parts.announcer
        self._outgoing = parts.outgoing
        self._rows = parts.rows
        self._quarantine = parts.quarantine
        self._inference = parts.inference
        self._inbox = parts.inbox
        self._example_writer = parts.example_writer
        self._heartbeat = parts.heartbeat
        self._metrics = parts.metrics
        self._inventory = parts.inventory
        self._topic = parts.topic
        self._read_clock = parts.clock
        self._status_file = parts.status_file
        self._decoders = Decoders()
        self._watch = FileWatch(self._path, parts.keystore, parts.health)
        self._guard = guard = Guard(parts.health)
        self._turns: tuple[Callable[[float], None], ...] = (
            guard("slow models", lambda _: self._inference.conclude_slow()),
            guard("messages", self._inbox.turn),
            guard("rows", self._rows.turn),
            guard("results", self._outgoing.turn),
        )
        self._recovery.on_new_state = (
            self._outgoing.outbox.start_over,
            self._announcer.write_down,
            self._accept_served,
            self._marks.write_down,
        )
        self._links.uplink.on_up = self._on_up
        self._links.on_sensors_up(self._set_pace)
        self._load: BackgroundLoad | None = None
        self._changes = PackageChanges()
        self._stopping = False
        self._reload_asked = self._packages_changed = False
        self._ready = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        :raises EdgedError: no configured model can be used.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._load_at_start()
            guard, on_disk_every = self._guard, _MARKS_ON_DISK_EVERY if self._marks.in_ram else _MARKS_WITHOUT_RAM_EVERY
            timers = [
                Timer(_TICK, guard("packages", self._watch_packages)),
                Timer(_TICK, guard("announcing", self._outgoing.announce_if_due)),
                Timer(_TICK, guard("inventory", self._publish_inventory)),
                Timer(_TICK, guard("upkeep", self._tick)),
                Timer(_STATUS_EVERY, guard("status", self._say_status)),
                Timer(parse_duration(self._board.config.results.heartbeat), guard("report", self._beat)),
                Timer(on_disk_every, guard("replay marks", self._marks.save)),
            ]
            if self._marks.in_ram:
                timers.append(Timer(_MARKS_EVERY, guard("replay marks in RAM", self._marks.save_in_ram)))
            if interval := notify.watchdog_interval():
                timers.append(Timer(interval / 3, self._show_progress))
            due = Timers(timers)
            self._links.connect()
            now = time.monotonic()
            while not self._stopping:
                self._links.run_once(max(0.0, min(self._due_in(now), due.at - now)))
                now = time.monotonic()
                due.run_due(now)
                self._after_turn(now)
        finally:
            self._leave()

    def _due_in(self, now: float) -> float:
        return min(self._outgoing.due_in(now), self._rows.due_in(now), self._quarantine.due_in(now))

    def _load_at_start(self) -> None:
        self._changes.due(self._board.packages.stamp())
        loaded = load_models(self._board, self._keystore, self._engine, self._state, {})
        if loaded.models:
            self._take(loaded)
        if loaded.errors and not self._inference.lanes:
            raise next(iter(loaded.errors.values()))
        self._changes.loaded()
        for level in (ANNOUNCE, NONCE):
            self._links.uplink.subscribe(self._topic(level), 1)
        self._replay()

    def _replay(self) -> None:
        """Fill the windows that the last run left open."""
        store = RowStore(self._state)
        try:
            count = self._inbox.replay(store.readings(), store.windows())
        except StateError as error:
            self._health.trouble(error.message, "StateError")
            return
        if count:
            _LOG.info("%d readings taken from the journal", count, extra=Event.REPLAYED.about())

    def _take(self, loaded: LoadedModels) -> None:
        """Serve the loaded models, and no others."""
        sensors = self._links.sensors
        before = self._topics()
        self._inference.rest()
        lanes = next_lanes(loaded, self._inference.lanes, self._marks.guard, self._decoders)
        for channel, lane in self._inference.lanes.items():
            if lanes.get(channel) is not lane:
                lane.close()
        self._inference.set_lanes(lanes)
        self._example_writer.set_lanes(lanes.values())
        for lane in lanes.values():
            self._log_lane(lane)
        topics = self._topics()
        for topic, qos in topics.items():
            sensors.subscribe(topic, qos)
        for topic in before.keys() - topics:
            sensors.unsubscribe(topic)
        for error in loaded.errors.values():
            self._health.last_error = error.message
        unserved = {channel: error.message for channel, error in loaded.errors.items() if channel not in lanes}
        self._health.note_all("model", unserved)
        self._audit_trail.hubs(loaded.hubs)
        self._audit_trail.serving(lanes, loaded.errors)

    def _topics(self) -> dict[str, Literal[0, 1]]:
        """Return the topics to subscribe to, with their QoS: 0 for labels, as the age of a queued label is unknown."""
        read = {topic: lane.config.qos for lane in self._inference.lanes.values() for topic in lane.config.filters}
        return {**dict.fromkeys(self._example_writer.topics(read), 0), **read}

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
            if self._inference.is_slow(config.channel)
            else "in the main loop",
            extra=Event.MODEL_SERVING.about(model=manifest.name, version=manifest.version, channel=config.channel),
        )

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
        else:
            self._stopping = True
        self._links.wake()

    def _set_pace(self) -> None:
        """Write in groups that suit the broker: some deliver few messages ahead of their acknowledgement."""
        hasty = self._links.sensors.limits_redelivery
        self._rows.group_seconds = row_log.HASTY if hasty else row_log.PATIENT
        self._outgoing.outbox.group_seconds = outbox.HASTY if hasty else outbox.PATIENT

    def _on_up(self) -> None:
        self._outgoing.on_up()
        self._links.uplink.publish(self._topic(STATUS), b"online", qos=1, retain=True)
        self._inventory.publish(self._inference.lanes, repeat=True)
        self._beat()

    def _after_turn(self, now: float) -> None:
        """Do the work that may follow any turn of the loop: waiting messages, readiness, reloads."""
        for turn in self._turns:
            turn(now)
        if not self._ready and self._links.tried:
            self._ready = True
            release_code()
            self._say_status()
            notify.ready()
            broker = self._links.describe()
            _LOG.info("ready: %d models, broker %s", len(self._inference.lanes), broker, extra=Event.READY.about())
        if (self._reload_asked or self._packages_changed) and self._load is None:
            by_hand, self._reload_asked, self._packages_changed = self._reload_asked, False, False
            self._reload(by_hand=by_hand)
        if self._load is not None and self._load.done:
            load, self._load = self._load, None
            self._finish_reload(load)

    def _watch_packages(self) -> None:
        if self._changes.due(self._board.packages.stamp(), self._health.faults):
            self._packages_changed = True

    def _publish_inventory(self) -> None:
        if self._inventory.publish(self._inference.lanes):
            self._beat()

    def _tick(self) -> None:
        self._watch.look(self._board, self._inference.lanes)
        self._audit_trail.write()
        self._health.set_aside = self._quarantine.count
        self._health.note_state("journal", self._rows.error)
        self._health.note_state("examples", self._example_writer.error)
        self._recovery.watch()
        self._recovery.note_open_windows(self._inbox.open_windows())
        if self._quarantine.is_calm(time.monotonic()):
            self._recovery.calm()

    def _reload(self, *, by_hand: bool) -> None:
        notify.reloading()
        _LOG.info("reload: configuration and key store", extra=Event.RELOADING.about())
        running = {
            channel: (lane.config, lane.model.manifest.name, lane.model.manifest.version)
            for channel, lane in self._inference.lanes.items()
        }
        in_memory = self._state.in_memory

        def work() -> LoadedModels:
            if not by_hand:
                self._watch.check_configuration()
            board = Board(load_board(self._path))
            with closing(State(board.directory, in_memory=in_memory, create=False)) as state:
                return load_models(board, self._keystore, self._engine, state, running)

        self._load = BackgroundLoad(work, self._links.wake)

    def _finish_reload(self, load: BackgroundLoad) -> None:
        try:
            loaded = load.result()
            if self._announcer.set_hubs(loaded.hubs):
                self._outgoing.seal_again()
            self._quarantine.hubs = loaded.hubs
            self._board = loaded.board
            self._take(loaded)
            self._outgoing.announce_if_due()
        except (EdgedError, OSError) as error:
            why = f"refused, going on as before: {advice(error)}"
            _LOG.warning("reload %s", why, extra=Event.RELOAD_REFUSED.about(error=type(error).__name__))
            self._health.note_state(RELOAD, why)
        else:
            self._changes.loaded()
            self._health.note_state(RELOAD, "")
        self._guard("status", self._say_status)()
        notify.ready()

    def _accept_served(self) -> None:
        """Write the floors of the models that are served."""
        for lane in self._inference.lanes.values():
            self._board.accept(lane.model, self._state)

    def _say_status(self) -> None:
        self._health.note_all("expiry", expired(self._inference.lanes, self._read_clock().now))
        self._heartbeat.say(self._inference.lanes, self._links.describe())
        if self._metrics is not None:
            self._metrics.show(self._inference.lanes)

    def _beat(self) -> None:
        self._heartbeat.beat(self._inference.lanes)

    def _show_progress(self) -> None:
        """Feed the watchdog if this loop and each model in a thread make progress."""
        slowest = max((lane.model.seconds for lane in self._inference.lanes.values()), default=0.0)
        if self._inference.progress() < max(_STUCK, 10 * slowest):
            notify.watchdog()

    def _leave(self) -> None:
        """Shut down: deliver results on their way, publish the status, wipe the models."""
        notify.stopping()
        if self._ready:
            _LOG.info("stops: %s", self._health.line(), extra=Event.STOPPED.about())
        uplink, until = self._links.uplink, time.monotonic() + _GOODBYE
        # the session stays, and the broker keeps what is not acknowledged
        uplink.on_message = self._links.sensors.on_message = nothing
        self._inference.rest()
        while uplink.is_up and self._outgoing.waiting and time.monotonic() < until:
            self._links.run_once(until - time.monotonic())
            self._outgoing.turn(time.monotonic())
        self._guard("results", self._outgoing.stash)()
        self._rows.turn(float("inf"))
        if uplink.is_up:
            uplink.publish(self._topic(STATUS), b"offline", qos=1, retain=True)
        self._links.close()
        self._example_writer.close()
        if self._metrics is not None:
            self._metrics.close()
        self._guard("replay marks", self._marks.save)()
        for lane in self._inference.lanes.values():
            lane.close()
        self._audit_trail.stopped()
        self._recovery.end()
        self._status_file.close()
        self._lock.close()
