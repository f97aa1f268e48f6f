"""What the COSE_Encrypt0 around 256 bytes costs, against the bare AEAD call without any envelope or associated data."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from timeit import Timer

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from report import Row, ratio

from edged.cose import cbor
from edged.cose.algorithms import Aead
from edged.cose.encrypt0 import Box
from edged.cose.keys import ContentKey

_SIZE = 256
_LIMIT = 4096
_BAR = 2.5

_PAIRS = {
    "seal": ("box.seal(iv, plaintext)", "bare.encrypt(iv, plaintext, None)"),
    "open": ("box.open(message, limit)", "bare.decrypt(iv, ciphertext, None)"),
}


def measure(_directory: Path, *, quick: bool) -> list[Row]:
    """Seal and open, in turns with the bare call."""
    rounds, calls = (5, 4_000) if quick else (25, 20_000)
    key = ContentKey.generate(Aead.A256GCM)
    box = Box(key, cbor.encode(["edged.result.1", "bench", "c1"]))
    bare = AESGCM(key.secret)
    iv, plaintext = os.urandom(12), os.urandom(_SIZE)
    names = {
        "bare": bare, "box": box, "iv": iv, "plaintext": plaintext,
        "message": box.seal(iv, plaintext), "ciphertext": bare.encrypt(iv, plaintext, None), "limit": _LIMIT,
    }  # fmt: skip
    took: dict[str, list[float]] = {call: [] for pair in _PAIRS.values() for call in pair}
    for _ in range(rounds):
        for call, times in took.items():
            times.append(Timer(call, globals=names).timeit(calls) / calls)
    rows = [
        Row(f"COSE_Encrypt0 of {_SIZE} bytes, {what} / bare AES-256-GCM", ratio(took[ours], took[aead]), "x", _BAR)
        for what, (ours, aead) in _PAIRS.items()
    ]
    return rows + [Row(f"  {call}", median(times) * 1e6, "us") for call, times in took.items()]
