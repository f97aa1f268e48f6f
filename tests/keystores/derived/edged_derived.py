"""``derived:NAME``: a board's keys derived from its PIN, which is a long random secret. Nothing stands on the disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edged.base.errors import KeystoreError
from edged.formats.cose.keys import PrivateKey
from edged.keystore import Protection


@dataclass(frozen=True)
class DerivedKeystore:
    """Both keys in this process's memory, for as long as it runs."""

    signer: PrivateKey
    agreement: PrivateKey

    @classmethod
    def create(cls, uri: str, default: Path, wrapping: bytes | None, pin: bytes | None) -> DerivedKeystore:
        """Derive both keys: there is nothing to make."""
        return cls.open(uri, default, wrapping, pin)

    @classmethod
    def open(cls, uri: str, _default: Path, _wrapping: bytes | None, pin: bytes | None) -> DerivedKeystore:
        """Derive both keys.

        :raises KeystoreError: there is no PIN.
        """
        if pin is None:
            raise KeystoreError(f"{uri} needs a PIN", hint="keystore.pin names the file that holds it")
        return cls(_derive(uri, pin, "sign"), _derive(uri, pin, "ecdh"))

    def protection(self) -> Protection:
        """Return what guards the keys."""
        return Protection("keys derived from keystore.pin", hardware=False, protected=(), ram=("both private keys",))

    def destroy(self) -> None:
        """Leave everything as it is: without the PIN there are no keys."""


def _derive(uri: str, pin: bytes, purpose: str) -> PrivateKey:
    secret = hashlib.scrypt(pin, salt=f"{uri} {purpose}".encode(), n=1 << 14, r=8, p=1, dklen=32)
    return PrivateKey.from_scalar(secret)
