"""The daemon's process: start, main loop, reload, stop."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Literal

from edged import __version__
from edged.base import notify
from edged.base.errors import EdgedError, StateError
from edged.base.events import Event
from edged.base.log import set_up_logging
from edged.base.memory import harden, release_code
from edged.base.nothing import nothing
from edged.base.timer import Timer, Timers
from edged.base.units import parse_duration
from edged.board.daemon.loader import BackgroundLoad, LoadedModels, load_models, next_lanes
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
        self._path = path
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
        self._decoders = Decoders()
        self._recovery.on_new_state = self._write_down
        self._links.uplink.on_up = self._on_up
        self._links.on_sensors_up(self._set_pace)
        self._load: BackgroundLoad | None = None
        self._stamp = 0
        self._stopping = False
        self._reload_asked = False
        self._ready = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        :raises EdgedError: no configured model can be used.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._load_at_start()
            timers = [
                Timer(_TICK, self._tick),
                Timer(_STATUS_EVERY, self._say_status),
                Timer(parse_duration(self._board.config.results.heartbeat), self._beat),
                Timer(_MARKS_ON_DISK_EVERY if self._marks.in_ram else _MARKS_WITHOUT_RAM_EVERY, self._save_marks),
            ]
            if self._marks.in_ram:
                timers.append(Timer(_MARKS_EVERY, self._marks.save_in_ram))
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
        self._stamp = self._board.packages.stamp()
        loaded = load_models(self._board, self._keystore, self._engine, self._state, {})
        if loaded.models:
            self._take(loaded)
        if loaded.errors and not self._inference.lanes:
            raise next(iter(loaded.errors.values()))
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
        self._audit_trail.hubs(loaded.board.hubs())
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
        self._inference.conclude_slow()
        self._inbox.turn(now)
        self._rows.turn(now)
        self._outgoing.turn(now)
        if not self._ready and self._links.tried:
            self._ready = True
            release_code()
            self._say_status()
            notify.ready()
            broker = self._links.describe()
            _LOG.info("ready: %d models, broker %s", len(self._inference.lanes), broker, extra=Event.READY.about())
        if self._reload_asked and self._load is None:
            self._reload_asked = False
            self._reload()
        if self._load is not None and self._load.done:
            self._finish_reload(self._load)
            self._load = None

    def _tick(self) -> None:
        stamp = self._board.packages.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self._reload_asked = True
        self._outgoing.announce_if_due()
        if self._inventory.publish(self._inference.lanes):
            self._beat()
        self._health.set_aside = self._quarantine.count
        self._health.note_state("journal", self._rows.error)
        self._health.note_state("examples", self._example_writer.error)
        self._recovery.mend_if_due()
        self._recovery.note_open_windows(self._inbox.open_windows())
        if self._quarantine.is_calm(time.monotonic()):
            self._recovery.calm()

    def _reload(self) -> None:
        notify.reloading()
        _LOG.info("reload: configuration and key store", extra=Event.RELOADING.about())
        running = {
            channel: (lane.config, lane.model.manifest.name, lane.model.manifest.version)
            for channel, lane in self._inference.lanes.items()
        }
        in_memory = self._state.in_memory

        def work() -> LoadedModels:
            board = Board(load_board(self._path))
            with closing(State(board.directory, in_memory=in_memory)) as state:
                return load_models(board, self._keystore, self._engine, state, running)

        self._load = BackgroundLoad(work, self._links.wake)

    def _finish_reload(self, load: BackgroundLoad) -> None:
        try:
            loaded = load.result()
            hubs = loaded.board.hubs()
            if self._announcer.set_hubs(hubs):
                self._outgoing.seal_again()
            self._quarantine.hubs = hubs
            self._board = loaded.board
            self._take(loaded)
            self._outgoing.announce_if_due()
        except EdgedError as error:
            self._health.trouble(
                f"reload refused, going on as before: {error.message}",
                "reload",
                Event.RELOAD_REFUSED,
                error=type(error).__name__,
            )
        self._say_status()
        notify.ready()

    def _write_down(self) -> None:
        """Write floors, epoch and replay marks into a new state, after the old one was damaged."""
        for lane in self._inference.lanes.values():
            self._board.accept(lane.model, self._state)
        self._announcer.write_down()
        self._state.save_marks(self._marks.guard.settled().items())
        self._outgoing.outbox.start_over()

    def _note_expired(self) -> None:
        """Mark the models degraded that serve past the date that their publisher signed."""
        try:
            now = self._board.clock(self._state).now
        except StateError as error:
            self._health.trouble(error.message, "StateError")
            return
        self._health.note_all("expiry", expired(self._inference.lanes, now))

    def _say_status(self) -> None:
        self._note_expired()
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

    def _save_marks(self) -> None:
        try:
            self._marks.save()
        except StateError as error:
            self._health.trouble(error.message, "StateError")

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
        self._outgoing.stash()
        self._rows.turn(float("inf"))
        if uplink.is_up:
            uplink.publish(self._topic(STATUS), b"offline", qos=1, retain=True)
        self._links.close()
        self._example_writer.close()
        if self._metrics is not None:
            self._metrics.close()
        self._save_marks()
        for lane in self._inference.lanes.values():
            lane.close()
        self._audit_trail.stopped()
        self._recovery.end()
        self._lock.close()
