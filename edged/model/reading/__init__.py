"""Readings: from a message's bytes to rows, and from recorded rows to the bytes that a sensor would send.

To add a format: its name and its row in :mod:`edged.formats.readings`, a parser and an encoder in a file here, and both
in the table of :mod:`edged.model.reading.decoder`.
"""

from edged.model.reading.decoder import CODECS, Decoded, Decoder, encode_reading
from edged.model.reading.layout import Layout

__all__ = ["CODECS", "Decoded", "Decoder", "Layout", "encode_reading"]
