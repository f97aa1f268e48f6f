"""Messages that may have killed the daemon, and those that were set aside for it."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from edged.base.database import Database

MOST = 100
"""Messages that stay set aside; a further one takes the place of the oldest."""


class SetAside(NamedTuple):
    """A message that was set aside.

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


class SuspectStore:
    """The tables of suspects and of what was set aside."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, digest: bytes, ended: Collection[bytes]) -> int:
        """Note that a message is about to be served; return how often that was begun before and not ended.

        :param ended: what was served since: it is innocent.
        """
        with self._database.transaction():
            db = self._database.db
            self._remove(ended)
            row = db.execute("SELECT attempts FROM suspect WHERE digest = ?", (digest,)).fetchone()
            before = int(row[0]) if row else 0
            db.execute("INSERT OR REPLACE INTO suspect VALUES (?, ?)", (digest, before + 1))
        return before

    def end(self, ended: Collection[bytes]) -> None:
        """Note what was served."""
        with self._database.transaction():
            self._remove(ended)

    def _remove(self, digests: Collection[bytes]) -> None:
        self._database.db.executemany("DELETE FROM suspect WHERE digest = ?", [(digest,) for digest in digests])

    def clear(self) -> None:
        """Suspect nothing more: everything that was begun has ended well."""
        with self._database.wrapped():
            self._database.db.execute("DELETE FROM suspect")

    def set_aside(self, message: SetAside) -> None:
        """Keep a message; its number is passed over."""
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

    def all(self) -> list[SetAside]:
        """Return what was set aside, the oldest first."""
        with self._database.wrapped():
            rows = self._database.db.execute("SELECT * FROM set_aside ORDER BY number").fetchall()
        return [SetAside(*row) for row in rows]
