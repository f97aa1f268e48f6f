"""What tells whether two manifests make the same tensors of the same rows, and number their labels alike."""

from __future__ import annotations

import hashlib

import msgspec

from edged.formats.cose import cbor
from edged.formats.spec import Chain

_TABLES = ("input", "window", "features", "normalise", "tensors")


def fingerprint(chain: Chain) -> bytes:
    """Return the SHA-256 of what stands between a row and the model's input, and of the labels.

    Decisions, thresholds and weights are left out: a window that was kept under one version of a model trains the next.
    """
    tables = {name: msgspec.to_builtins(getattr(chain, name)) for name in _TABLES}
    return hashlib.sha256(cbor.encode([tables, chain.output.kind, list(chain.output.labels)])).digest()
