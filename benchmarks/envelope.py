"""What the COSE_Encrypt0 around 256 bytes costs, against the bare AEAD call without any envelope or associated data."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from timeit import Timer

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from report import Row, ratio

from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead, enc_structure, protected
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import ContentKey

_SIZE = 256
_LIMIT = 4096
_BAR = 2.5

_PAIRS = {
    "seal": ("box.seal(iv, plaintext)", "bare.encrypt(iv, plaintext, None)"),
    "open": ("box.open(message, limit)", "bare.decrypt(iv, ciphertext, None)"),
}
_SAME_AAD = {
    "seal": ("box.seal(iv, plaintext)", "bare.encrypt(iv, plaintext, aad)"),
    "open": ("box.open(message, limit)", "bare.decrypt(iv, bound, aad)"),
}


def measure(_directory: Path, *, quick: bool) -> list[Row]:
    """Seal and open, in turns with the bare call."""
    rounds, calls = (5, 4_000) if quick else (25, 20_000)
    key = ContentKey.generate(Aead.A256GCM)
    context = cbor.encode(["edged.result.1", "bench", "c1"])
    box, aad = Box(key, context), enc_structure("Encrypt0", protected(Aead.A256GCM), context)
    bare = AESGCM(key.secret)
    iv, plaintext = os.urandom(12), os.urandom(_SIZE)
    names = {
        "bare": bare, "box": box, "iv": iv, "plaintext": plaintext,
        "message": box.seal(iv, plaintext), "limit": _LIMIT,
        "ciphertext": bare.encrypt(iv, plaintext, None), "aad": aad, "bound": bare.encrypt(iv, plaintext, aad),
    }  # fmt: skip
    took: dict[str, list[float]] = {call: [] for pair in (*_PAIRS.values(), *_SAME_AAD.values()) for call in pair}
    for _ in range(rounds):
        for call, times in took.items():
            times.append(Timer(call, globals=names).timeit(calls) / calls)
    return [
        *(
            Row(f"COSE_Encrypt0 of {_SIZE} bytes, {what} / bare AES-256-GCM", ratio(took[ours], took[aead]), "x", _BAR)
            for what, (ours, aead) in _PAIRS.items()
        ),
        *(
            Row(f"  {what} / AES-256-GCM over the same associated data", ratio(took[ours], took[aead]), "x")
            for what, (ours, aead) in _SAME_AAD.items()
        ),
        *(Row(f"  {call}", median(times) * 1e6, "us") for call, times in took.items()),
    ]
