"""P-256 keys in the forms of other programs: PKCS#8 and SubjectPublicKeyInfo in PEM (RFC 7468), and OpenSSH's.

Apart from ``keys``: a board reads none of them, and the import costs 1 MB of RAM.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from edged.base.errors import KeystoreError
from edged.formats.cose.keys import Keys, PrivateKey, PublicKey

_COST, _BLOCK, _PARALLEL = 1 << 17, 8, 1
"""scrypt's N, r and p (RFC 7914): 128 MB and about half a second for each guess at a passphrase."""
_KEY, _IV = 32, 16
_PBES2, _SCRYPT, _AES_256_CBC = (  # object identifiers in DER: RFC 8018 (A.4, B.2.5) and RFC 7914 (section 7)
    bytes.fromhex(number) for number in ("06092a864886f70d01050d", "06092b06010401da47040b", "060960864801650304012a")
)
_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----\n?", re.DOTALL)
_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04
_HEAD, _TAIL = b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"-----END ENCRYPTED PRIVATE KEY-----"


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
    """Return PKCS#8 PEM; under ``passphrase``, unless it is None, as PBES2 with scrypt and AES-256-CBC.

    The PBES2 that cryptography writes has PBKDF2 of 2,048 rounds, and takes no other number.
    """
    encoding = serialization.Encoding.PEM if passphrase is None else serialization.Encoding.DER
    plain = key.key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    if passphrase is None:
        return plain
    salt, iv = os.urandom(_IV), os.urandom(_IV)
    secret = Scrypt(salt=salt, length=_KEY, n=_COST, r=_BLOCK, p=_PARALLEL).derive(passphrase)
    pad, encryptor = padding.PKCS7(8 * _IV).padder(), Cipher(algorithms.AES(secret), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(pad.update(plain) + pad.finalize()) + encryptor.finalize()
    numbers = b"".join(
        _der(_INTEGER, one.to_bytes(one.bit_length() // 8 + 1, "big")) for one in (_COST, _BLOCK, _PARALLEL)
    )
    kdf = _der(_SEQUENCE, _SCRYPT, _der(_SEQUENCE, _der(_OCTETS, salt), numbers))
    scheme = _der(_SEQUENCE, _PBES2, _der(_SEQUENCE, kdf, _der(_SEQUENCE, _AES_256_CBC, _der(_OCTETS, iv))))
    text = b64encode(_der(_SEQUENCE, scheme, _der(_OCTETS, sealed)))
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join([_HEAD, *lines, _TAIL, b""])


def read_keys(pem: bytes, passphrase: bytes | None = None) -> Keys:
    """Read the keys of one person or hub: one or two PEM blocks, the signing key first.

    :param pem: as :func:`write_keys` returned it, which is the content of a key file of `edged keygen`.
    :raises KeystoreError: it holds no such keys, or the passphrase does not open them.
    """
    blocks = _PEM.findall(pem)
    if len(blocks) not in (1, 2):
        raise KeystoreError(f"{len(blocks)} PEM blocks, not one or two private keys")
    keys = [read_pem(block, passphrase) for block in blocks]
    return Keys(keys[0], keys[1] if keys[1:] else None)


def write_keys(keys: Keys, passphrase: bytes | None) -> bytes:
    """Return keys as PEM blocks, each as :func:`write_pem` writes it.

    :raises KeystoreError: they are on a token, which does not give them away.
    """
    blocks = b""
    for key in (keys.signer, keys.agreement):
        if isinstance(key, PrivateKey):
            blocks += write_pem(key, passphrase)
        elif key is not None:
            raise KeystoreError("the keys are not in this process's memory")
    return blocks


def is_outdated(pem: bytes) -> bool:
    """Return True if a PEM block stands under a passphrase by another function than scrypt."""
    texts = (block.strip() for block in _PEM.findall(pem) if block.startswith(_HEAD))
    return any(_SCRYPT not in b64decode(text.removeprefix(_HEAD).removesuffix(_TAIL)) for text in texts)


def _der(tag: int, *parts: bytes) -> bytes:
    """Encode a value of at most 65,535 bytes (X.690, section 8.1)."""
    body = b"".join(parts)
    size = len(body)
    length = (size,) if size < 0x80 else (0x82, *divmod(size, 256)) if size > 0xFF else (0x81, size)
    return bytes((tag, *length)) + body


def private_openssh(key: PrivateKey) -> bytes:
    """Return an unencrypted OpenSSH private key: for a pipe or a file in RAM, never for a disk."""
    return key.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def public_pem(key: PublicKey) -> bytes:
    """Return a SubjectPublicKeyInfo in PEM (RFC 7468)."""
    return key.point.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
