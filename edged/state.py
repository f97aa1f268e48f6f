"""What a board must not forget: floors, epochs, replay marks, signed time, its audit log: ``state.db`` (SQLite, WAL).

Commits are synchronous: what a method returned from is durable. The daemon holds an exclusive lock on the directory;
commands that only accept a package share the database with it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from edged.errors import StateError, StateLockedError
from edged.files import make_private_directory

_SCHEMA = """
CREATE TABLE IF NOT EXISTS floor (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, identity BLOB NOT NULL, created INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS epoch (
    number INTEGER PRIMARY KEY, kid BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS mark (
    kid BLOB NOT NULL, sensor TEXT NOT NULL, channel TEXT NOT NULL, reader TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (kid, sensor, channel, reader)
) STRICT;
CREATE TABLE IF NOT EXISTS good (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, identity BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS rejected (
    identity BLOB PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL, why TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, entry BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit_signature (
    number INTEGER PRIMARY KEY, signature BLOB NOT NULL
) STRICT;
PRAGMA user_version = 2;
"""
_VERSION = 2
_NAME = "state.db"
_BUSY_SECONDS = 5.0
_DAMAGED = "if the file is damaged, restore it; without it, older packages and readings are accepted once more"


class Floor(NamedTuple):
    """The highest version ever accepted under a name, and the SHA-256 of its manifest."""

    version: int
    identity: bytes


class MarkKey(NamedTuple):
    """What a sensor's count is counted by: key id, the two names that its messages bind, and who reads them.

    :ivar reader: channel of the model that reads: several may read one topic, and each accepts a count once.
    """

    kid: bytes
    sensor: str
    channel: str
    reader: str


class State:
    """An open ``state.db``.

    :raises StateError: it cannot be opened, or is not edged's.
    """

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self.directory = directory
        self._path = directory / _NAME
        with self._wrapped():
            self._make_file()
            self._db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version < _VERSION:
                self._db.executescript(_SCHEMA)  # tables are only added
            elif version > _VERSION:
                raise StateError(
                    f"{self._path} has layout {version}; this release knows {_VERSION}", hint="upgrade edged"
                )

    def _make_file(self) -> None:
        """Make the file, open to its owner alone, where it is absent.

        One that is there must not even be opened: to close it again would take away every lock that other connections
        of this process hold on it (POSIX), and another process could then take the log of what they write from them.
        """
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    @staticmethod
    def exists(directory: Path) -> bool:
        """Return whether a board has a ``state.db`` there."""
        return (directory / _NAME).exists()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StateError(f"{self._path}: {error}", hint=_DAMAGED) from error

    def floor(self, name: str) -> Floor | None:
        """Return what was last accepted under model ``name``."""
        with self._wrapped():
            row = self._db.execute("SELECT version, identity FROM floor WHERE name = ?", (name,)).fetchone()
        return Floor(*row) if row else None

    def accept(self, name: str, floor: Floor, created: int) -> None:
        """Record that a package was accepted; a lower version never replaces a higher one.

        :param created: its publisher-signed date, Unix seconds.
        """
        with self._wrapped():
            self._db.execute(
                "INSERT INTO floor VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE"
                " SET version = excluded.version, identity = excluded.identity,"
                " created = max(created, excluded.created)"
                " WHERE excluded.version > version",
                (name, floor.version, floor.identity, created),
            )

    def good(self, name: str) -> Floor | None:
        """Return the version of a model that last got through its trial: what a board goes back to."""
        with self._wrapped():
            row = self._db.execute("SELECT version, identity FROM good WHERE name = ?", (name,)).fetchone()
        return Floor(*row) if row else None

    def set_good(self, name: str, good: Floor) -> None:
        """Record that a version got through its trial."""
        with self._wrapped():
            self._db.execute("INSERT OR REPLACE INTO good VALUES (?, ?, ?)", (name, *good))

    def reject(self, name: str, rejected: Floor, why: str) -> None:
        """Record that a version failed in use: it is not loaded again."""
        with self._wrapped():
            row = (rejected.identity, name, rejected.version, why)
            self._db.execute("INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?)", row)

    def why_rejected(self, identity: bytes) -> str | None:
        """Return why a package failed in use; None if it did not."""
        with self._wrapped():
            row = self._db.execute("SELECT why FROM rejected WHERE identity = ?", (identity,)).fetchone()
        return row[0] if row else None

    def newest_created(self) -> int:
        """Return the newest publisher-signed date that was accepted, Unix seconds, or 0."""
        with self._wrapped():
            (created,) = self._db.execute("SELECT coalesce(max(created), 0) FROM floor").fetchone()
        return int(created)

    def begin_epoch(self, kid: bytes, at_least: int) -> int:
        """Return the number of a new epoch, above every earlier one and not below ``at_least``; durable on return."""
        with self._wrapped():
            (number,) = self._db.execute(
                "INSERT INTO epoch SELECT max(coalesce(max(number) + 1, 1), ?), ? FROM epoch RETURNING number",
                (at_least, kid),
            ).fetchone()
            self._db.execute("DELETE FROM epoch WHERE number < ?", (number,))
        return int(number)

    def marks(self) -> dict[MarkKey, int]:
        """Return the last accepted count of each sensor key and topic."""
        with self._wrapped():
            rows = self._db.execute("SELECT kid, sensor, channel, reader, count FROM mark").fetchall()
        return {MarkKey(bytes(kid), *names): _from_signed(count) for kid, *names, count in rows}

    def save_marks(self, marks: Iterable[tuple[MarkKey, int]]) -> None:
        """Store counts, in one transaction."""
        with self._wrapped():
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO mark VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = excluded.count",
                [(*key, _to_signed(count)) for key, count in marks],
            )
            self._db.execute("COMMIT")

    def append_audit(self, make: Callable[[int, bytes], bytes]) -> tuple[int, bytes]:
        """Append an entry to the audit log; return its number and its bytes.

        :param make: makes it from its number and the bytes of the entry before, which nobody else follows meanwhile.
        """
        with self._wrapped():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                last = self.last_audit()
                number, before = (last[0] + 1, last[1]) if last else (1, b"")
                entry = make(number, before)
                self._db.execute("INSERT INTO audit VALUES (?, ?)", (number, entry))
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        return number, entry

    def sign_audit(self, number: int, signature: bytes) -> None:
        """Store the signature over the log up to an entry."""
        with self._wrapped():
            self._db.execute("INSERT OR REPLACE INTO audit_signature VALUES (?, ?)", (number, signature))

    def last_audit(self) -> tuple[int, bytes] | None:
        """Return the newest entry of the audit log, with its number."""
        with self._wrapped():
            row = self._db.execute("SELECT number, entry FROM audit ORDER BY number DESC LIMIT 1").fetchone()
        return (row[0], bytes(row[1])) if row else None

    def audit(self) -> tuple[list[bytes], list[bytes]]:
        """Return the entries of the audit log, and the signatures over it, each in order."""
        with self._wrapped():
            entries = self._db.execute("SELECT entry FROM audit ORDER BY number").fetchall()
            signatures = self._db.execute("SELECT signature FROM audit_signature ORDER BY number").fetchall()
        return [bytes(entry) for (entry,) in entries], [bytes(signature) for (signature,) in signatures]

    def prune_audit(self, keep: int) -> None:
        """Remove all but the newest ``keep`` entries, and the signatures that end before them."""
        with self._wrapped():
            for table in ("audit", "audit_signature"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE number <= (SELECT max(number) FROM audit) - ?",  # noqa: S608  ours
                    (keep,),
                )


def _to_signed(count: int) -> int:
    """SQLite integers are signed: store a count below 2^64 as its two's complement."""
    return count - (1 << 64) if count >= 1 << 63 else count


def _from_signed(value: int) -> int:
    return value + (1 << 64) if value < 0 else value


class Lock:
    """The daemon's exclusive hold on a state directory, until closed or the process ends.

    :raises StateLockedError: another process holds it.
    """

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        path = directory / "lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise StateLockedError(
                f"another edged already runs on {directory}", hint="one daemon to one state directory"
            ) from error

    def close(self) -> None:
        """Let go."""
        os.close(self._descriptor)
