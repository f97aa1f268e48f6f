"""The tables of delivery in ``state.db``: results for the broker, readings of open windows, messages in quarantine."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Sequence
from typing import NamedTuple

from edged.base.database import Database
from edged.formats.channel import StoredEpoch


class StoredResult(NamedTuple):
    """A sealed result in the outbox.

    :ivar kid: id of the key that sealed it, ``counter``: its count under that key.
    :ivar stored: Unix seconds; 0 if the clock was not known to be right: its age is unknown.
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

    def add(self, results: Sequence[StoredResult], epochs: Iterable[StoredEpoch]) -> list[int]:
        """Store results, in one transaction; return their new numbers. Their own numbers are ignored."""
        with self._database.transaction():
            db = self._database.db
            db.executemany("INSERT OR IGNORE INTO outbox_epoch VALUES (?, ?, ?, ?, ?, ?, ?)", epochs)
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

    def after(self, number: int, limit: int) -> list[StoredResult]:
        """Return up to ``limit`` results, the oldest first, from behind ``number``."""
        with self._database.wrapped():
            rows = self._database.db.execute(
                "SELECT number, kid, count, topic, message, stored FROM outbox WHERE number > ?"
                " ORDER BY number LIMIT ?",
                (number, limit),
            ).fetchall()
        return [StoredResult(*row) for row in rows]

    def remove(self, numbers: Collection[int]) -> None:
        """Remove results, and epochs without results, in one transaction."""
        with self._database.transaction():
            db = self._database.db
            db.executemany("DELETE FROM outbox WHERE number = ?", [(number,) for number in numbers])
            self._remove_epochs()

    def drop(self, kept: Container[int], excess: int, before: float) -> list[tuple[int, bytes, int]]:
        """Remove the oldest results; return number, key id and bytes of each.

        :param kept: numbers of results that stay.
        :param excess: remove at least so many bytes, if there are so many.
        :param before: remove older results, Unix seconds.
        """
        with self._database.transaction():
            db = self._database.db
            rows = db.execute("SELECT number, kid, length(message), stored FROM outbox ORDER BY number")
            dropped: list[tuple[int, bytes, int]] = []
            for number, kid, size, stored in rows:
                if number in kept:
                    continue
                if excess <= 0 and not 0 < stored < before:
                    break
                excess -= size
                dropped.append((number, kid, size))
            rows.close()
            if dropped:
                db.executemany("DELETE FROM outbox WHERE number = ?", [(number,) for number, _, _ in dropped])
                self._remove_epochs()
        return dropped

    def _remove_epochs(self) -> None:
        self._database.db.execute(
            "DELETE FROM outbox_epoch AS e WHERE NOT EXISTS (SELECT 1 FROM outbox o WHERE o.kid = e.kid)"
        )

    def totals(self) -> tuple[int, int]:
        """Return the number of results, and their bytes."""
        with self._database.wrapped():
            count, size = self._database.db.execute(
                "SELECT count(*), coalesce(sum(length(message)), 0) FROM outbox"
            ).fetchone()
        return int(count), int(size)

    def kids(self) -> list[tuple[bytes, int]]:
        """Return the key ids of stored results, each with the number of its results."""
        with self._database.wrapped():
            return self._database.db.execute("SELECT kid, count(*) FROM outbox GROUP BY kid").fetchall()

    def newest(self) -> int:
        """Return the highest number; 0 if there is none."""
        with self._database.wrapped():
            (number,) = self._database.db.execute("SELECT coalesce(max(number), 0) FROM outbox").fetchone()
        return int(number)

    def epochs(self) -> list[tuple[StoredEpoch, int, int]]:
        """Return the epochs of stored results in the order of these: each with its last count and number of results."""
        with self._database.wrapped():
            rows = self._database.db.execute(
                "SELECT e.kid, e.number, commitment, aead, signs, key, hubs, max(count), count(*)"
                " FROM outbox_epoch e JOIN outbox o ON o.kid = e.kid GROUP BY e.kid ORDER BY min(o.number)"
            ).fetchall()
        return [
            (StoredEpoch(kid, number, commitment, aead, bool(signs), key, hubs), last, count)
            for kid, number, commitment, aead, signs, key, hubs, last, count in rows
        ]


