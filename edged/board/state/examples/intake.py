"""What a daemon adds to the store, bounded in bytes for each model."""

from __future__ import annotations

from collections.abc import Sequence

from edged.base.errors import EdgedError, StateError
from edged.board.state.examples.edit import EVERY
from edged.board.state.examples.eviction import Group, plan
from edged.board.state.examples.keys import Of
from edged.board.state.examples.store import Examples, Window

_LINGERS = 600 * 10**6
"""Microseconds for which a daemon may hold what it has not stored: what seems older is of a clock that was set."""

_ROOM = 16
"""A store that is full is emptied by a share of so many: to make room for each window alone would wear a card out."""


class Intake:
    """Adds windows; which others give way says :mod:`edged.board.state.examples.eviction`.

    :ivar sizes: sealed bytes by model, as far as they were asked for.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self._seen = -1
        self.sizes: dict[str, int] = {}

    def add(self, of: Of, windows: Sequence[Window], most: int) -> int:
        """Store windows, so that there are at most ``most`` bytes of the model; return how many.

        Left out is what an operator erased before it came here, and what is larger than ``most`` by itself.

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
        """As :meth:`add`; None where the key was erased meanwhile: the next call makes another."""
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
        """Return the bytes of a model's windows; they are added up anew only after another process has written."""
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
        """Seal keys to the board's present key where a former one opens them; what none opens stays as it is.

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
