"""The daemon's process: start, main loop, reload, stop."""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path
from types import FrameType

from edged import __version__, notify
from edged.board import Board
from edged.broker import Broker, Delivery, Message
from edged.channel.announcer import Announcer
from edged.channel.reading import ReplayGuard
from edged.config.load import load_board
from edged.config.units import parse_duration, parse_size
from edged.cose.algorithms import Aead
from edged.daemon.health import Health
from edged.daemon.journal import Journal
from edged.daemon.loader import BackgroundLoad, Loaded, load_models, next_lanes
from edged.daemon.outgoing import ANNOUNCE, Outgoing
from edged.daemon.timer import Timer
from edged.daemon.traffic import NONCE, STATUS, Traffic
from edged.errors import EdgedError, StateError
from edged.log import set_up_logging
from edged.memory import harden, release_code
from edged.pipeline import Decoders, Lane
from edged.state import Lock, State

_LOG = logging.getLogger(__name__)
_TICK = 1.0
_STATUS_EVERY = 5.0
_MARKS_EVERY = 2.0
_GOODBYE = 5.0
"""Seconds that results on their way are waited for before the daemon leaves."""


class Daemon:
    """One board's daemon.

    :param path: its configuration.
    :raises EdgedError: why it cannot start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._board = Board(load_board(path))
        set_up_logging(self._board.config.log.level)
        _LOG.info("edged %s starts: %s", __version__, path)
        for line in harden().describe():
            _LOG.info("%s", line)
        self._lock = Lock(self._board.directory)
        self._state = State(self._board.directory)
        self._keystore = self._board.keystore()
        self._engine = self._board.engine()
        _LOG.info("runtime %s %s: %s", self._engine.name, self._engine.version, self._engine.reason)
        self._guard = ReplayGuard(self._state.marks())
        self._decoders = Decoders()
        self._health = Health()
        self._journal = Journal(self._board.audit(self._state, self._keystore), self._state, self._health)
        self._journal.started(f"{self._engine.name} {self._engine.version}")
        self._broker = self._make_broker()
        self._traffic = self._make_traffic()
        self._load: BackgroundLoad | None = None
        self._stamp = 0
        self._stopping = False
        self._reload_asked = False
        self._ready = False

    def _make_broker(self) -> Broker:
        config = self._board.config
        will = Message(f"{config.results.prefix}/{config.device.name}/{STATUS}", b"offline", qos=1, retain=True)
        broker = Broker(self._board.broker_options(will))
        broker.on_up = self._on_up
        broker.on_error = self._on_broker_error
        return broker

    def _make_traffic(self) -> Traffic:
        config = self._board.config
        announcer = Announcer(
            config.device.name,
            self._keystore.signer,
            aead=self._board.record().aead or Aead.A256GCM,
            hubs=self._board.hubs(),
            sign_results=config.results.sign,
            max_age=parse_duration(config.results.rotate),
            begin_epoch=self._begin_epoch,
        )
        base = f"{config.results.prefix}/{config.device.name}"
        self._outgoing = Outgoing(
            self._broker,
            announcer,
            self._health,
            base=base,
            most_waiting=parse_size(config.results.outbox.size),
            longest_waiting=parse_duration(config.results.outbox.age),
            read_clock=lambda: self._board.clock(self._state),
        )
        traffic = Traffic(
            self._outgoing,
            announcer,
            self._guard,
            self._health,
            base=base,
            slow=parse_duration(config.runtime.slow),
            wake=self._broker.wake,
        )
        traffic.on_trial = self._journal.trial_ended
        self._announcer = announcer
        self._broker.on_message = traffic.on_message
        self._broker.on_delivered = self._outgoing.on_delivered
        return traffic

    def _begin_epoch(self, kid: bytes, at_least: int) -> int:
        clock = self._board.clock(self._state)
        number = self._state.begin_epoch(kid, max(at_least, int(clock.now) if clock.synchronised else 0))
        self._journal.epoch(number, kid)
        return number

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
                Timer(_MARKS_EVERY, self._save_marks),
            ]
            if interval := notify.watchdog_interval():
                timers.append(Timer(interval / 3, notify.watchdog))
            self._broker.connect()
            while not self._stopping:
                self._broker.run_once(max(0.0, min(timer.at for timer in timers) - time.monotonic()))
                for timer in timers:
                    timer.run_if_due()
                self._after_turn()
        finally:
            self._leave()

    def _load_at_start(self) -> None:
        self._stamp = self._board.packages.stamp()
        loaded = load_models(self._board, self._keystore, self._engine, {})
        if loaded.models:
            self._take(loaded)
        if loaded.errors and not self._traffic.lanes:
            raise next(iter(loaded.errors.values()))
        for level in (ANNOUNCE, NONCE):
            self._broker.subscribe(self._traffic.topic(level), 1)

    def _take(self, loaded: Loaded) -> None:
        """Serve what was loaded, and only that."""
        before = {topic for lane in self._traffic.lanes.values() for topic in lane.config.filters}
        self._traffic.rest()
        lanes = next_lanes(loaded, self._traffic.lanes, self._guard, self._decoders)
        for channel, lane in self._traffic.lanes.items():
            if lanes.get(channel) is not lane:
                lane.close()
        self._traffic.set_lanes(lanes)
        for lane in lanes.values():
            self._log_lane(lane)
            for topic in lane.config.filters:
                self._broker.subscribe(topic, lane.config.qos)
        for topic in before - {topic for lane in lanes.values() for topic in lane.config.filters}:
            self._broker.unsubscribe(topic)
        for error in loaded.errors.values():
            self._health.last_error = error.message
        self._journal.hubs(loaded.board.hubs())
        self._journal.serving(lanes, loaded.errors)

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
            if self._traffic.is_slow(config.channel)
            else "in the main loop",
        )

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
        else:
            self._stopping = True
        self._broker.wake()

    def _on_broker_error(self, error: Exception) -> None:
        hint = f" ({error.hint})" if isinstance(error, EdgedError) and error.hint else ""
        self._health.trouble(f"{error}{hint}", type(error).__name__)

    def _on_up(self) -> None:
        self._announcer.renew()
        self._outgoing.announce_if_due()
        self._broker.publish(self._traffic.topic(STATUS), b"online", qos=1, retain=True)

    def _after_turn(self) -> None:
        """Do what may follow from any turn of the loop: go on after a slow model, be ready, begin a reload, end one."""
        self._traffic.conclude_slow()
        if not self._ready and self._broker.tried:
            self._ready = True
            release_code()
            notify.ready()
            self._say_status()
            _LOG.info("ready: %d models, broker %s", len(self._traffic.lanes), self._broker.describe())
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
        self._outgoing.drop_outdated(time.monotonic())
        if self._broker.is_up:
            self._outgoing.announce_if_due()

    def _reload(self) -> None:
        notify.reloading()
        _LOG.info("reload: configuration and key store")
        running = {
            channel: (lane.config, lane.model.manifest.name, lane.model.manifest.version)
            for channel, lane in self._traffic.lanes.items()
        }

        def work() -> Loaded:
            return load_models(Board(load_board(self._path)), self._keystore, self._engine, running)

        self._load = BackgroundLoad(work, self._broker.wake)

    def _finish_reload(self, load: BackgroundLoad) -> None:
        try:
            loaded = load.result()
            self._announcer.set_hubs(loaded.board.hubs())
            self._board = loaded.board
            self._take(loaded)
            self._outgoing.announce_if_due()
        except EdgedError as error:
            self._health.trouble(f"reload refused, going on as before: {error.message}", "reload")
        notify.ready()

    def _say_status(self) -> None:
        notify.status(f"{self._broker.describe()}; {self._health.line()}")

    def _save_marks(self) -> None:
        if settled := self._guard.take_settled():
            try:
                self._state.save_marks(settled.items())
            except StateError as error:
                self._health.trouble(error.message, "StateError")

    def _leave(self) -> None:
        """Say goodbye: results on their way first, then the status, then wipe the models."""
        notify.stopping()
        if self._ready:
            _LOG.info("stops: %s", self._health.line())
        until = time.monotonic() + _GOODBYE
        self._broker.on_message = _leave_to_the_next  # the session stays, and the broker keeps what is not acknowledged
        self._traffic.rest()
        while self._broker.is_up and self._outgoing.waiting and time.monotonic() < until:
            self._broker.run_once(until - time.monotonic())
        if self._broker.is_up:
            self._broker.publish(self._traffic.topic(STATUS), b"offline", qos=1, retain=True)
        self._broker.close()
        self._save_marks()
        for lane in self._traffic.lanes.values():
            lane.close()
        self._journal.stopped()
        self._state.close()
        self._lock.close()


def _leave_to_the_next(_delivery: Delivery) -> None:
    """Acknowledge nothing more."""
