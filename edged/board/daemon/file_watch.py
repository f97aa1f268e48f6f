"""The files that the next start needs. The daemon serves on without them, and says at once which a start would miss."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edged.base.errors import (
    EdgedError,
    FormatError,
    MachineError,
    MissingFileError,
    StateError,
    advice,
    error_context,
)
from edged.base.files import check_private, open_regular
from edged.board.health import Health
from edged.board.installation import Board
from edged.board.pipeline import Lane
from edged.board.state.store import NAME as STATE
from edged.config.load import config_files, load_board
from edged.formats.cose import cbor
from edged.formats.package.verify import HEAD_LIMIT, RECIPIENT_LIMITS, signed_length
from edged.keystore import Keystore
from edged.keystore.packages import GRANT_LIMIT, Installed


class _Need(NamedTuple):
    """Something that the next start needs.

    :ivar stamp: returns what changes whenever the outcome of ``check`` may.
    :ivar check: raises what would be in the way of the start.
    """

    stamp: Callable[[], object]
    check: Callable[[], object]


class FileWatch:
    """Checks files once they have changed and rest: what an editor is about to write is not looked at half-way.

    :param path: of the configuration.
    :param board: the one that was just read from it.
    :param keystore: the keys in use.
    """

    def __init__(self, path: Path, board: Board, keystore: Keystore, health: Health) -> None:
        self._path = path
        self._keystore = keystore
        self._health = health
        self._lanes: Mapping[str, Lane] = {}
        self._seen: dict[str, object] = {}
        self._checked: dict[str, object] = {}
        self.take(board)

    def take(self, board: Board) -> None:
        """Look at the files of ``board`` from now on, which was just read."""
        self._read = [self._path]
        with suppress(EdgedError):
            self._read = config_files(self._path)
        self._needs = self._needs_of(board)
        self._checked.clear()

    def look(self, lanes: Mapping[str, Lane]) -> None:
        """Mark as degraded what the next start would miss of the board's files, and of the models that serve."""
        self._lanes = lanes
        for name, need in self._needs.items():
            stamp = need.stamp()
            rests = stamp == self._seen.get(name)
            self._seen[name] = stamp
            if rests and stamp != self._checked.get(name):
                self._checked[name] = stamp
                self._health.note_state(name, _trouble(need.check))

    def check_configuration(self) -> None:
        """Refuse a configuration that lacks a file of the one in use: who reloads by hand may take one away.

        :raises OSError: a file is gone.
        """
        for path in self._read:
            path.stat()

    def _needs_of(self, board: Board) -> dict[str, _Need]:
        config = board.config
        publishers = [Path(one.key) for one in config.publishers.values()]
        sensors = [Path(path) for model in config.model for path in model.sensors]
        keys = board.keys
        return {
            "configuration file": _files(self._read, partial(load_board, self._path), Path(f"{self._path}.d")),
            "own keys": _files(keys.files(), partial(keys.check_files, self._keystore)),
            "publisher records": _files(publishers, board.publishers),
            "hub records": _files([Path(path) for path in config.results.hubs], board.hubs),
            "sensor keys": _files(sensors, board.sensor_keys),
            "broker files": _broker_files(board),
            "state directory": _Need(partial(_access, board.directory), partial(_check_directory, board.directory)),
            "installed packages": _Need(
                lambda: _stamps([*publishers, board.packages.directory, *self._package_files(board)]),
                _files(publishers, lambda: self._check_packages(board)).check,
            ),
        }

    def _packages(self, board: Board) -> list[Installed]:
        serving = [lane.model.manifest for lane in self._lanes.values()]
        return [board.packages.named(manifest.name, manifest.version) for manifest in serving]

    def _package_files(self, board: Board) -> list[Path]:
        return [path for one in self._packages(board) for path in (one.path, one.grant_path)]

    def _check_packages(self, board: Board) -> None:
        """Check that the packages of models in use are there, as long as they were signed, each with its grant.

        They are not mapped: a file that somebody cuts short meanwhile would end this process (SIGBUS).
        """
        check_private(board.packages.directory)
        for one in self._packages(board):
            with open_regular(one.path) as package, open_regular(one.grant_path) as grant:
                size, head = os.fstat(package.fileno()).st_size, package.read(HEAD_LIMIT)
                sealed = grant.read(GRANT_LIMIT)
            with error_context(one.path, "install the package once more"):
                if size != (wanted := signed_length(head, board.publishers())):
                    raise FormatError(f"it is {size} bytes long, and {wanted} were signed")
            with error_context(one.grant_path, "install the package once more"):
                cbor.decode(sealed, RECIPIENT_LIMITS)


def _files(paths: Sequence[Path], check: Callable[[], object], *also: Path) -> _Need:
    """Return the need of files that must be there.

    :param check: reads them.
    :param also: what may be absent, and ``check`` reads, too.
    """

    def checked() -> None:
        for path in paths:
            mode = path.stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # to read a pipe would wait for its writer
                raise MissingFileError(f"{path} is no file")
        check()

    return _Need(lambda: _stamps([*paths, *also]), checked)


def _broker_files(board: Board) -> _Need:
    tables = [table for table in (board.config.broker, board.config.uplink) if table is not None]
    named = [name for one in tables for name in (one.ca, one.cert, one.key, one.password) if name is not None]
    paths = [Path(name) for name in named if not name.startswith("credential:")]

    def check() -> None:
        for path in paths:
            open_regular(path).close()
        for table in tables:
            board.broker_options(table)

    return _files(paths, check)


def _check_directory(directory: Path) -> None:
    check_private(directory)
    room = os.statvfs(directory)
    for path in (directory, directory / STATE):
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise StateError(f"{path} cannot be written", hint=f"see ls -l, lsattr -d and findmnt -T {path}")
    if room.f_blocks and not room.f_bavail:
        raise MachineError(f"{directory}: the disk is full", hint="make room")


def _access(directory: Path) -> object:
    """Return what changes when :func:`_check_directory` may say something else."""
    try:
        room = os.statvfs(directory)
    except OSError as error:
        return error.errno
    writable = [os.access(path, os.R_OK | os.W_OK) for path in (directory, directory / STATE)]
    return _stamp(directory), writable, bool(room.f_bavail)


def _trouble(check: Callable[[], object]) -> str:
    try:
        check()
    except MissingFileError as error:
        return f"{error.message} (put it back as it was)"
    except OSError as error:
        return f"{advice(error)} (put it back as it was)"
    except EdgedError as error:
        return advice(error)
    return ""


def _stamps(paths: Iterable[Path]) -> object:
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns, found.st_ctime_ns
