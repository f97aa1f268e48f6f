"""Secrets that a configuration refers to and never holds: systemd credentials, and files only their owner may read."""

from __future__ import annotations

import os
from pathlib import Path

from edged.base.errors import KeystoreError, MissingFileError, error_context
from edged.base.files import check_private, read_bounded
from edged.config.board import KeystoreTable

_SCHEME = "credential:"
_LIMIT = 64 * 1024
_WRAP, _SHORTEST_WRAP = "keystore.wrap", 16
"""Bytes of the secret that encrypts key files: whoever has the disk can guess it without end, at no cost a guess."""


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


class KeystoreSecrets:
    """The secrets that ``[keystore]`` tables name: read once, by a user who may, and kept for later."""

    def __init__(self) -> None:
        self._read: dict[str, bytes] = {}

    def of(self, table: KeystoreTable) -> tuple[bytes | None, bytes | None]:
        """Return the secret under which ``table``'s file keys are encrypted, and the PIN.

        :raises EdgedError: a secret is absent or open to others, or ``keystore.wrap`` is short enough to guess.
        """
        return self._one(_WRAP, table.wrap), self._one("keystore.pin", table.pin)

    def _one(self, name: str, reference: str | None) -> bytes | None:
        if reference is None:
            return None
        if reference not in self._read:
            with error_context(name):
                secret = read_secret(reference)
                if name == _WRAP and len(secret) < _SHORTEST_WRAP:
                    raise KeystoreError(
                        f"the secret has {len(secret)} bytes; at least {_SHORTEST_WRAP} random ones keep a disk closed",
                        hint="head -c 32 /dev/urandom | base64 | systemd-creds encrypt --name=keystore -"
                        " /etc/edged/credentials/keystore",
                    )
                self._read[reference] = secret
        return self._read[reference]
