"""``file:``: two private keys in a directory that only its owner may open.

Each is a COSE_Key (RFC 9052, section 7) in a file of its own. Where a wrapping secret is given (a systemd credential,
which the TPM or the host key protects) the COSE_Key is sealed under it, so that the disk alone opens nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edged.base.errors import EdgedError, FormatError, KeystoreError, MismatchError
from edged.base.files import PRIVATE_FILE, check_private, erase, make_private_directory, read_private, write_atomically
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, KEY_SIZE, Aead
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import ContentKey, PrivateKey, PublicKey
from edged.keystore import SHARED_SECRET, Protection

_CONTEXT = "edged.keystore.1"
_LIMIT = 1024
_SCALAR = -4


class FileKeystore(msgspec.Struct, frozen=True):
    """Both keys in this process's memory, from their files in ``directory``."""

    signer: PrivateKey
    agreement: PrivateKey
    directory: Path
    wrapped: bool

    @classmethod
    def create(cls, uri: str, default: Path, wrapping: bytes | None, _pin: bytes | None = None) -> FileKeystore:
        """Make both keys in the URI's directory, or in ``default``.

        :raises OutputError: a key stands there already.
        """
        directory = _directory(uri, default)
        make_private_directory(directory)
        keystore = cls(PrivateKey.generate(), PrivateKey.generate(), directory, wrapping is not None)
        for purpose, key in (("sign", keystore.signer), ("ecdh", keystore.agreement)):
            encoded = cbor.encode({**key.public.cose(), _SCALAR: key.scalar()})
            if wrapping is not None:
                encoded = _box(wrapping, purpose).seal(os.urandom(IV_SIZE), encoded)
            write_atomically(directory / f"{purpose}.key", [encoded], mode=PRIVATE_FILE, replace=False)
        return keystore

    @classmethod
    def open(cls, uri: str, default: Path, wrapping: bytes | None, _pin: bytes | None = None) -> FileKeystore:
        """Open both keys.

        :raises KeystoreError: they are absent, or the wrapping secret does not open them.
        :raises PermissionsError: others may read them.
        """
        directory = _directory(uri, default)
        if not directory.is_dir():
            raise KeystoreError(f"there is no key store at {directory}", hint="`edged init` makes this board's keys")
        check_private(directory)
        sign, ecdh = (_read(directory, purpose, wrapping) for purpose in ("sign", "ecdh"))
        return cls(sign, ecdh, directory, wrapping is not None)

    def protection(self) -> Protection:
        """Return what guards the keys."""
        return Protection(
            store=f"files in {self.directory}",
            hardware=False,
            protected=("both private keys on the disk, as well as what seals keystore.wrap",) if self.wrapped else (),
            ram=("both private keys, as long as a process uses them", SHARED_SECRET),
        )

    def destroy(self) -> None:
        """Overwrite and remove both key files."""
        for purpose in ("sign", "ecdh"):
            erase(self.directory / f"{purpose}.key")


def _directory(uri: str, default: Path) -> Path:
    path = uri.partition(":")[2]
    return Path(path) if path else default


def _read(directory: Path, purpose: str, wrapping: bytes | None) -> PrivateKey:
    path = directory / f"{purpose}.key"
    data = read_private(path, _LIMIT)
    try:
        if wrapping is not None:
            _, data = _box(wrapping, purpose).open(data, _LIMIT)
        return _parse(cbor.decode_canonical(data))
    except EdgedError as error:
        raise KeystoreError(
            f"{path} cannot be opened: {error.message}",
            hint="is `keystore.wrap` the credential that the keys were made with? damaged keys: restore a copy of them",
        ) from error


def _parse(value: object) -> PrivateKey:
    if not isinstance(value, dict) or not isinstance(value.get(_SCALAR), bytes):
        raise FormatError("not a private COSE_Key; it may be sealed under a credential")
    key = PrivateKey.from_scalar(value[_SCALAR])
    if PublicKey.parse({label: part for label, part in value.items() if label != _SCALAR}) != key.public:
        raise MismatchError("the public half does not belong to the private one")
    return key


def _box(wrapping: bytes, purpose: str) -> Box:
    """Derive the key that seals one key file from the wrapping secret, which may be of any length and form."""
    secret = HKDF(hashes.SHA256(), KEY_SIZE, salt=None, info=f"{_CONTEXT} {purpose}".encode()).derive(wrapping)
    return Box(ContentKey(Aead.A256GCM, secret), cbor.encode([_CONTEXT, purpose]))
