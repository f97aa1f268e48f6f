"""Where a board's two private keys are, behind two operations: ``sign`` and ``ecdh``.

A back end is one file here, found by the scheme of its URI and imported only then. Installed packages stand beside
the keys (:mod:`edged.keystore.packages`), sealed as they came. May import: config, formats, base.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edged.base.errors import ConfigError, KeystoreError
from edged.formats.cose.keys import Agreement, Signer
from edged.keystore.file import FileKeystore
from edged.keystore.protection import Protection, exercise


class Keystore(Protocol):
    """A board's keys."""

    @property
    def signer(self) -> Signer:
        """Signs the board's record, announcements and results."""

    @property
    def agreement(self) -> Agreement:
        """Unwraps model keys."""

    def protection(self) -> Protection:
        """Return what guards the keys."""

    def destroy(self) -> None:
        """Remove both private keys for good.

        :raises KeystoreError: the store refuses.
        """


def open_keystore(uri: str, default: Path, wrapping: bytes | None, pin: bytes | None = None) -> Keystore:
    """Open the key store that ``uri`` names.

    :param uri: ``file:[DIRECTORY]``, ``pkcs11:...`` (RFC 7512) or ``tpm2:[DIRECTORY][?tcti=...]``.
    :param default: directory of ``file:`` and ``tpm2:`` without a path.
    :param wrapping: secret under which ``file:`` keys are encrypted at rest, if there is one.
    :param pin: what a token or TPM asks for, if it does.
    :raises ConfigError: the scheme is unknown, or its library is not installed.
    :raises KeystoreError: the keys are absent or cannot be opened.
    """
    scheme, _, path = uri.partition(":")
    if scheme == "pkcs11":
        from edged.keystore.pkcs11 import TokenKeystore  # noqa: PLC0415  an extra

        return TokenKeystore.open(uri, pin)
    if scheme == "tpm2":
        from edged.keystore.tpm2 import TpmKeystore  # noqa: PLC0415  an extra

        return TpmKeystore.open(uri, default, pin)
    if scheme == "file":
        return FileKeystore.open(Path(path) if path else default, wrapping)
    raise _unknown(uri)


def create_keystore(uri: str, default: Path, wrapping: bytes | None, pin: bytes | None = None) -> Keystore:
    """Make a board's two keys, and try both operations; parameters as :func:`open_keystore`.

    :raises OutputError: there are keys already.
    :raises KeystoreError: the store cannot do what edged needs; no keys stay in it then.
    """
    keystore = _create(uri, default, wrapping, pin)
    try:
        exercise(keystore.signer, keystore.agreement)
    except KeystoreError:
        keystore.destroy()
        raise
    return keystore


def _create(uri: str, default: Path, wrapping: bytes | None, pin: bytes | None) -> Keystore:
    scheme, _, path = uri.partition(":")
    if scheme == "pkcs11":
        from edged.keystore.pkcs11 import TokenKeystore  # noqa: PLC0415  an extra

        return TokenKeystore.create(uri, pin)
    if scheme == "tpm2":
        from edged.keystore.tpm2 import TpmKeystore  # noqa: PLC0415  an extra

        return TpmKeystore.create(uri, default, pin)
    if scheme == "file":
        return FileKeystore.create(Path(path) if path else default, wrapping)
    raise _unknown(uri)


def _unknown(uri: str) -> ConfigError:
    return ConfigError(
        f"keystore.uri: {uri!r} has no scheme that edged knows", hint='known are "file:", "pkcs11:", "tpm2:"'
    )
