"""SQLite for daemons: durable on return, repaired without an operator, with failures as :class:`StateError`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, NamedTuple

from edged.base.errors import StateDamagedError, StateError, StateLayoutError
from edged.base.files import make_private_directory


class Layout(NamedTuple):
    """The layout of a database file.

    :ivar name: of its file.
    :ivar version: grows with each change of ``schema``, which adds tables, and drops those that nothing reads now.
    """

    name: str
    version: int
    schema: str


_BUSY_SECONDS = 5.0
_MOST_LOG_PAGES = 256
"""Pages (4 kB) of the write-ahead log before it is written into the database."""
_PRIMARY = 0xFF
_DAMAGED_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_DAMAGED_HINT = (
    "the daemon begins a new one by itself at its next start; without the old one, older packages and readings"
    " are accepted once more"
)


class Database:
    """An open database of one :attr:`layout`.

    :param in_memory: work on a copy in RAM: nothing is durable then.
    :ivar damaged: True once its content was found damaged: call :meth:`start_over`.
    :raises StateDamagedError: its content is damaged, or it is no database.
    :raises StateLayoutError: a newer release wrote it.
    :raises StateError: it cannot be opened or written.
    """

    layout: ClassVar[Layout]

    def __init__(self, directory: Path, *, in_memory: bool = False) -> None:
        self.directory = directory
        self.in_memory = in_memory
        self.damaged = False
        self._path = directory / self.layout.name
        with self.wrapped():
            if in_memory:
                self.db = sqlite3.connect(":memory:", isolation_level=None)
                _copy_from(self._path, self.db)
            else:
                make_private_directory(directory)
                self._make_file()
                self.db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self.db.close()
                raise

    def _prepare(self) -> None:
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute(f"PRAGMA wal_autocheckpoint = {_MOST_LOG_PAGES}")
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        known = self.layout.version
        if version < known:
            self.db.executescript(f"{self.layout.schema} PRAGMA user_version = {known};")
        elif version > known:
            raise StateLayoutError(
                f"{self._path} has layout {version}; this release knows {known}", hint="upgrade edged"
            )

    def _make_file(self) -> None:
        """Make the file, open to its owner alone, where it is absent.

        One that is there must not even be opened: to close it again would take away every lock that other connections
        of this process hold on it (POSIX), and another process could then take the log of what they write from them.
        """
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def check(self) -> None:
        """Read the whole database, and write one value.

        :raises StateDamagedError: its content is damaged.
        :raises StateError: it cannot be written.
        """
        with self.wrapped():
            (answer,) = self.db.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise StateDamagedError(f"{self._path}: {answer}", hint=_DAMAGED_HINT)
        self.note("checks", self.fact("checks") + 1)

    def write_back(self) -> None:
        """Write the copy in RAM to the disk, once the disk can be written again.

        :raises StateError: it cannot.
        """
        with self.wrapped():
            self._make_file()
            disk = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                self.db.backup(disk)
                disk.execute("PRAGMA journal_mode = WAL")
            except BaseException:
                disk.close()
                raise
            self.db.close()
            self.db, self.in_memory = disk, False
            self._prepare()

    def start_over(self) -> None:
        """Rename a damaged file and create a new one.

        :raises StateError: it cannot be made.
        """
        self.db.close()
        put_aside(self.directory, self.layout.name)
        with self.wrapped():
            self._make_file()
            self.db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._prepare()
        self.damaged = False

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    @contextmanager
    def wrapped(self) -> Iterator[None]:
        """Raise SQLite's errors as :class:`StateError`."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
            if code in _DAMAGED_CODES:
                self.damaged = True
                raise StateDamagedError(f"{self._path}: {error}", hint=_DAMAGED_HINT) from error
            raise StateError(f"{self._path}: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all changes of the block together, or none."""
        with self.wrapped():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # some failures have ended it already
                    self.db.execute("ROLLBACK")
                raise

    def fact(self, name: str) -> int:
        """Return a stored number; 0 if there is none."""
        with self.wrapped():
            row = self.db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def note(self, name: str, value: int) -> None:
        """Store a number."""
        with self.wrapped():
            self.db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))


def put_aside(directory: Path, name: str) -> None:
    """Rename a damaged database; an earlier damaged one is replaced."""
    with suppress(OSError):  # on a disk that cannot be written, a copy in RAM is next
        (directory / name).replace(directory / f"{name}.damaged")
    for suffix in ("-wal", "-shm"):
        with suppress(OSError):
            (directory / f"{name}{suffix}").unlink()


def _copy_from(path: Path, memory: sqlite3.Connection) -> None:
    """Copy all that can be read of a database on a disk that cannot be written."""
    for options in ("mode=ro", "mode=ro&immutable=1"):  # the second leaves out what only stands in the log
        if not path.exists():
            return
        with suppress(sqlite3.Error):
            disk = sqlite3.connect(f"file:{path}?{options}", uri=True)
            try:
                disk.backup(memory)
            finally:
                disk.close()
            return
