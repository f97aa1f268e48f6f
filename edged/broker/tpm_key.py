"""A TLS client key that a TPM holds: OpenSSL's provider ``tpm2``, switched on in the OpenSSL of Python's ``ssl`` alone.

Python's ``ssl`` takes private keys from PEM files and from nowhere else. The provider (Debian: tpm2-openssl) decodes a
PEM file of the form ``TSS2 PRIVATE KEY``, and its signatures are made in the TPM. OPENSSL_CONF could switch it on as
well, and must not: the cryptography package obeys that variable in an OpenSSL of its own, which would send the keys of
every message to the TPM, through a module that was built for another OpenSSL.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

from edged.base.errors import BrokerError

_MARK = b"-----BEGIN TSS2 PRIVATE KEY-----"
_LIMIT = 64 * 1024
_PREFERENCE = b"?provider=tpm2,tpm2.digest!=yes,tpm2.cipher!=yes"
"""Without it OpenSSL 3.0 signs with its own code, which finds no private key: hashes and ciphers stay in software."""
_HINT = "apt install tpm2-openssl; a Python that uses the system's OpenSSL, such as Debian's; systemd/drop-ins/tpm.conf"


def is_tpm_key(path: Path) -> bool:
    """Return True if a PEM file holds a key of a TPM.

    :raises OSError: the file is absent or unreadable.
    """
    with path.open("rb") as file:
        return _MARK in file.read(_LIMIT)


@cache
def use_tpm() -> None:
    """Let TLS connections of this process use keys of the TPM, from now on.

    :raises BrokerError: this machine or this Python cannot.
    """
    found = importlib.util.find_spec("_ssl")
    try:
        openssl = ctypes.CDLL(found.origin if found else None)  # and the libcrypto that it stands on
        load, prefer = openssl.OSSL_PROVIDER_load, openssl.EVP_set_default_properties
    except (AttributeError, OSError) as error:
        raise BrokerError("broker.key is a TPM's: this Python's ssl has no OpenSSL 3 to share", hint=_HINT) from error
    load.restype, load.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
    prefer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for provider in (b"default", b"tpm2"):  # the first is there by itself only as long as no other is loaded
        if not load(None, provider):
            raise BrokerError(f"broker.key is a TPM's: OpenSSL cannot load its provider {provider!r}", hint=_HINT)
    prefer(None, _PREFERENCE)
