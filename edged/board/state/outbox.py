"""Sealed results that wait for their broker, and the epochs that they came under."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from edged.base.database import Database
from edged.formats.channel.epoch import StoredEpoch


class Stored(NamedTuple):
    """A sealed result that waits.

    :ivar kid: id of the key that sealed it, ``counter``: its count under that key.
    :ivar stored: Unix seconds; 0 where the clock was not known to be right, and so no age is known.
    """

    number: int
    kid: bytes
    counter: int
    topic: str
    message: bytes
    stored: float


class OutboxStore:
    """The outbox's tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, results: Sequence[Stored], epochs: Iterable[StoredEpoch]) -> list[int]:
        """Store results, in one transaction; return the numbers that they got. Their own are passed over."""
        with self._database.transaction():
            db = self._database.db
            db.executemany("INSERT OR IGNORE INTO outbox_epoch VALUES (?, ?, ?, ?, ?, ?)", epochs)
            return [
                int(
                    db.execute(
                        "INSERT INTO outbox (kid, count, topic, message, stored) VALUES (?, ?, ?, ?, ?)"
                        " RETURNING number",
                        one[1:],
                    ).fetchone()[0]
                )
                for one in results
            ]

    def after(self, number: int, limit: int) -> list[Stored]:
        """Return up to ``limit`` results, the oldest first, from behind ``number``."""
        with self._database.wrapped():
            rows = self._database.db.execute(
                "SELECT number, kid, count, topic, message, stored FROM outbox WHERE number > ?"
                " ORDER BY number LIMIT ?",
                (number, limit),
            ).fetchall()
        return [Stored(*row) for row in rows]

    def remove(self, numbers: Collection[int]) -> None:
        """Remove results, and the epochs that none is left of, in one transaction."""
        with self._database.transaction():
            db = self._database.db
            db.executemany("DELETE FROM outbox WHERE number = ?", [(number,) for number in numbers])
            db.execute("DELETE FROM outbox_epoch WHERE NOT EXISTS (SELECT 1 FROM outbox)")

    def drop(self, behind: int, excess: int, before: float) -> list[tuple[int, bytes, int]]:
        """Remove the oldest results from behind a number; return number, key id and bytes of each.

        :param excess: remove at least so many bytes, if there are.
        :param before: remove what is older, Unix seconds.
        """
        with self._database.transaction():
            db = self._database.db
            rows = db.execute(
                "SELECT number, kid, length(message), stored FROM outbox WHERE number > ? ORDER BY number", (behind,)
            )
            dropped: list[tuple[int, bytes, int]] = []
            for number, kid, size, stored in rows:
                if excess <= 0 and not 0 < stored < before:
                    break
                excess -= size
                dropped.append((number, kid, size))
            rows.close()
            if dropped:
                db.execute("DELETE FROM outbox WHERE number > ? AND number <= ?", (behind, dropped[-1][0]))
        return dropped

    def totals(self) -> tuple[int, int]:
        """Return how many results there are, and their bytes."""
        with self._database.wrapped():
            count, size = self._database.db.execute(
                "SELECT count(*), coalesce(sum(length(message)), 0) FROM outbox"
            ).fetchone()
        return int(count), int(size)

    def newest(self) -> int:
        """Return the highest number; 0 if there is none."""
        with self._database.wrapped():
            (number,) = self._database.db.execute("SELECT coalesce(max(number), 0) FROM outbox").fetchone()
        return int(number)

    def epochs(self) -> list[tuple[StoredEpoch, int, int]]:
        """Return the epochs that results came under, the newest first: each with its last count and its results."""
        with self._database.wrapped():
            rows = self._database.db.execute(
                "SELECT e.kid, e.number, commitment, aead, signs, key, max(count), count(*)"
                " FROM outbox_epoch e JOIN outbox o ON o.kid = e.kid GROUP BY e.kid ORDER BY e.number DESC"
            ).fetchall()
        return [
            (StoredEpoch(kid, number, commitment, aead, bool(signs), key), last, count)
            for kid, number, commitment, aead, signs, key, last, count in rows
        ]
