"""Installed packages: sealed files named ``NAME-VERSION.edged`` in one directory, each whole or absent.

Beside each stands ``NAME-VERSION.grant``: this board's own entry, which is what gets opened. A package is installed
once its file is there; the grant is written before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from edged.base.errors import FormatError, OutputError
from edged.base.files import (
    PRIVATE_FILE,
    check_private,
    make_private_directory,
    read_bounded,
    sync_directory,
    write_atomically,
)
from edged.keystore import DIRECTORY

GRANT_LIMIT = 4096
"""Bytes of a grant, which is about 200 long."""

_FILE = re.compile(r"([a-z0-9][a-z0-9_-]{0,63})-([1-9][0-9]{0,9})\.edged")
_CHUNK = 1 << 20


class Installed(msgspec.Struct, frozen=True, order=True):
    """One installed package; what its file name says is checked against the signed manifest before anything is used."""

    name: str
    version: int
    path: Path

    @property
    def grant_path(self) -> Path:
        """The file of this board's own entry."""
        return self.path.with_suffix(".grant")

    def read_grant(self) -> bytes:
        """Return this board's own entry.

        :raises MissingFileError: it is absent or unreadable.
        :raises FormatError: it is too long for one.
        """
        return read_bounded(self.grant_path, GRANT_LIMIT)


class PackageStore:
    """The directory of installed packages."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def copied(self, source: BinaryIO, size: int) -> Iterator[Path]:
        """Copy ``size`` bytes into this directory, durably, for :meth:`add`; a copy that is not added is removed.

        :raises FormatError: there are fewer.
        :raises OutputError: they cannot be written.
        """
        make_private_directory(self.directory)
        for left in self.directory.glob(".incoming.*"):  # by a power cut
            if not Path(f"/proc/{left.suffix[1:]}").exists():
                left.unlink(missing_ok=True)
        copy = self.directory / f".incoming.{os.getpid()}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(copy, flags, PRIVATE_FILE)
            with os.fdopen(descriptor, "wb") as file:
                left_over = size
                while left_over and (chunk := source.read(min(left_over, _CHUNK))):
                    file.write(chunk)
                    left_over -= len(chunk)
                file.flush()
                os.fsync(descriptor)
            if left_over:
                raise FormatError(f"it was cut short while it was read: {left_over} bytes are missing")
            yield copy
        except OSError as error:
            raise OutputError(f"{self.directory} cannot take a package: {error.strerror}") from error
        finally:
            copy.unlink(missing_ok=True)

    def add(self, name: str, version: int, copy: Path, grant: bytes) -> Installed:
        """Install a package that was verified. An equal one is replaced by itself.

        :param copy: a file in this directory, made by :meth:`copied`.
        :raises OutputError: it cannot be written; nothing half-written is installed.
        """
        installed = Installed(name, version, self.directory / f"{name}-{version}.edged")
        self.write_grant(installed, grant)
        try:
            copy.replace(installed.path)
            sync_directory(self.directory)
        except OSError as error:
            raise OutputError(f"{installed.path} cannot be written: {error.strerror}") from error
        return installed

    def write_grant(self, installed: Installed, grant: bytes) -> None:
        """Write the grant of a package, in the place of the one that is there.

        :raises OutputError: it cannot be written; the old one stays then.
        """
        write_atomically(installed.grant_path, [grant], mode=PRIVATE_FILE, replace=True)

    def all(self) -> list[Installed]:
        """Return what is installed, by name and version; nothing if the directory is absent.

        :raises PermissionsError: others may open the directory.
        """
        if not self.directory.is_dir():
            return []
        check_private(self.directory)
        found = ((_FILE.fullmatch(path.name), path) for path in self.directory.iterdir())
        return sorted(Installed(match[1], int(match[2]), path) for match, path in found if match)

    def newest(self, name: str) -> Installed | None:
        """Return the installed package of ``name`` with the highest version."""
        versions = [installed for installed in self.all() if installed.name == name]
        return versions[-1] if versions else None

    def prune(self, name: str, keep: int = 2, *, spare: Collection[int] = ()) -> None:
        """Remove all packages of ``name`` but the newest ``keep``, and the versions ``spare``."""
        for old in [installed for installed in self.all() if installed.name == name][:-keep]:
            if old.version not in spare:
                old.path.unlink(missing_ok=True)
                old.grant_path.unlink(missing_ok=True)

    def find(self, name: str, version: int) -> Installed | None:
        """Return an installed package."""
        return next((one for one in self.all() if (one.name, one.version) == (name, version)), None)

    def touch(self) -> None:
        """Change :meth:`stamp` without changing a package: which of them may be used is another now."""
        os.utime(self.directory)

    def stamp(self) -> int:
        """Return a number that changes when a package is added or removed (the directory's mtime in ns)."""
        try:
            return self.directory.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def installed_packages(state: Path) -> PackageStore:
    """Return the packages below a board's state directory."""
    return PackageStore(state / DIRECTORY / "packages")
