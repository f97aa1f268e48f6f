"""Changes to stored examples: a daemon adds windows and evicts others, an operator labels and erases them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from edged.base.errors import EdgedError, StateError
from edged.base.files import erase
from edged.board.examples.keys import Of
from edged.board.examples.store import NAME, Examples, StoredKey, Window

_LINGERS = 600 * 10**6
"""Microseconds that a daemon may hold windows before it stores them: an older time is of a clock that was set."""

_ROOM = 16
"""A full store frees this fraction at once: making room for each window alone would wear a card out."""


class Intake:
    """Adds windows; :func:`plan` says which others give way.

    :ivar sizes: sealed bytes by model, as far as they are known.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self._seen = -1
        self.sizes: dict[str, int] = {}

    def add(self, of: Of, windows: Sequence[Window], most: int) -> int:
        """Store windows, with at most ``most`` bytes of the model; return the number of stored windows.

        Windows that an operator has erased meanwhile are left out, and those larger than ``most`` by themselves.

        :raises StateError: nothing was stored.
        :raises KeystoreError: likewise: the board's key cannot be used.
        """
        if not windows:
            return 0
        try:
            added = self._add(of, windows, most)
            if added is None:
                added = self._add(of, windows, most)
        except EdgedError:
            self.sizes.clear()
            raise
        if added is None:
            raise StateError("the key that windows are sealed under was erased twice in a moment")
        return added

    def _add(self, of: Of, windows: Sequence[Window], most: int) -> int | None:
        """As :meth:`add`; None if the key was erased meanwhile: the next call makes another."""
        examples = self._examples
        db = examples.db
        key, sealer = examples.sealer(of)
        sealed = [(one, sealer.seal(of, *one)) for one in windows]
        with examples.transaction():
            if not db.execute("SELECT 1 FROM example_key WHERE number = ?", (key,)).fetchone():
                examples.forget_sealers(of)
                return None
            marks = db.execute("SELECT before FROM erased WHERE model IN (?, ?)", (of.model, EVERY)).fetchall()
            rows = [(key, one.label, one.at, len(made), made) for one, made in sealed if not _is_erased(one, marks)]
            added = sum(len(made) for *_, made in rows)
            while added > most:
                added -= len(rows.pop(0)[-1])
            before = self._size(of.model)
            if before + added > most:
                self._make_room(of, before + added - (most - most // _ROOM))
                before = self._size(of.model)
            db.executemany("INSERT INTO example (key, label, at, size, sealed) VALUES (?, ?, ?, ?, ?)", rows)
        self.sizes[of.model] = before + added
        return len(rows)

    def _size(self, model: str) -> int:
        """Return the bytes of a model's windows; they are added up again only after another process has written."""
        db = self._examples.db
        (seen,) = db.execute("PRAGMA data_version").fetchone()
        if seen != self._seen:
            self._seen = seen
            self.sizes.clear()
        if model not in self.sizes:
            (size,) = db.execute(
                "SELECT coalesce(sum(size), 0) FROM example JOIN example_key k ON k.number = key WHERE model = ?",
                (model,),
            ).fetchone()
            self.sizes[model] = int(size)
        return self.sizes[model]

    def _make_room(self, of: Of, excess: int) -> None:
        db = self._examples.db
        found = db.execute(
            "SELECT chain = ?, label, count(*), sum(size) FROM example JOIN example_key k ON k.number = key"
            " WHERE model = ? GROUP BY 1, 2",
            (of.chain, of.model),
        ).fetchall()
        groups = [Group(bool(usable), label, windows, size) for usable, label, windows, size in found]
        for group, count in zip(groups, plan(groups, excess), strict=True):
            if count:
                db.execute(
                    "DELETE FROM example WHERE number IN (SELECT e.number FROM example e JOIN example_key k"
                    " ON k.number = key WHERE model = ? AND (chain = ?) = ? AND label IS ? ORDER BY at LIMIT ?)",
                    (of.model, of.chain, group.usable, group.label, count),
                )
        self._examples.drop_keys()
        del self.sizes[of.model]

    def renew_keys(self) -> None:
        """Seal keys to the board's present key if a former one opens them; others stay as they are.

        :raises StateError: they cannot be written.
        """
        for stored in self._examples.stored_keys():
            try:
                renewed = self._examples.keys.renewed(stored.signed, stored.of)
            except EdgedError:  # its windows are left out when they are loaded, and counted there
                continue
            if renewed is not None:
                with self._examples.wrapped():
                    self._examples.db.execute(
                        "UPDATE example_key SET signed = ? WHERE number = ?", (renewed, stored.number)
                    )


def _is_erased(window: Window, marks: Sequence[tuple[int]]) -> bool:
    return any(mark - _LINGERS <= window.at < mark for (mark,) in marks)


class Group(NamedTuple):
    """Stored windows of one model that are alike.

    :ivar usable: True if the present chain of the model prepared them.
    :ivar label: None for none.
    :ivar windows: how many, of ``size`` bytes in all.
    """

    usable: bool
    label: int | None
    windows: int
    size: int


def plan(groups: Sequence[Group], excess: int) -> list[int]:
    """Return how many windows of each group give way to new ones, so that ``excess`` bytes do, or all.

    Windows that another signal chain prepared go first: nothing can be trained with them. Then the oldest of the label
    that has the most windows, so that a rare label is not washed out by a frequent one; windows without a label are one
    more such label, so that a store full of labelled ones goes on taking what an operator has not seen yet. Windows of
    one group count as of one size, which they are.
    """
    left = [group.windows for group in groups]
    while excess > 0 and any(left):
        alive = [at for at, count in enumerate(left) if count]
        at = max(alive, key=lambda at: _turn(groups[at], left[at]))
        each = groups[at].size / groups[at].windows
        wanted = math.ceil(excess / each)
        rivals = [left[other] for other in alive if other != at and groups[other].usable]
        lead = left[at] - max(rivals, default=0) if groups[at].usable else left[at]
        gone = min(left[at], wanted, max(lead, math.ceil(wanted / len(alive))))
        left[at] -= gone
        excess -= math.floor(gone * each)
    return [group.windows - count for group, count in zip(groups, left, strict=True)]


def _turn(group: Group, left: int) -> tuple[bool, int, bool, int]:
    """Return the sort key of a group: the largest gives way first."""
    unlabelled = group.label is None
    return (not group.usable, left, unlabelled, 0 if group.label is None else -group.label)


EVERY = ""
"""Stands for every model in the table ``erased``."""


class Which(NamedTuple):
    """A selection of windows to erase: all that match the fields that are not None.

    :ivar label: of windows that ``chain`` prepared: another one may number labels otherwise.
    :ivar before: Unix microseconds.
    """

    model: str | None = None
    chain: bytes | None = None
    label: int | None = None
    before: int | None = None

    @property
    def is_partial(self) -> bool:
        """True if windows under the same key may stay."""
        return self.label is not None or self.before is not None


class ExampleEditor:
    """Changes stored windows; a daemon may go on adding others."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def label(self, of: Of, since: int, until: int, label: int | None) -> tuple[int, int]:
        """Label the windows of a time span (Unix microseconds, both ends included), or remove their labels.

        They are sealed again, because the label is bound to the window. Return the number of windows that now have the
        label, and of those that do not open.

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
        """Erase windows, and every key that sealed one of them; return the number of windows.

        Other windows under such a key are sealed again. Windows that a daemon has not stored yet go, too.

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
        """Overwrite removed windows in the file, its log, and a damaged file that was renamed."""
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
        """Change stored windows in one transaction; windows sealed meanwhile get fresh keys."""
        self._examples.forget_sealers()
        with self._examples.transaction():
            yield
