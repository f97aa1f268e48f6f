"""The state across runs and troubles: how the last run ended, and the way back from a disk that fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from edged.base.errors import StateError
from edged.base.events import Event
from edged.base.nothing import nothing
from edged.board.daemon.health import Health
from edged.board.state import open_state

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 10.0
_RUNNING, _CRASHES, _OPEN_WINDOWS = "running", "crashes", "open-windows"


class Durable:
    """Opens the state and keeps it usable.

    :param on_anew: called after a damaged state was begun anew while the daemon runs: to write down what it knows.
    :ivar crashes: how many runs in a row, up to this one, ended without a goodbye.
    :ivar lost: windows of rows that the last crash took.
    """

    def __init__(self, directory: Path, health: Health) -> None:
        self.state, why = open_state(directory)
        self.crashes = self.lost = 0
        self.on_anew: Callable[[], None] = nothing
        self._health = health
        self._retry_at = 0.0
        self._open_windows = 0
        if why:
            health.note_state("state", why)
            health.last_error = why
        try:
            if self.state.fact(_RUNNING):
                self.crashes = self.state.fact(_CRASHES) + 1
                self.lost = self.state.fact(_OPEN_WINDOWS)
            self._note(_CRASHES, self.crashes)
            self._note(_RUNNING, 1)
            self._note(_OPEN_WINDOWS, 0)
        except StateError as error:
            health.trouble(error.message, "StateError")
        health.lost = self.lost
        if self.crashes:
            _LOG.warning(
                "the run before ended without a goodbye (%d in a row); rows of %d windows were lost with it",
                self.crashes,
                self.lost,
                extra=Event.UNCLEAN_END.about(),
            )

    def _note(self, name: str, value: int) -> None:
        self.state.note(name, value)

    def calm(self) -> None:
        """Note that this run does not end as the last one did."""
        self._attempt(_CRASHES, 0)

    def note_open_windows(self, count: int) -> None:
        """Note how many windows of rows a crash would take, where that has changed."""
        if count != self._open_windows:
            self._open_windows = count
            self._attempt(_OPEN_WINDOWS, count)

    def end(self) -> None:
        """Note that this run ends as it should, and close the state."""
        self._attempt(_CRASHES, 0)
        self._attempt(_RUNNING, 0)
        self.state.close()

    def _attempt(self, name: str, value: int) -> None:
        try:
            self._note(name, value)
        except StateError as error:
            self._health.trouble(error.message, "StateError")

    def mend_if_due(self) -> None:
        """Go back to the disk once it can be written again; begin a damaged state anew."""
        now = time.monotonic()
        if not (self.state.in_memory or self.state.damaged) or now < self._retry_at:
            return
        self._retry_at = now + _RETRY_SECONDS
        try:
            if self.state.damaged:
                self.state.begin_anew()
                self._health.trouble("a damaged state.db was put aside and a new one begun", "state")
                self.on_anew()
            elif self.state.in_memory:
                self.state.write_back()
        except StateError as error:
            self._health.note_state("state", f"nothing is durable: {error.message}")
            return
        self._health.note_state("state", "")