class StoredReading(NamedTuple):
    """A message, as it arrived.

    :ivar channel: of the model that reads it.
    """

    number: int
    channel: str
    topic: str
    payload: bytes


class RowStore:
    """The tables of the row log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last(self) -> int:
        """Return the highest number ever given."""
        with self._database.wrapped():
            row = self._database.db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'reading'").fetchone()
        return int(row[0]) if row else 0

    def write(
        self, readings: Sequence[StoredReading], windows: Iterable[tuple[str, str, int, int]], gone: Sequence[int]
    ) -> None:
        """Store readings, note the starts of windows, and remove readings that no window needs, in one transaction.

        :param windows: channel, stream, number of the reading that holds the window's first row, rows before it there.
        :param gone: numbers of readings.
        """
        with self._database.transaction():
            db = self._database.db
            db.executemany("INSERT INTO reading VALUES (?, ?, ?, ?)", readings)
            db.executemany("INSERT OR REPLACE INTO open_window VALUES (?, ?, ?, ?)", windows)
            db.executemany("DELETE FROM reading WHERE number = ?", [(number,) for number in gone])

    def readings(self) -> list[StoredReading]:
        """Return every reading, in order."""
        with self._database.wrapped():
            rows = self._database.db.execute("SELECT * FROM reading ORDER BY number").fetchall()
        return [StoredReading(*row) for row in rows]

    def windows(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return the start of each open window: reading and rows before it, by channel and stream."""
        with self._database.wrapped():
            rows = self._database.db.execute("SELECT channel, stream, number, skip FROM open_window").fetchall()
        return {(channel, stream): (number, skip) for channel, stream, number, skip in rows}

    def clear(self, channels: Iterable[str]) -> None:
        """Delete the readings of some models."""
        with self._database.transaction():
            for channel in channels:
                self._database.db.execute("DELETE FROM reading WHERE channel = ?", (channel,))
                self._database.db.execute("DELETE FROM open_window WHERE channel = ?", (channel,))


MOST = 100
"""The most messages in quarantine; a further one replaces the oldest."""


class Quarantined(NamedTuple):
    """A message in quarantine.

    :ivar at: Unix seconds.
    :ivar digest: SHA-256 of the message, which is ``size`` bytes long.
    :ivar sealed: the message, sealed to the hubs: an encoded COSE_Encrypt.
    """

    number: int
    at: float
    topic: str
    digest: bytes
    size: int
    why: str
    sealed: bytes


class QuarantineStore:
    """The tables of suspects and of the quarantine."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, digest: bytes, ended: Collection[bytes]) -> int:
        """Note that a message is about to be served; return the number of earlier attempts without an end.

        :param ended: messages served since: they are innocent.
        """
        with self._database.transaction():
            db = self._database.db
            self._remove(ended)
            row = db.execute("SELECT attempts FROM suspect WHERE digest = ?", (digest,)).fetchone()
            before = int(row[0]) if row else 0
            db.execute("INSERT OR REPLACE INTO suspect VALUES (?, ?)", (digest, before + 1))
        return before

    def end(self, ended: Collection[bytes]) -> None:
        """Note the messages that were served."""
        with self._database.transaction():
            self._remove(ended)

    def _remove(self, digests: Collection[bytes]) -> None:
        self._database.db.executemany("DELETE FROM suspect WHERE digest = ?", [(digest,) for digest in digests])

    def clear(self) -> None:
        """Clear all suspects: every attempt has ended well."""
        with self._database.wrapped():
            self._database.db.execute("DELETE FROM suspect")

    def set_aside(self, message: Quarantined) -> None:
        """Keep a message; its number is ignored."""
        with self._database.transaction():
            db = self._database.db
            db.execute(
                "INSERT INTO set_aside (at, topic, digest, size, why, sealed) VALUES (?, ?, ?, ?, ?, ?)", message[1:]
            )
            db.execute("DELETE FROM suspect WHERE digest = ?", (message.digest,))
            db.execute(
                "DELETE FROM set_aside WHERE number <= (SELECT max(number) FROM set_aside) - ?",
                (MOST,),
            )

    def all(self) -> list[Quarantined]:
        """Return the messages in quarantine, the oldest first."""
        with self._database.wrapped():
            rows = self._database.db.execute("SELECT * FROM set_aside ORDER BY number").fetchall()
        return [Quarantined(*row) for row in rows]
