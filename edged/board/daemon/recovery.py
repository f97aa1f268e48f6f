"""State across runs and failures: how the last run ended, the way back from a failing disk, replay marks.

Replay marks are written to ``$RUNTIME_DIRECTORY``, which is RAM, at each change, and to ``state.db`` now and then. So a
crash of the daemon reopens nothing, a power cut reopens the last seconds, and a card is spared.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from edged.base.errors import EdgedError, StateError, advice
from edged.base.events import Event
from edged.base.files import SHARED_FILE, write_atomically
from edged.base.lock import Lock
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

    :param lock: on the directory.
    :ivar on_new_state: steps to write into a new state what the daemon knows, after the old one was damaged.
    :ivar crashes: number of runs in a row, up to this one, that ended without a shutdown.
    :ivar lost: windows of rows that were lost in the last crash.
    """

    def __init__(self, directory: Path, lock: Lock, health: Health) -> None:
        self.state, why = open_state(directory)
        self.crashes = self.lost = 0
        self.on_new_state: tuple[Callable[[], None], ...] = ()
        self._lock = lock
        self._health = health
        self._failing = self.state.in_memory
        self._retry_at = 0.0
        self._steps: deque[Callable[[], None]] = deque()
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
        lock.note(self.state.files)
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

    def watch(self) -> None:
        """Return to the disk once it can be written; write the state anew where its files are damaged or replaced."""
        now = time.monotonic()
        if now < self._retry_at:
            return
        try:
            if self.state.in_memory or self.state.damaged or self._steps or self.state.is_replaced():
                self._retry_at = now + _RETRY_SECONDS
                self._mend()
                self._retry_at = 0.0
            self._lock.renew()
            self._lock.note(self.state.files)
        except EdgedError as error:
            self._note_failing(f"nothing is durable: {advice(error)}")
            return
        if self._failing:
            self._failing = False
            self._health.note_state("state", "")

    def _mend(self) -> None:
        state = self.state
        if state.in_memory:
            state.write_back()
        elif state.damaged:
            self._note_failing("a damaged state.db is put aside, and a new one begun")
            self._steps = deque(self.on_new_state)
            state.start_over()
        elif state.is_replaced():
            self._note_failing(f"{state.path} was removed or replaced: all that it held is written to a new one")
            state.start_over()
        while self._steps:
            self._steps[0]()
            self._steps.popleft()

    def _note_failing(self, why: str) -> None:
        self._failing = True
        self._health.note_state("state", why)


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
        self._changed = False

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
        """Write changed marks to the directory in RAM.

        :raises OutputError: it cannot be written; it is tried again with the next call.
        """
        self._take_settled()
        if self._path is not None and self._changed:
            data = cbor.encode([[*key, count] for key, count in self.guard.settled().items()])
            write_atomically(self._path, [data], mode=SHARED_FILE, replace=True, durable=False)
            self._changed = False

    def save(self) -> None:
        """Write changed marks to ``state.db``.

        :raises StateError: it cannot be written; it is tried again with the next call.
        """
        self._take_settled()
        if self._unsaved:
            self._state.save_marks(self._unsaved.items())
            self._unsaved.clear()

    def _take_settled(self) -> None:
        settled = self.guard.take_settled()
        self._unsaved.update(settled)
        self._changed = self._changed or bool(settled)

    def write_down(self) -> None:
        """Write all marks to ``state.db``, which is a new one.

        :raises StateError: it cannot be written.
        """
        self._state.save_marks(self.guard.settled().items())
