"""Private keys of people as PKCS#8 PEM. Apart from other keys: a board reads none, and the import costs 1 MB of RAM."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edged.base.errors import KeystoreError
from edged.formats.cose.keys import PrivateKey


def read_pem(pem: bytes, passphrase: bytes | None) -> PrivateKey:
    """Read one PKCS#8 PEM block.

    :raises KeystoreError: not such a key, or the passphrase does not open it.
    """
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeystoreError(f"the private key cannot be opened: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeystoreError("the private key is not on P-256")
    return PrivateKey(key)


def write_pem(key: PrivateKey, passphrase: bytes | None) -> bytes:
    """Return PKCS#8 PEM, encrypted under ``passphrase`` unless it is None."""
    protection: serialization.KeySerializationEncryption = (
        serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    )
    return key.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
