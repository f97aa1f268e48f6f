"""Padding of what a board says of itself, so that its size says little."""

from __future__ import annotations

from collections.abc import Mapping

from edged.formats.cose import cbor


def encode_padded(value: Mapping[str, object], step: int, most: float) -> bytes:
    """Return a map with a ``pad`` of zeros as CBOR: a multiple of ``step`` bytes, or without zeros if ``most`` is less.

    :param most: bytes that the broker takes.
    """
    short = len(cbor.encode({**value, "pad": bytes(step)}))
    padded = cbor.encode({**value, "pad": bytes(step + -short % step)})
    return padded if len(padded) <= most else cbor.encode({**value, "pad": b""})
