"""State across runs and failures: how the last run ended, the way back from a failing disk, replay marks.

Replay marks are written to ``$RUNTIME_DIRECTORY``, which is RAM, at each change, and to ``state.db`` now and then. So a
crash of the daemon reopens nothing, a power cut reopens the last seconds, and a card is spared.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edged.base.errors import EdgedError, OutputError, StateError
from edged.base.events import Event
from edged.base.files import SHARED_FILE, write_atomically
from edged.base.nothing import nothing
from edged.base.notify import runtime_directory
from edged.board.health import Health
from edged.board.state import State, open_state
from edged.formats.channel import MarkKey
from edged.formats.channel.reading import ReplayGuard
from edged.formats.cose import cbor

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 10.0
_RUNNING, _CRASHES, _OPEN_WINDOWS = "running", "crashes", "open-windows"


class StateRecovery:
    """Opens the state, keeps it usable, and notes how runs end.

    :param on_new_state: called after a damaged state was replaced while the daemon runs.
    :ivar crashes: number of runs in a row, up to this one, that ended without a shutdown.
    :ivar lost: windows of rows that were lost in the last crash.
    """

    def __init__(self, directory: Path, health: Health) -> None:
        self.state, why = open_state(directory)
        self.crashes = self.lost = 0
        self.on_new_state: Callable[[], None] = nothing
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
        """Reset the count of crashes: this run is stable."""
        self._attempt(_CRASHES, 0)

    def note_open_windows(self, count: int) -> None:
        """Note the number of windows that a crash would lose, if it has changed."""
        if count != self._open_windows:
            self._open_windows = count
            self._attempt(_OPEN_WINDOWS, count)

    def end(self) -> None:
        """Note a clean end of this run, and close the state."""
        self._attempt(_CRASHES, 0)
        self._attempt(_RUNNING, 0)
        self.state.close()

    def _attempt(self, name: str, value: int) -> None:
        try:
            self._note(name, value)
        except StateError as error:
            self._health.trouble(error.message, "StateError")

    def mend_if_due(self) -> None:
        """Return to the disk once it can be written again; replace a damaged state."""
        now = time.monotonic()
        if not (self.state.in_memory or self.state.damaged) or now < self._retry_at:
            return
        self._retry_at = now + _RETRY_SECONDS
        try:
            if self.state.damaged:
                self.state.start_over()
                self._health.trouble("a damaged state.db was put aside and a new one begun", "state")
                self.on_new_state()
            elif self.state.in_memory:
                self.state.write_back()
        except StateError as error:
            self._health.note_state("state", f"nothing is durable: {error.message}")
            return
        self._health.note_state("state", "")


_NAME = "marks"
_LIMITS = cbor.Limits(size=4 * 1024 * 1024, depth=4, items=400_000)
_FIELDS = 5


class ReplayMarks:
    """Loads and saves the settled counts of a replay guard.

    :ivar in_ram: True if there is a directory in RAM, so that the disk may be written seldom.
    :ivar guard: a guard with all saved marks.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        directory = runtime_directory()
        self._path = None if directory is None else directory / _NAME
        self.in_ram = self._path is not None
        marks = state.marks()
        for key, count in self._load():
            marks[key] = max(count, marks.get(key, 0))
        self.guard = ReplayGuard(marks)
        self._unsaved: dict[MarkKey, int] = {}

    def _load(self) -> list[tuple[MarkKey, int]]:
        if self._path is None:
            return []
        try:
            found = cbor.decode(self._path.read_bytes(), _LIMITS)
        except (OSError, EdgedError):
            return []
        return [
            (MarkKey(*one[:4]), one[4])
            for one in (found if isinstance(found, list) else [])
            if isinstance(one, list) and len(one) == _FIELDS and isinstance(one[4], int)
        ]

    def save_in_ram(self) -> None:
        """Write changed marks to the directory in RAM."""
        settled = self.guard.take_settled()
        if not settled:
            return
        self._unsaved.update(settled)
        if self._path is not None:
            data = cbor.encode([[*key, count] for key, count in self.guard.settled().items()])
            with suppress(OutputError):  # full, or gone: the disk has them in a moment
                write_atomically(self._path, [data], mode=SHARED_FILE, replace=True, durable=False)

    def save(self) -> None:
        """Write changed marks to ``state.db``.

        :raises StateError: it cannot be written; it is tried again with the next call.
        """
        self.save_in_ram()
        if self._unsaved:
            self._state.save_marks(self._unsaved.items())
            self._unsaved.clear()
