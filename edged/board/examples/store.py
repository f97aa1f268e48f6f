"""``examples.db``: windows that stay on a board to train its models with (SQLite, WAL), each sealed by itself.

This file reads and seals; ``keys`` makes the keys, ``edits`` adds, evicts, labels and erases.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from edged.base.database import Database, Layout
from edged.base.errors import EdgedError, FormatError, StateError, TrustError
from edged.board.examples.keys import Of, Sealer, StoreKeys, open_window
from edged.formats.cose.keys import ContentKey

if TYPE_CHECKING:  # a command that only counts has no numpy in memory
    import numpy as np
    import numpy.typing as npt

NAME = "examples.db"
EXAMPLES = Layout(
    NAME,
    1,
    """
CREATE TABLE IF NOT EXISTS example_key (
    number INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, chain BLOB NOT NULL, signed BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS example (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key INTEGER NOT NULL, label INTEGER, at INTEGER NOT NULL,
    size INTEGER NOT NULL, sealed BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS example_class ON example (key, label, at, size);
CREATE TABLE IF NOT EXISTS erased (
    model TEXT PRIMARY KEY, before INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS fact (
    name TEXT PRIMARY KEY, value INTEGER NOT NULL
) STRICT;
""",
)
UNLABELLED, OLD_CHAIN, UNREADABLE, MISFIT = "no label", "older chain", "unreadable", "another size"
"""Reasons to leave out stored windows when loading."""

_FLOAT32 = 4


class Window(NamedTuple):
    """A window as the model received it.

    :ivar label: its number; None for none, or none yet.
    :ivar at: Unix microseconds, by the board's clock.
    :ivar values: float32, little-endian.
    """

    label: int | None
    at: int
    values: bytes


class Class(NamedTuple):
    """Stored windows that share model, chain and label.

    :ivar windows: number of windows, of ``size`` sealed bytes in all.
    :ivar first: when the first and the ``last`` came, Unix microseconds.
    """

    model: str
    chain: bytes
    label: int | None
    windows: int
    size: int
    first: int
    last: int


class Like(NamedTuple):
    """The model to train.

    :ivar chain: its :func:`~edged.formats.spec.fingerprint`.
    :ivar shape: of one window, as the model takes it.
    :ivar labels: number of labels; 0 if the model must reproduce the window itself.
    """

    chain: bytes
    shape: tuple[int, ...]
    labels: int


class LoadedExamples(NamedTuple):
    """Windows in RAM, the oldest first.

    :ivar x: float32 [n, shape of a window].
    :ivar y: float32 [n, labels], 1 at the label; ``x`` itself where there are no labels.
    :ivar left_out: number of windows left out, by reason.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    left_out: Counter[str]


class Row(NamedTuple):
    """A window as it is stored, ``at`` in Unix microseconds."""

    number: int
    label: int | None
    at: int
    sealed: bytes


class StoredKey(NamedTuple):
    """A key as it is stored: see :mod:`edged.board.examples.keys`."""

    number: int
    of: Of
    signed: bytes


class Examples(Database):
    """The store of examples.

    Training runs in another process of the same user, and reads while the daemon writes. The file shows in plain the
    number of windows of each model, their times, and which of them share a label (by its number). Commits are not
    synchronous: a power cut takes the last seconds, and a card is spared.

    :param keys: None if windows are neither opened nor sealed.
    """

    layout: ClassVar[Layout] = EXAMPLES

    def __init__(self, directory: Path, keys: StoreKeys | None) -> None:
        self._keys = keys
        self._sealers: dict[Of, tuple[int, Sealer]] = {}
        super().__init__(directory)

    @staticmethod
    def exists(directory: Path) -> bool:
        """Return True if a board has ever kept a window there."""
        return os.path.lexists(directory / NAME)

    def _prepare(self) -> None:
        self.db.execute("PRAGMA secure_delete = ON")
        super()._prepare()
        self.db.execute("PRAGMA synchronous = NORMAL")

    @property
    def keys(self) -> StoreKeys:
        """Opens and makes keys.

        :raises StateError: the store was opened without.
        """
        if self._keys is None:
            raise StateError(f"{self.path}: opened without the board's keys")
        return self._keys

    def classes(self) -> list[Class]:
        """Return the stored classes, by model, chain and label."""
        with self.wrapped():
            rows = self.db.execute(
                "SELECT model, chain, label, count(*), sum(size), min(at), max(at)"
                " FROM example JOIN example_key k ON k.number = key"
                " GROUP BY model, chain, label ORDER BY model, min(k.number), label"
            ).fetchall()
        return [Class(*row) for row in rows]

    def load(self, model: str, like: Like) -> LoadedExamples:
        """Load the windows of a model into RAM.

        :raises StateError: the store cannot be read.
        """
        import numpy as np  # noqa: PLC0415  see above

        left_out: Counter[str] = Counter()
        size = _FLOAT32 * math.prod(like.shape)
        found: list[tuple[int, int, bytes]] = []
        for row, values in self._opened(model, like.chain, left_out):
            if like.labels and row.label is None:
                left_out[UNLABELLED] += 1
            elif len(values) != size or (like.labels and not 0 <= (row.label or 0) < like.labels):
                left_out[MISFIT] += 1
            else:
                found.append((row.at, row.label or 0, values))
        found.sort(key=lambda one: one[0])
        x = np.empty((len(found), *like.shape), np.float32)
        for at, (_, _, values) in enumerate(found):
            x[at] = np.frombuffer(values, "<f4").reshape(like.shape)
        if not like.labels:
            return LoadedExamples(x, x, left_out)
        y = np.zeros((len(found), like.labels), np.float32)
        y[np.arange(len(found)), [label for _, label, _ in found]] = 1
        return LoadedExamples(x, y, left_out)

    def _opened(self, model: str, chain: bytes, left_out: Counter[str]) -> Iterator[tuple[Row, bytes]]:
        """Yield windows with their values; count those that another chain prepared, or that do not open."""
        for stored in self.stored_keys(model):
            if stored.of.chain != chain:
                left_out[OLD_CHAIN] += self._count(stored.number)
                continue
            try:
                key = self.keys.open(stored.signed, stored.of)
            except EdgedError:  # altered, another board's, or its private key is gone
                left_out[UNREADABLE] += self._count(stored.number)
                continue
            for row in self.rows(stored.number):
                values = opened(key, stored.of, row)
                if values is None:
                    left_out[UNREADABLE] += 1
                else:
                    yield row, values

    def _count(self, key: int) -> int:
        with self.wrapped():
            (count,) = self.db.execute("SELECT count(*) FROM example WHERE key = ?", (key,)).fetchone()
        return int(count)

    # --- for `edits`

    def stored_keys(self, model: str | None = None) -> list[StoredKey]:
        """Return the keys of a model, or all, the oldest first."""
        with self.wrapped():
            rows = self.db.execute(
                "SELECT number, model, chain, signed FROM example_key WHERE ?1 IS NULL OR model = ?1 ORDER BY number",
                (model,),
            ).fetchall()
        return [StoredKey(number, Of(name, chain), signed) for number, name, chain, signed in rows]

    def rows(self, key: int, since: int = 0, until: int = (1 << 63) - 1) -> Iterator[Row]:
        """Yield the windows under a key that came in a time (Unix microseconds, both ends included)."""
        with self.wrapped():
            for row in self.db.execute(
                "SELECT number, label, at, sealed FROM example WHERE key = ? AND at BETWEEN ? AND ?",
                (key, since, until),
            ):
                yield Row(*row)

    def sealer(self, of: Of) -> tuple[int, Sealer]:
        """Return a sealer for windows, and the number of its key: a fresh key of this process."""
        found = self._sealers.get(of)
        if found is None:
            key, signed = self.keys.make(of)
            with self.wrapped():
                (number,) = self.db.execute(
                    "INSERT INTO example_key (model, chain, signed) VALUES (?, ?, ?) RETURNING number", (*of, signed)
                ).fetchone()
            found = self._sealers[of] = (int(number), Sealer(key))
        return found

    def forget_sealers(self, *which: Of) -> None:
        """Seal under other keys from now on; default: all."""
        for of in which or tuple(self._sealers):
            del self._sealers[of]

    def reseal(self, stored: StoredKey, rows: Sequence[tuple[Row, int | None]]) -> int:
        """Seal windows under a key of this process, with these labels; return the number of those that do not open."""
        if not rows:
            return 0
        try:
            key = self.keys.open(stored.signed, stored.of)
        except (FormatError, TrustError):
            return len(rows)
        number, sealer = self.sealer(stored.of)
        made = []
        for row, label in rows:
            values = opened(key, stored.of, row)
            if values is not None:
                sealed = sealer.seal(stored.of, label, row.at, values)
                made.append((number, label, len(sealed), sealed, row.number))
        self.db.executemany("UPDATE example SET key = ?, label = ?, size = ?, sealed = ? WHERE number = ?", made)
        return len(rows) - len(made)

    def drop_keys(self) -> None:
        """Destroy the keys of no window, except those of this process."""
        own = {number for number, _ in self._sealers.values()}
        unused = self.db.execute(
            "SELECT number FROM example_key k WHERE NOT EXISTS (SELECT 1 FROM example WHERE key = k.number)"
        ).fetchall()
        gone = [(number,) for (number,) in unused if number not in own]
        self.db.executemany("DELETE FROM example_key WHERE number = ?", gone)


def opened(key: ContentKey, of: Of, row: Row) -> bytes | None:
    """Return the values of a window; None if it was altered."""
    try:
        return open_window(key, of, row.label, row.at, row.sealed)
    except (FormatError, TrustError):
        return None
