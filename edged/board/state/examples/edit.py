"""What an operator does to stored windows: label them, erase them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from edged.base.errors import StateError
from edged.base.files import erase
from edged.board.state.examples.keys import Of
from edged.board.state.examples.store import NAME, Examples, StoredKey

EVERY = ""
"""Stands for every model in the table of what was erased."""


class Which(NamedTuple):
    """Which windows are erased: all that match what is not None.

    :ivar label: of windows that ``chain`` prepared: another one may number labels otherwise.
    :ivar before: Unix microseconds.
    """

    model: str | None = None
    chain: bytes | None = None
    label: int | None = None
    before: int | None = None

    @property
    def is_partial(self) -> bool:
        """Whether windows under the same key may stay."""
        return self.label is not None or self.before is not None


class ExampleEditor:
    """Changes stored windows; a daemon may go on adding others."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def label(self, of: Of, since: int, until: int, label: int | None) -> tuple[int, int]:
        """Give windows of a time (Unix microseconds, both ends included) a label, or take it away.

        They are sealed anew, because their label is bound to them. Return how many have it now, and how many do not
        open.

        :raises StateError: nothing was changed.
        """
        labelled, unreadable = 0, 0
        with self._changing():
            for stored in self._examples.stored_keys(of.model):
                if stored.of == of:
                    rows = list(self._examples.rows(stored.number, since, until))
                    lost = self._examples.reseal(stored, [(row, label) for row in rows if row.label != label])
                    labelled += len(rows) - lost
                    unreadable += lost
            self._examples.drop_keys()
        return labelled, unreadable

    def erase(self, which: Which) -> int:
        """Remove windows for good, and every key that sealed one of them; return how many there were.

        What else was sealed under such a key is sealed anew. What a daemon has taken and not stored yet goes, too.

        :raises StateError: they are still there; or they are gone, and another process keeps their sealed bytes from
            being overwritten: the message says so.
        """
        gone = 0
        with self._changing():
            for stored in self._examples.stored_keys(which.model):
                if which.chain in {None, stored.of.chain}:
                    gone += self._erase_under(stored, which)
            if which.label is None:
                before = time.time_ns() // 1000 if which.before is None else which.before
                row = (which.model or EVERY, before)
                self._examples.db.execute("INSERT OR REPLACE INTO erased VALUES (?, ?)", row)
        self._overwrite()
        return gone

    def _erase_under(self, stored: StoredKey, which: Which) -> int:
        """Erase windows under one key, and the key with them."""
        examples, db, key = self._examples, self._examples.db, stored.number
        gone = db.execute(
            "DELETE FROM example WHERE key = ?1 AND (?2 IS NULL OR label = ?2) AND (?3 IS NULL OR at < ?3)",
            (key, which.label, which.before),
        ).rowcount
        if gone or not which.is_partial:
            examples.reseal(stored, [(row, row.label) for row in list(examples.rows(key))])
            db.execute("DELETE FROM example WHERE key = ?", (key,))  # what does not open any more
            db.execute("DELETE FROM example_key WHERE number = ?", (key,))
        return int(gone)

    def _overwrite(self) -> None:
        """Leave nothing of what was removed in the file, its log, or a damaged one that was put aside."""
        examples = self._examples
        with examples.wrapped():
            examples.db.execute("VACUUM")
            (busy, _, _) = examples.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        erase(examples.directory / f"{NAME}.damaged")
        if busy:
            raise StateError(
                f"{examples.directory / NAME}: erased, but another process is reading, and the log beside it still"
                " holds sealed bytes",
                hint="once more, when that process is done",
            )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change stored windows at once; what is sealed meanwhile comes under fresh keys."""
        self._examples.forget_sealers()
        with self._examples.transaction():
            yield
