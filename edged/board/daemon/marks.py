"""Replay marks between runs: in ``$RUNTIME_DIRECTORY``, which is RAM, at each change; in ``state.db`` now and then.

A crash of the daemon reopens nothing then, and a power cut the last seconds, without wearing a card.
"""

from __future__ import annotations

from contextlib import suppress

from edged.base.errors import EdgedError, OutputError
from edged.base.files import SHARED_FILE, write_atomically
from edged.base.notify import runtime_directory
from edged.board.state import State
from edged.formats.channel.reading import MarkKey, ReplayGuard
from edged.formats.cose import cbor

_NAME = "marks"
_LIMITS = cbor.Limits(size=4 * 1024 * 1024, depth=4, items=400_000)
_FIELDS = 5


class Marks:
    """Loads and saves what a guard has settled.

    :ivar in_ram: whether there is a directory in RAM, so that the disk may be written seldom.
    :ivar guard: made from all that was saved.
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
        """Write what has changed to the directory in RAM."""
        settled = self.guard.take_settled()
        if not settled:
            return
        self._unsaved.update(settled)
        if self._path is not None:
            data = cbor.encode([[*key, count] for key, count in self.guard.settled().items()])
            with suppress(OutputError):  # full, or gone: the disk has them in a moment
                write_atomically(self._path, [data], mode=SHARED_FILE, replace=True, durable=False)

    def save(self) -> None:
        """Write what has changed to ``state.db``.

        :raises StateError: it cannot be written; it is tried again with the next call.
        """
        self.save_in_ram()
        if self._unsaved:
            self._state.save_marks(self._unsaved.items())
            self._unsaved.clear()
