"""``state.db``: floors, trials, epochs, replay marks, the audit log; the way back from a file that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, NamedTuple

from edged.base.database import Database, Layout, identify, put_aside
from edged.base.errors import StateDamagedError, StateError, StateLayoutError
from edged.base.lock import Lock
from edged.formats.channel import MarkKey
from edged.formats.package import Floor

NAME = "state.db"
BOARD = Layout(
    NAME,
    5,
    """
-- layout 4 held results that no hub of this release opens
DROP TABLE IF EXISTS outbox;
DROP TABLE IF EXISTS outbox_epoch;
CREATE TABLE IF NOT EXISTS floor (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, identity BLOB NOT NULL, created INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS accepted (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, identity BLOB NOT NULL, created INTEGER NOT NULL,
    minimum INTEGER NOT NULL
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
CREATE TABLE IF NOT EXISTS proven (
    name TEXT NOT NULL, version INTEGER NOT NULL, identity BLOB NOT NULL, PRIMARY KEY (name, version)
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
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kid BLOB NOT NULL, count INTEGER NOT NULL, topic TEXT NOT NULL,
    message BLOB NOT NULL, stored REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS outbox_epoch (
    kid BLOB PRIMARY KEY, number INTEGER NOT NULL, commitment BLOB NOT NULL, aead INTEGER NOT NULL,
    signs INTEGER NOT NULL, key BLOB NOT NULL, hubs BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS outbox_kid ON outbox (kid);
CREATE TABLE IF NOT EXISTS reading (
    number INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS open_window (
    channel TEXT NOT NULL, stream TEXT NOT NULL, number INTEGER NOT NULL, skip INTEGER NOT NULL,
    PRIMARY KEY (channel, stream)
) STRICT;
CREATE TABLE IF NOT EXISTS suspect (
    digest BLOB PRIMARY KEY, attempts INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS set_aside (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, topic TEXT NOT NULL, digest BLOB NOT NULL,
    size INTEGER NOT NULL, why TEXT NOT NULL, sealed BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS fact (
    name TEXT PRIMARY KEY, value INTEGER NOT NULL
) STRICT;
-- layout 3 knew one good version of a model
INSERT OR IGNORE INTO proven SELECT * FROM good;
DELETE FROM good;
-- layout 4 knew no lowest version
INSERT OR IGNORE INTO accepted SELECT name, version, identity, created, 1 FROM floor;
DELETE FROM floor;
""",
)
_MOST_GOOD = 2
"""Good versions of a model that are remembered: the one to go back to, and the one before it."""


class Rejected(NamedTuple):
    """A version that failed in use, or was taken back."""

    version: int
    identity: bytes
    why: str


class AuditRow(NamedTuple):
    """An entry of the audit log as it is stored."""

    number: int
    entry: bytes


class State(Database):
    """Floors, versions on trial, epochs, replay marks and the audit log.

    :raises StateError: a daemon has other files open than those that stand there: to open these would mix up both.
    """

    layout: ClassVar[Layout] = BOARD

    def __init__(self, directory: Path, *, in_memory: bool = False, create: bool = True) -> None:
        if not in_memory:
            _refuse_replaced(directory)
        super().__init__(directory, in_memory=in_memory, create=create)

    @staticmethod
    def exists(directory: Path) -> bool:
        """Return True if a board has a ``state.db`` there."""
        return os.path.lexists(directory / NAME)

    def floor(self, name: str) -> Floor | None:
        """Return the version that was last accepted under model ``name``."""
        with self.wrapped():
            row = self.db.execute("SELECT version, identity FROM accepted WHERE name = ?", (name,)).fetchone()
        return Floor(*row) if row else None

    def minimum(self, name: str) -> int | None:
        """Return the lowest version of a model that may be served; None before any was accepted."""
        with self.wrapped():
            row = self.db.execute("SELECT minimum FROM accepted WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def accept(self, name: str, floor: Floor, created: int, minimum: int = 1) -> None:
        """Record that a package was accepted; neither its version nor its ``minimum`` ever takes a higher one's place.

        :param created: its publisher-signed date, Unix seconds.
        :param minimum: the lowest version that its publisher lets boards serve from now on.
        """
        with self.transaction():
            self.db.execute(
                "INSERT INTO accepted VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE"
                " SET version = excluded.version, identity = excluded.identity,"
                " created = max(created, excluded.created)"
                " WHERE excluded.version > version",
                (name, floor.version, floor.identity, created, minimum),
            )
            self.db.execute("UPDATE accepted SET minimum = max(minimum, ?) WHERE name = ?", (minimum, name))

    def good(self, name: str) -> list[Floor]:
        """Return the versions of a model that got through their trial, the newest first: what a board goes back to."""
        with self.wrapped():
            rows = self.db.execute(
                "SELECT version, identity FROM proven WHERE name = ? ORDER BY version DESC", (name,)
            ).fetchall()
        return [Floor(*row) for row in rows]

    def set_good(self, name: str, good: Floor) -> None:
        """Record that a version got through its trial, unless it was rejected; the oldest beyond are forgotten."""
        with self.transaction():
            self.db.execute(
                "INSERT OR REPLACE INTO proven SELECT ?, ?, ? WHERE NOT EXISTS"
                " (SELECT 1 FROM rejected WHERE identity = ?)",
                (name, *good, good.identity),
            )
            self.db.execute(
                "DELETE FROM proven WHERE name = ? AND version NOT IN"
                " (SELECT version FROM proven WHERE name = ? ORDER BY version DESC LIMIT ?)",
                (name, name, _MOST_GOOD),
            )

    def reject(self, name: str, rejected: Floor, why: str) -> None:
        """Record that a version failed in use, or was taken back: it is not loaded again."""
        with self.transaction():
            row = (rejected.identity, name, rejected.version, why)
            self.db.execute("INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?)", row)
            self.db.execute("DELETE FROM proven WHERE identity = ?", (rejected.identity,))

    def rejected(self, name: str) -> list[Rejected]:
        """Return the versions of a model that were rejected, the newest first."""
        with self.wrapped():
            rows = self.db.execute(
                "SELECT version, identity, why FROM rejected WHERE name = ? ORDER BY version DESC", (name,)
            ).fetchall()
        return [Rejected(*row) for row in rows]

    def why_rejected(self, identity: bytes) -> str | None:
        """Return why a package was rejected; None if it was not."""
        with self.wrapped():
            row = self.db.execute("SELECT why FROM rejected WHERE identity = ?", (identity,)).fetchone()
        return row[0] if row else None

    def newest_created(self) -> int:
        """Return the newest publisher-signed date that was accepted, Unix seconds, or 0."""
        with self.wrapped():
            (created,) = self.db.execute("SELECT coalesce(max(created), 0) FROM accepted").fetchone()
        return int(created)

    def begin_epoch(self, kid: bytes, at_least: int) -> int:
        """Return the number of a new epoch, above every earlier one and not below ``at_least``; durable on return."""
        with self.wrapped():
            (number,) = self.db.execute(
                "INSERT INTO epoch SELECT max(coalesce(max(number) + 1, 1), ?), ? FROM epoch RETURNING number",
                (at_least, kid),
            ).fetchone()
            self.db.execute("DELETE FROM epoch WHERE number < ?", (number,))
        return int(number)

    def marks(self) -> dict[MarkKey, int]:
        """Return the last accepted count of each sensor key and topic."""
        with self.wrapped():
            rows = self.db.execute("SELECT kid, sensor, channel, reader, count FROM mark").fetchall()
        return {MarkKey(bytes(kid), *names): _from_signed(count) for kid, *names, count in rows}

    def save_marks(self, marks: Iterable[tuple[MarkKey, int]]) -> None:
        """Store counts, in one transaction."""
        with self.transaction():
            self.db.executemany(
                "INSERT INTO mark VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = excluded.count",
                [(*key, _to_signed(count)) for key, count in marks],
            )

    def append_audit(self, make: Callable[[int, bytes], bytes]) -> int:
        """Append an entry to the audit log; return its number.

        :param make: makes the entry from its number and the bytes of the entry before.
        """
        with self.transaction():
            last = self.last_audit()
            number, before = (last.number + 1, last.entry) if last else (1, b"")
            self.db.execute("INSERT INTO audit VALUES (?, ?)", (number, make(number, before)))
        return number

    def sign_audit(self, keep: int, make: Callable[[AuditRow, AuditRow], bytes]) -> None:
        """Remove all but the newest ``keep`` entries and sign the rest, in one transaction; without entries do nothing.

        :param make: makes the signature from the oldest entry that stays and the newest; it replaces the one before.
        """
        with self.transaction():
            last = self.last_audit()
            if last is None:
                return
            self.db.execute("DELETE FROM audit WHERE number <= ?", (last.number - keep,))
            number, entry = self.db.execute("SELECT number, entry FROM audit ORDER BY number LIMIT 1").fetchone()
            signature = make(AuditRow(number, bytes(entry)), last)
            self.db.execute("DELETE FROM audit_signature")
            self.db.execute("INSERT INTO audit_signature VALUES (?, ?)", (last.number, signature))

    def last_audit(self) -> AuditRow | None:
        """Return the newest entry of the audit log."""
        with self.wrapped():
            row = self.db.execute("SELECT number, entry FROM audit ORDER BY number DESC LIMIT 1").fetchone()
        return AuditRow(row[0], bytes(row[1])) if row else None

    def audit(self) -> tuple[list[bytes], list[bytes]]:
        """Return the entries of the audit log in order, and the signatures over it: one, or none yet."""
        with self.wrapped():
            entries = self.db.execute("SELECT entry FROM audit ORDER BY number").fetchall()
            signatures = self.db.execute("SELECT signature FROM audit_signature ORDER BY number").fetchall()
        return [bytes(entry) for (entry,) in entries], [bytes(signature) for (signature,) in signatures]


def _refuse_replaced(directory: Path) -> None:
    path = directory / NAME
    with suppress(OSError):  # which is reported when it is opened
        if Lock.contradicts(identify(path), directory):
            raise StateError(
                f"{path} was removed or replaced while the daemon runs",
                hint="the daemon writes its own anew: try again in a second",
            )


def _to_signed(count: int) -> int:
    """SQLite integers are signed: store a count below 2^64 as its two's complement."""
    return count - (1 << 64) if count >= 1 << 63 else count


def _from_signed(value: int) -> int:
    return value + (1 << 64) if value < 0 else value


def open_state(directory: Path) -> tuple[State, str]:
    """Open a board's state whatever has happened to it; return it with a description of the problem, or an empty one.

    A damaged file is renamed and a new one created. If the disk cannot be written, a copy in RAM serves for the time
    being: nothing is durable then.

    :raises StateLayoutError: a newer release wrote it.
    """
    try:
        return _opened(directory), ""
    except StateDamagedError as error:
        why = error.message
    except StateLayoutError:
        raise
    except StateError as error:
        return State(directory, in_memory=True), f"nothing is durable: {error.message}"
    put_aside(directory, NAME)
    try:
        return State(directory), f"a damaged state.db was put aside and a new one begun: {why}"
    except StateError as error:
        return State(directory, in_memory=True), f"nothing is durable: {error.message}"


def _opened(directory: Path) -> State:
    state = State(directory)
    try:
        state.check()
    except StateError:
        state.close()
        raise
    return state
