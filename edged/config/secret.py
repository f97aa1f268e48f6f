"""Secrets that a configuration refers to and never holds: systemd credentials, and files only their owner may read."""

from __future__ import annotations

import os
from pathlib import Path

from edged.errors import MissingFileError
from edged.files import check_private, read_bounded

_SCHEME = "credential:"
_LIMIT = 64 * 1024


def read_secret(reference: str) -> bytes:
    """Return a secret without its last line break.

    :param reference: ``credential:NAME`` for a systemd credential, else a path.
    :raises MissingFileError: there is no such credential or file.
    :raises PermissionsError: others may read the file.
    """
    return read_bounded(secret_path(reference), _LIMIT).removesuffix(b"\n")


def secret_path(reference: str) -> Path:
    """Return the file that holds a secret, for libraries that want a path; the rest is as in :func:`read_secret`."""
    if not reference.startswith(_SCHEME):
        path = Path(reference)
        check_private(path)
        return path
    name = reference.removeprefix(_SCHEME)
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(directory or "/", name)
    if directory is None or path.parent != Path(directory) or not path.is_file():
        raise MissingFileError(
            f"there is no credential {name!r}",
            hint=f"LoadCredentialEncrypted={name}:... in the unit; for a command, systemd-run -p with the same",
        )
    return path
