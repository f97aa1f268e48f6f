"""Installed packages: sealed files named ``NAME-VERSION.edged`` in one directory, each whole or absent."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from edged.base.files import PRIVATE_FILE, check_private, make_private_directory, write_atomically

_FILE = re.compile(r"([a-z0-9][a-z0-9_-]{0,63})-([1-9][0-9]{0,9})\.edged")


@dataclass(frozen=True, order=True)
class Installed:
    """One installed package; what its file name says is checked against the signed manifest before anything is used."""

    name: str
    version: int
    path: Path


class PackageStore:
    """The directory of installed packages."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(self, name: str, version: int, chunks: Iterable[bytes | memoryview]) -> Installed:
        """Install a package that was verified. An equal file is replaced by itself.

        :raises OutputError: it cannot be written; nothing half-written stays.
        """
        make_private_directory(self.directory)
        path = self.directory / f"{name}-{version}.edged"
        write_atomically(path, chunks, mode=PRIVATE_FILE, replace=True)
        return Installed(name, version, path)

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
