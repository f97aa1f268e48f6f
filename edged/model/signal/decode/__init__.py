"""From a message's bytes to rows, each format in a file of its own."""

from edged.model.signal.decode.decoder import Decoded, Decoder
from edged.model.signal.decode.layout import Layout

__all__ = ["Decoded", "Decoder", "Layout"]
