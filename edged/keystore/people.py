"""Private keys of people and hubs: PKCS#8 PEM in one file, the signing key first, under a passphrase by default."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edged.cose.keys import PrivateKey
from edged.cose.pem import read_pem, write_pem
from edged.errors import EdgedError, KeystoreError
from edged.files import PRIVATE_FILE, read_private, write_atomically

_BLOCK = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----\n?", re.DOTALL)
_LIMIT = 16 * 1024


@dataclass(frozen=True)
class PersonalKeys:
    """The keys in one PEM file.

    :ivar signer: signs packages (publisher) or the owner's own record (operator, hub).
    :ivar agreement: opens what is sealed to the owner; None for a publisher.
    """

    signer: PrivateKey
    agreement: PrivateKey | None

    @classmethod
    def generate(cls, *, agreement: bool) -> PersonalKeys:
        """Make new keys."""
        return cls(PrivateKey.generate(), PrivateKey.generate() if agreement else None)

    def write(self, path: Path, passphrase: bytes | None) -> None:
        """Write a new file, mode 0600.

        :raises OutputError: there is one already.
        """
        keys = [key for key in (self.signer, self.agreement) if key is not None]
        write_atomically(path, [write_pem(key, passphrase) for key in keys], mode=PRIVATE_FILE, replace=False)

    @classmethod
    def read(cls, path: Path, passphrase: bytes | None) -> PersonalKeys:
        """Read a file that :meth:`write` wrote.

        :raises KeystoreError: it holds no such keys, or the passphrase does not open them.
        :raises PermissionsError: others may read it.
        """
        blocks = _BLOCK.findall(read_private(path, _LIMIT))
        if len(blocks) not in (1, 2):
            raise KeystoreError(f"{path} holds {len(blocks)} PEM blocks, not one or two private keys")
        try:
            keys = [read_pem(block, passphrase) for block in blocks]
        except EdgedError as error:
            raise KeystoreError(f"{path}: {error.message}", hint="is the passphrase right?") from error
        return cls(keys[0], keys[1] if keys[1:] else None)

    @staticmethod
    def is_encrypted(path: Path) -> bool:
        """Return whether a passphrase is needed to read the file."""
        return b"ENCRYPTED PRIVATE KEY" in read_private(path, _LIMIT)

    def need_publisher(self, path: Path) -> PrivateKey:
        """Return :attr:`signer` if it signs models.

        :raises KeystoreError: the file holds an operator's or hub's keys: boards believe no model that those sign.
        """
        if self.agreement is not None:
            raise KeystoreError(
                f"{path} holds an operator's or a hub's keys, which sign no models", hint="name the publisher's key"
            )
        return self.signer

    def need_agreement(self, path: Path) -> PrivateKey:
        """Return :attr:`agreement`.

        :raises KeystoreError: the file holds a publisher's key, to which nothing is sealed.
        """
        if self.agreement is None:
            raise KeystoreError(
                f"{path} holds a publisher's key, which opens nothing", hint="name the hub's or operator's key"
            )
        return self.agreement
