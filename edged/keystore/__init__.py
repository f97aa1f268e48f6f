"""Where a board's two private keys are, behind two operations: ``sign`` and ``ecdh``.

A back end is one file here, found by the scheme of its URI. Installed packages stand beside
the keys (:mod:`edged.keystore.packages`), sealed as they came.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edged.cose.keys import Agreement, Signer
from edged.errors import ConfigError
from edged.keystore.file import FileKeystore


class Keystore(Protocol):
    """A board's keys."""

    @property
    def signer(self) -> Signer:
        """Signs the board's record, announcements and results."""

    @property
    def agreement(self) -> Agreement:
        """Unwraps model keys."""


def open_keystore(uri: str, default: Path, wrapping: bytes | None) -> Keystore:
    """Open the key store that ``uri`` names.

    :param uri: ``file:`` or ``file:/path``.
    :param default: directory of ``file:`` without a path.
    :param wrapping: secret under which private keys are encrypted at rest, if there is one.
    :raises ConfigError: the scheme is unknown.
    :raises KeystoreError: the keys are absent or cannot be opened.
    """
    return FileKeystore.open(_file_directory(uri, default), wrapping)


def create_keystore(uri: str, default: Path, wrapping: bytes | None) -> Keystore:
    """Make a board's two keys; parameters as :func:`open_keystore`.

    :raises OutputError: there are keys already.
    """
    return FileKeystore.create(_file_directory(uri, default), wrapping)


def _file_directory(uri: str, default: Path) -> Path:
    scheme, _, path = uri.partition(":")
    if scheme != "file":
        raise ConfigError(f"keystore.uri: {uri!r} has no scheme that edged knows", hint='"file:" is built in')
    return Path(path) if path else default
