"""P-256 keys in the two forms that other programs ask for: OpenSSH's for a private key, PEM for a public one."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization

from edged.formats.cose.keys import PrivateKey, PublicKey


def private_openssh(key: PrivateKey) -> bytes:
    """Return an unencrypted OpenSSH private key: for a pipe or a file in RAM, never for a disk."""
    return key.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def public_pem(key: PublicKey) -> bytes:
    """Return a SubjectPublicKeyInfo in PEM (RFC 7468)."""
    return key.point.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
