"""P-256 keys in the forms of other programs: PKCS#8 and SubjectPublicKeyInfo in PEM (RFC 7468), and OpenSSH's.

Apart from ``keys``: a board reads none of them, and the import costs 1 MB of RAM.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edged.base.errors import KeystoreError
from edged.formats.cose.keys import PrivateKey, PublicKey


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


def private_openssh(key: PrivateKey) -> bytes:
    """Return an unencrypted OpenSSH private key: for a pipe or a file in RAM, never for a disk."""
    return key.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def public_pem(key: PublicKey) -> bytes:
    """Return a SubjectPublicKeyInfo in PEM (RFC 7468)."""
    return key.point.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
