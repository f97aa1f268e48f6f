"""What guards private keys, as their key store itself tells it; and a trial of both operations against software."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from edged.base.errors import KeystoreError, SignatureError
from edged.formats.cose.keys import Agreement, PrivateKey, Signer

_TIMES = 5

SHARED_SECRET = "the shared secret of each agreement (z), and the content keys and models that it opens"  # noqa: S105
PIN = "the PIN, as long as the process runs"


@dataclass(frozen=True)
class Protection:
    """What guards the private keys of a key store.

    :ivar store: what holds them.
    :ivar hardware: whether that is hardware apart from this computer's memory and disk.
    :ivar protected: what cannot be taken from it.
    :ivar ram: what passes through this computer's memory all the same.
    """

    store: str
    hardware: bool
    protected: tuple[str, ...]
    ram: tuple[str, ...]


@dataclass(frozen=True)
class Times:
    """How long the two operations take: median seconds."""

    sign: float
    ecdh: float


def exercise(signer: Signer, agreement: Agreement | None) -> Times:
    """Make both operations, and check what comes out in software.

    :param agreement: None for a publisher, who has none; its time is 0 then.
    :raises KeystoreError: an operation fails, or is wrong.
    """
    message = os.urandom(32)
    digest = hashlib.sha256(message).digest()

    def sign() -> None:
        try:
            signer.public.verify(signer.sign(digest), message)
        except SignatureError as error:
            raise KeystoreError("the key store signs with another key than it shows") from error

    if agreement is None:
        return Times(_median(sign), 0.0)
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
    return statistics.median(seconds)


def coordinate(value: bytes) -> bytes:
    """Return a number that a device wrote in as many bytes as it liked as the 32 that P-256 wants.

    :raises KeystoreError: it is no coordinate.
    """
    short = value.lstrip(b"\0")
    if not 0 < len(short) <= 32:  # noqa: PLR2004  the size of P-256
        raise KeystoreError(f"the device returned {len(value)} bytes that are no number of P-256")
    return short.rjust(32, b"\0")
