"""The audit trail of the daemon: entries of the audit log, and versions that passed or failed their trial."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping

from edged import __version__
from edged.base.errors import EdgedError, StateError, TrialError, advice
from edged.base.events import Event
from edged.board.audit import SIGN_EVERY, AuditLog, Fact, Kind
from edged.board.health import Health
from edged.board.pipeline import Lane
from edged.board.state import State
from edged.formats.identity import Record
from edged.formats.package import Floor
from edged.model.live import LiveModel

_LOG = logging.getLogger(__name__)


_MOST_WAITING = 256
"""Entries that wait for a disk that cannot be written; the oldest beyond are lost."""


class AuditTrail:
    """Writes to the audit log and to the state; a disk that is full stops neither readings nor results."""

    def __init__(self, log: AuditLog, state: State, health: Health) -> None:
        self._log = log
        self._state = state
        self._health = health
        self._live: dict[str, tuple[str, int, str]] = {}
        self._refused: dict[str, str] = {}
        self._hubs: list[str] = []
        self._waiting: deque[tuple[Kind, Mapping[str, Fact], int]] = deque(maxlen=_MOST_WAITING)

    def _add(self, kind: Kind, **facts: Fact) -> None:
        self._waiting.append((kind, facts, time.time_ns() // 1000))
        self.write()

    def write(self) -> None:
        """Write the entries that wait for the disk."""
        if not self._waiting:
            return
        try:
            while self._waiting:
                number = self._log.append(*self._waiting[0])
                self._waiting.popleft()
                if number % SIGN_EVERY == 0:
                    self._log.sign()
        except EdgedError as error:
            self._health.note_state("audit log", advice(error))
        else:
            self._health.note_state("audit log", "")

    def started(self, engine: str, crashes: int) -> None:
        """Record the start of the daemon.

        :param crashes: how many runs before ended without a goodbye.
        """
        facts = {"crashes": crashes} if crashes else {}
        self._add("start", edged=__version__, engine=engine, **facts)

    def stopped(self) -> None:
        """Record the end of the daemon, and sign the log."""
        self._add("stop", messages=self._health.messages, results=self._health.books.results)
        try:
            self._log.sign()
        except EdgedError as error:
            self._health.trouble(advice(error), "StateError")

    def epoch(self, number: int, kid: bytes) -> None:
        """Record a new channel key."""
        _LOG.info("epoch %d begins", number, extra=Event.EPOCH_BEGUN.about(epoch=number))
        self._add("epoch", epoch=number, kid=kid.hex())

    def hubs(self, records: Iterable[Record]) -> None:
        """Record the hubs that are granted results, by their signing keys, if they have changed."""
        kids = [record.sign.thumbprint.hex() for record in records]
        if kids != self._hubs:
            self._hubs = kids
            self._add("hubs", kids=" ".join(kid[:16] for kid in kids))

    def serving(self, lanes: Mapping[str, Lane], errors: Mapping[str, EdgedError]) -> None:
        """Record the models that answer from now on, if they have changed, and those that were refused."""
        for channel, lane in lanes.items():
            manifest = lane.model.manifest
            live = (manifest.name, manifest.version, lane.model.identity.hex())
            before = self._live.get(channel)
            if live != before:
                self._live[channel] = live
                facts = {} if before is None else {"before": before[1]}
                self._add("swap", channel=channel, model=live[0], version=live[1], identity=live[2], **facts)
        for channel in set(self._live) - set(lanes):
            name, version, _ = self._live.pop(channel)
            self._add("swap", channel=channel, model="", before=f"{name} {version}")
        for channel, error in errors.items():
            if self._refused.get(channel) != error.message:
                self._add("refuse", channel=channel, why=type(error).__name__, detail=error.message)
        self._refused = {channel: error.message for channel, error in errors.items()}

    def trial_ended(self, lane: Lane, tried: LiveModel, error: TrialError | None) -> None:
        """Record the end of a trial. A version that failed is not loaded again; the one that took its place is."""
        manifest = tried.manifest
        version = Floor(manifest.version, tried.identity)
        try:
            if error is None:
                if version not in self._state.good(manifest.name):
                    about = Event.TRIAL_PASSED.about(
                        model=manifest.name, version=manifest.version, channel=lane.config.channel
                    )
                    _LOG.info("model %s %d: its trial is passed", manifest.name, manifest.version, extra=about)
                self._state.set_good(manifest.name, version)
                return
            if lane.stopped or lane.model is not tried:
                self._state.reject(manifest.name, version, error.message)
            if lane.model is not tried:
                back = lane.model
                self._state.set_good(back.manifest.name, Floor(back.manifest.version, back.identity))
        except StateError as trouble:
            self._health.trouble(trouble.message, "StateError")
        if error is not None:
            self._went_back(lane, manifest.name, manifest.version, error)

    def _went_back(self, lane: Lane, name: str, version: int, error: TrialError) -> None:
        now = lane.model.manifest.version
        channel = lane.config.channel
        if now == version:
            if lane.stopped:
                self._health.note_state(
                    f"model {channel}", f"{name} {version}: {error.message}, and it lets no version before it be served"
                )
            self._health.trouble(
                f"model {name} {version}: {error.message}, and there is no version to go back to",
                name,
                Event.TRIAL_FAILED,
                model=name,
                version=version,
                channel=channel,
            )
            self._add("refuse", channel=channel, why="TrialError", detail=f"{name} {version}: {error.message}")
            return
        _LOG.error(
            "model %s %d: %s; version %d answers again",
            name,
            version,
            error.message,
            now,
            extra=Event.ROLLED_BACK.about(model=name, version=version, channel=channel),
        )
        self._health.last_error = f"model {name} {version}: {error.message}; version {now} answers again"
        self._live[channel] = (name, now, lane.model.identity.hex())
        self._add("roll-back", channel=channel, model=name, version=now, before=version, why=error.message)
