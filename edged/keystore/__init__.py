"""Private keys behind two operations, ``sign`` and ``ecdh``, and the files beside them.

May import: config, formats, base.

A key store is a class that makes and finds a board's two keys (:class:`KeystoreClass`). The scheme of its URI names
it: edged's own stand in :data:`_BUILT_IN`, all others are entry points of the group ``edged.keystores`` in whatever
distributions are installed. A class is imported when a URI names its scheme, and not before.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from edged.base.errors import ConfigError, KeystoreError, SignatureError

if TYPE_CHECKING:  # commands that only look at installed packages need no cryptography
    from edged.formats.cose.keys import Agreement, Signer

DIRECTORY = "keystore"
"""A board's keys, records and packages, below its state."""

GROUP = "edged.keystores"
"""Entry points: a scheme on the left, ``module:class`` on the right."""

_BUILT_IN: Mapping[str, str] = {
    "file": "edged.keystore.file:FileKeystore",
    "pkcs11": "edged.keystore.pkcs11:TokenKeystore",
    "tpm2": "edged.keystore.tpm2:TpmKeystore",
}

_TIMES = 5  # odd: the median is one of them

SHARED_SECRET = "the shared secret of each agreement (z), and the content keys and models that it opens"  # noqa: S105
PIN = "the PIN, as long as the process runs"


class Protection(msgspec.Struct, frozen=True):
    """The guards of a key store's private keys.

    :ivar store: what holds them.
    :ivar hardware: true for hardware apart from this computer's memory and disk.
    :ivar protected: what cannot be taken from it.
    :ivar ram: what passes through this computer's memory all the same.
    """

    store: str
    hardware: bool
    protected: tuple[str, ...]
    ram: tuple[str, ...]


class Times(msgspec.Struct, frozen=True):
    """Median seconds that each of the two operations takes."""

    sign: float
    ecdh: float


class Keystore(Protocol):
    """A board's keys."""

    @property
    def signer(self) -> Signer:
        """Signs the board's record, announcements and results."""

    @property
    def agreement(self) -> Agreement:
        """Unwraps model keys."""

    def protection(self) -> Protection:
        """Return the keys' guards."""

    def destroy(self) -> None:
        """Remove both private keys for good.

        :raises KeystoreError: the store refuses.
        """


class KeystoreClass(Protocol):
    """A kind of key store. The parameters of both methods are those of :func:`open_keystore`, by position."""

    def create(self, uri: str, default: Path, wrapping: bytes | None, pin: bytes | None, /) -> Keystore:
        """Make both keys.

        :raises OutputError: there are keys already.
        :raises KeystoreError: the store refuses.
        """

    def open(self, uri: str, default: Path, wrapping: bytes | None, pin: bytes | None, /) -> Keystore:
        """Find both keys.

        :raises KeystoreError: the keys are absent or cannot be opened.
        """


def open_keystore(uri: str, default: Path, wrapping: bytes | None, pin: bytes | None = None) -> Keystore:
    """Open the key store that ``uri`` names.

    :param uri: ``file:[DIRECTORY]``, ``pkcs11:...`` (RFC 7512), ``tpm2:[DIRECTORY][?tcti=...]``, or that of another
        distribution.
    :param default: directory of a store that keeps files and whose URI names none.
    :param wrapping: secret under which ``file:`` keys are encrypted at rest, if there is one.
    :param pin: the secret that a token, a TPM or a service asks for, if it does.
    :raises ConfigError: the scheme is unknown, or its library is not installed.
    :raises KeystoreError: the keys are absent or cannot be opened.
    """
    return keystore_class(uri).open(uri, default, wrapping, pin)


def create_keystore(uri: str, default: Path, wrapping: bytes | None, pin: bytes | None = None) -> Keystore:
    """Make a board's two keys, and try both operations; parameters as :func:`open_keystore`.

    :raises OutputError: there are keys already.
    :raises KeystoreError: the store cannot do what edged needs; no keys stay in it then.
    """
    keystore = keystore_class(uri).create(uri, default, wrapping, pin)
    try:
        exercise(keystore.signer, keystore.agreement)
    except KeystoreError:
        keystore.destroy()
        raise
    return keystore


def keystore_class(uri: str) -> KeystoreClass:
    """Return the class of a URI's scheme.

    :raises ConfigError: no class has the scheme, or the class cannot be imported.
    """
    scheme = uri.partition(":")[0]
    if scheme in _BUILT_IN:
        module, _, name = _BUILT_IN[scheme].partition(":")
        found: KeystoreClass = getattr(importlib.import_module(module), name)
        return found
    return _find_installed(uri, scheme)


def _find_installed(uri: str, scheme: str) -> KeystoreClass:
    from importlib.metadata import entry_points  # noqa: PLC0415  slow, and not for edged's own key stores

    candidates = entry_points(group=GROUP, name=scheme)
    owners = sorted(one.dist.name for one in candidates if one.dist is not None)
    if not candidates:
        known = ", ".join(f'"{name}:"' for name in _BUILT_IN)
        raise ConfigError(
            f"keystore.uri: {uri!r} has no scheme that edged knows",
            hint=f"known are {known}; no installed distribution has {scheme!r}",
        )
    if len(candidates) > 1:
        raise ConfigError(
            f"keystore.uri: more than one installed distribution has the scheme {scheme!r}: {', '.join(owners)}",
            hint="uninstall all but one",
        )
    try:
        (found,) = (one.load() for one in candidates)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"keystore.uri: {uri!r}: {', '.join(owners)} cannot be imported: {error}") from error
    installed: KeystoreClass = found
    return installed


def exercise(signer: Signer, agreement: Agreement | None) -> Times:
    """Make both operations, and check what comes out in software.

    :param agreement: None for a publisher, who has none; its time is 0 then.
    :raises KeystoreError: an operation fails, or is wrong.
    """
    import hashlib  # noqa: PLC0415  OpenSSL: as above

    message = os.urandom(32)
    digest = hashlib.sha256(message).digest()

    def sign() -> None:
        try:
            signer.public.verify(signer.sign(digest), message)
        except SignatureError as error:
            raise KeystoreError("the key store signs with another key than it shows") from error

    if agreement is None:
        return Times(_median(sign), 0.0)
    from edged.formats.cose.keys import PrivateKey  # noqa: PLC0415  as above

    peer = PrivateKey.generate()
    right = peer.ecdh(agreement.public)

    def agree() -> None:
        if agreement.ecdh(peer.public) != right:
            raise KeystoreError("the key store agrees with another key than it shows")

    return Times(_median(sign), _median(agree))


def _median(operation: Callable[[], None]) -> float:
    seconds = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        operation()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[_TIMES // 2]


def coordinate(value: bytes) -> bytes:
    """Return a number that a device wrote in as many bytes as it liked as the 32 that P-256 wants.

    :raises KeystoreError: it is no coordinate.
    """
    short = value.lstrip(b"\0")
    if not 0 < len(short) <= 32:  # noqa: PLR2004  the size of P-256
        raise KeystoreError(f"the device returned {len(value)} bytes that are no number of P-256")
    return short.rjust(32, b"\0")
