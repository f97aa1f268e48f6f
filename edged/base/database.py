"""SQLite for daemons: durable on return, repaired without an operator, with failures as :class:`StateError`."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import ClassVar, NamedTuple

from edged.base.errors import StateDamagedError, StateError, StateLayoutError
from edged.base.files import check_private, make_private_directory, sync_directory


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
_SUFFIXES = ("", "-wal", "-shm")
"""Of the files of a database: itself, its log, and the index of its log."""
_DAMAGED_HINT = (
    "the daemon begins a new one by itself at its next start; without the old one, older packages and readings"
    " are accepted once more"
)


class Database:
    """An open database of one :attr:`layout`.

    :param in_memory: work on a copy in RAM: nothing is durable then.
    :param create: make directory and file where they are absent.
    :ivar path: of its file.
    :ivar files: what :func:`identify` said of the files that it has open.
    :ivar damaged: True once its content was found damaged: call :meth:`start_over`.
    :raises StateDamagedError: its content is damaged, or it is no database.
    :raises StateLayoutError: a newer release wrote it.
    :raises StateError: it cannot be opened or written.
    """

    layout: ClassVar[Layout]

    def __init__(self, directory: Path, *, in_memory: bool = False, create: bool = True) -> None:
        self.directory = directory
        self.in_memory = in_memory
        self.damaged = False
        self.path = directory / self.layout.name
        with self.wrapped():
            if create and not in_memory:
                make_private_directory(directory)
                _make_file(self.path)
            self.db = sqlite3.connect(":memory:", isolation_level=None) if in_memory else self._connect()
            try:
                if in_memory:
                    _copy_from(self.path, self.db)
                self._prepare()
            except BaseException:
                self.db.close()
                raise

    def _connect(self) -> sqlite3.Connection:
        """Connect to the file, which must be there."""
        address = f"{self.path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(address, timeout=_BUSY_SECONDS, isolation_level=None, uri=True)

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
                f"{self.path} has layout {version}; this release knows {known}", hint="upgrade edged"
            )
        self.files = "" if self.in_memory else identify(self.path)

    def check(self) -> None:
        """Read the whole database, and write one value.

        :raises StateDamagedError: its content is damaged.
        :raises StateError: it cannot be written.
        """
        with self.wrapped():
            (answer,) = self.db.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise StateDamagedError(f"{self.path}: {answer}", hint=_DAMAGED_HINT)
        self.note("checks", self.fact("checks") + 1)

    def write_back(self) -> None:
        """Write the copy in RAM to the disk, once the disk can be written again.

        :raises StateError: it cannot.
        """
        with self.wrapped():
            _make_file(self.path)
            disk = self._connect()
            try:
                self.db.backup(disk)
                disk.execute("PRAGMA journal_mode = WAL")
            except BaseException:
                disk.close()
                raise
            self.db.close()
            self.db, self.in_memory = disk, False
            self._prepare()

    def is_replaced(self) -> bool:
        """Return True if others stand where its files stood, or none.

        Until then the files stay in reach of this process, but of no other, nor of itself after a restart.

        :raises StateError: the directory is absent or cannot be read: its files may come back with it.
        """
        try:
            self.directory.stat()
            return identify(self.path) != self.files
        except OSError as error:
            raise StateError(f"{self.directory} cannot be read: {error.strerror}", hint="put it back") from error

    def start_over(self) -> None:
        """Put aside what stands in its place, and write a new file: with all that it holds, unless that is damaged.

        :raises EdgedError: it cannot be written; what it holds stays in reach.
        """
        check_private(self.directory)
        new = self.path.with_name(f"{self.path.name}.new")
        with self.wrapped():
            new.unlink(missing_ok=True)
            _make_file(new)
            if not self.damaged:
                with closing(sqlite3.connect(new, isolation_level=None)) as copy:
                    self.db.backup(copy)
            put_aside(self.directory, self.layout.name)
            new.replace(self.path)
            sync_directory(self.directory)
            before, self.db = self.db, self._connect()
            try:
                self._prepare()
            except BaseException:
                self.db.close()
                self.db = before
                raise
            before.close()
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
                raise StateDamagedError(f"{self.path}: {error}", hint=_DAMAGED_HINT) from error
            raise StateError(f"{self.path}: {error}") from error

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


def _make_file(path: Path) -> None:
    """Make a file, open to its owner alone, where it is absent; a log that stands there is of another database.

    One that is there must not even be opened: to close it again would take away every lock that other connections
    of this process hold on it (POSIX), and another process could then take the log of what they write from them.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _remove_log(path)


def put_aside(directory: Path, name: str) -> None:
    """Rename what stands in the place of a database that is damaged; what was put aside earlier is replaced."""
    path, aside = directory / name, directory / f"{name}.damaged"
    with suppress(OSError):  # on a disk that cannot be written, a copy in RAM is next
        if os.path.lexists(path):
            _remove(aside)
            path.replace(aside)
    _remove_log(path)


def _remove_log(path: Path) -> None:
    for suffix in _SUFFIXES[1:]:
        with suppress(OSError):
            _remove(path.with_name(f"{path.name}{suffix}"))


def _remove(path: Path) -> None:
    """Remove a file, or whatever was put in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def identify(path: Path) -> str:
    """Return device and inode of each file of a database: others, if some were replaced.

    :raises OSError: nobody can tell.
    """
    return " ".join(_identity(path.with_name(f"{path.name}{suffix}")) for suffix in _SUFFIXES)


def _identity(path: Path) -> str:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return "-"
    return f"{found.st_dev}:{found.st_ino}"


def _copy_from(path: Path, memory: sqlite3.Connection) -> None:
    """Copy all that can be read of a database on a disk that cannot be written."""
    for options in ("mode=ro", "mode=ro&immutable=1"):  # the second leaves out what only stands in the log
        if not os.path.lexists(path):
            return
        with suppress(sqlite3.Error):
            disk = sqlite3.connect(f"file:{path}?{options}", uri=True)
            try:
                disk.backup(memory)
            finally:
                disk.close()
            return
