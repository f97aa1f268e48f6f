"""How the messages of a topic are laid out: the site's words and the manifest's, brought together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edged.config.model import Calibration, Each, Format, ModelConfig, RawImage, TimeField
from edged.formats.spec import Image, Input


@dataclass(frozen=True)
class Layout:
    """What a decoder has to know; two models with the same layout of a topic share what was decoded.

    :ivar channels: the values of a row, in their order.
    :ivar fields: of those that the site names: channel and JSON pointer, or column of a CSV.
    :ivar calibrate: channel, scale and offset of those that the site calibrates.
    :ivar picture: what a picture is resized to.
    :ivar limit: the longest message that is taken, in bytes.
    """

    format: Format
    each: Each
    channels: tuple[str, ...]
    limit: int
    missing: Literal["refuse", "hold"] | float = "refuse"
    fields: tuple[tuple[str, str], ...] = ()
    calibrate: tuple[tuple[str, Calibration], ...] = ()
    time: TimeField | None = None
    raw: RawImage | None = None
    picture: Image | None = None

    @classmethod
    def of(cls, config: ModelConfig, source: Input, channels: Sequence[str], limit: int) -> Layout:
        """Return the layout of a topic that carries ``channels``."""
        return cls(
            config.format,
            config.each,
            tuple(channels),
            limit,
            source.missing,
            tuple((name, at) for name, at in config.fields.items() if name in channels),
            tuple((name, one) for name, one in config.calibrate.items() if name in channels),
            config.time,
            config.image,
            source.image,
        )
