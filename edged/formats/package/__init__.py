"""Sealed models: a signed manifest, one wrapped key to each board, and the encrypted weights, in one file.

What can be done with a package follows from its type (``verify``): a ``Package`` can only be verified, a
``VerifiedPackage`` unwrapped, an ``UnwrappedPackage`` decrypted.

Stores keep the :class:`Floor`, and import nothing else of this package.
"""

from __future__ import annotations

from typing import NamedTuple


class Floor(NamedTuple):
    """The highest version ever accepted under a name, and the SHA-256 of its manifest."""

    version: int
    identity: bytes
