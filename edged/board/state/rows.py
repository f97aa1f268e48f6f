"""Readings of rows that stand in windows which are not full yet, as they arrived."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edged.base.database import Database


class StoredReading(NamedTuple):
    """A message, as it arrived.

    :ivar channel: of the model that reads it.
    """

    number: int
    channel: str
    topic: str
    payload: bytes


class RowStore:
    """The journal's tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last(self) -> int:
        """Return the highest number that was ever given."""
        with self._database.wrapped():
            row = self._database.db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'reading'").fetchone()
        return int(row[0]) if row else 0

    def write(
        self, readings: Sequence[StoredReading], windows: Iterable[tuple[str, str, int, int]], gone: Sequence[int]
    ) -> None:
        """Store readings under their numbers, note where windows begin, and remove what no window needs: at once.

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
        """Return where each stream's open window begins: reading and rows before it, by channel and stream."""
        with self._database.wrapped():
            rows = self._database.db.execute("SELECT channel, stream, number, skip FROM open_window").fetchall()
        return {(channel, stream): (number, skip) for channel, stream, number, skip in rows}

    def clear(self, channels: Iterable[str]) -> None:
        """Forget the readings of some models."""
        with self._database.transaction():
            for channel in channels:
                self._database.db.execute("DELETE FROM reading WHERE channel = ?", (channel,))
                self._database.db.execute("DELETE FROM open_window WHERE channel = ?", (channel,))
