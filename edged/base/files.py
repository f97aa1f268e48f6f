"""Files: written whole or not at all, read within bounds, private where they must be."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from edged.base.errors import FormatError, MissingFileError, OutputError, PermissionsError

PRIVATE_FILE, PRIVATE_DIRECTORY = 0o600, 0o700
SHARED_FILE = 0o666
"""Status files that other users of this machine may read, as far as the umask allows."""


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of ``path``.

    :raises MissingFileError: it is absent or unreadable.
    :raises FormatError: it is longer than ``limit`` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise FormatError(f"{path} is longer than the {limit} bytes that are allowed")
    return data


def read_whole(path: Path) -> memoryview:
    """Return the content of a regular file of any size, in memory of its own: the file may change later.

    A map would not do for somebody else's file: to cut that short ends the process that reads the map (SIGBUS).

    :raises MissingFileError: it is absent, unreadable, empty, or no file.
    """
    with open_regular(path) as file:
        view = memoryview(bytearray(os.fstat(file.fileno()).st_size))
        try:
            return view[: file.readinto(view)]
        except OSError as error:
            raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file to read it.

    :raises MissingFileError: it is absent, unreadable, empty, or no file.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    except (OSError, ValueError) as error:
        raise MissingFileError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size:
        return file
    file.close()
    why = "is empty" if stat.S_ISREG(found.st_mode) else "is no file"
    raise MissingFileError(f"{path} {why}", hint="copy it again")


def path_below(base: Path, name: str) -> Path:
    """Return the file ``name`` of directory ``base``: a file may name others beside it, and none elsewhere.

    :raises PermissionsError: it lies outside of ``base``, by its name or through a link.
    """
    try:
        path = base / name
        if path.resolve().is_relative_to(base.resolve()):
            return path
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a null byte
        raise PermissionsError(f"{name!r} is no name of a file: {error}") from error
    raise PermissionsError(f"{name!r} lies outside of {base}", hint=f"copy it there: only files below {base} are read")


def read_private(path: Path, limit: int) -> bytes:
    """Return the content of a file that only its owner may open.

    :raises PermissionsError: others may.
    :raises MissingFileError: it is absent or unreadable.
    """
    check_private(path)
    return read_bounded(path, limit)


def check_private(path: Path) -> None:
    """Refuse a file or directory that others than its owner may open, or that belongs to somebody else.

    :raises PermissionsError: others may open it; the hint is the command that mends it.
    :raises MissingFileError: it is absent.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error
    wanted = PRIVATE_DIRECTORY if stat.S_ISDIR(found.st_mode) else PRIVATE_FILE
    if found.st_mode & 0o077:
        raise PermissionsError(
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})", hint=f"chmod {wanted:04o} {path}"
        )
    if found.st_uid not in (0, os.geteuid()):
        raise PermissionsError(f"{path} belongs to user {found.st_uid}", hint=f"chown {os.geteuid()} {path}")


def make_private_directory(path: Path) -> Path:
    """Make ``path`` and what it lacks of parents with mode 0700, and check that it is private.

    :raises OutputError: it cannot be made.
    """
    try:
        for directory in (*reversed(path.parents), path):
            if not directory.exists():
                directory.mkdir(mode=PRIVATE_DIRECTORY)
    except OSError as error:
        raise OutputError(f"{path} cannot be made: {error.strerror}") from error
    check_private(path)
    return path


def write_atomically(
    path: Path, chunks: Iterable[bytes | memoryview], *, mode: int, replace: bool, durable: bool = True
) -> None:
    """Write ``chunks`` so that after a power cut ``path`` holds the old content or the new, whole.

    A temporary file beside it, fsync, rename (or link, where nothing may be replaced), fsync of the directory.

    :param durable: False leaves out both fsync: readers still see one content or the other, a power cut may lose both.

    :raises OutputError: it exists and ``replace`` is false, or it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(chunks)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            else:
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if durable:
            sync_directory(path.parent)
    except FileExistsError as error:
        raise OutputError(f"{path} exists already", hint="name another file, or remove it first") from error
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        hint = "make room" if full else f"user {os.geteuid()} must be able to write into {path.parent}"
        raise OutputError(f"{path} cannot be written: {error.strerror}", hint=hint) from error


def erase(path: Path) -> None:
    """Overwrite a file and remove it, if it is there.

    Flash, and file systems that copy on write, may keep the old content elsewhere for a while.

    :raises OutputError: it cannot be.
    """
    try:
        with path.open("r+b", buffering=0) as file:
            file.write(os.urandom(os.fstat(file.fileno()).st_size))
            os.fsync(file.fileno())
        path.unlink()
        sync_directory(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{path} cannot be removed: {error.strerror}") from error


def sync_directory(path: Path) -> None:
    """Make the entries of directory ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
