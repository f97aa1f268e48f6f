"""From a picture's bytes to the rows of a window: its pixels, row by row from the top left."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edged.base.errors import ConfigError, ReadingFormatError, ReadingShapeError
from edged.model.reading.layout import Layout, Parsed, Parser

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_MOST_PIXELS = 4096 * 4096
"""A small file can hold a huge picture: more than this is refused before it is unpacked."""

_PARTS = {"png": (b"iCCP", 4), "jpeg": (b"\xff\xda", 32)}
"""Parts that a small file can repeat to take long to unpack, and how often they may occur.

A PNG's colour profile is compressed; a JPEG's scan goes over the whole picture.
"""

_BLACK = 0


class PictureParser(Parser):
    """``format = "png"``, ``"jpeg"`` and ``"raw"``: pictures of one format, brought to one size.

    :raises ConfigError: the model takes no pictures, or Pillow is not installed.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        wanted, channels = layout.picture, layout.channels
        if wanted is None:
            raise ConfigError(f"format = {layout.format!r}: the model takes no pictures: it has no input.image")
        try:
            import PIL.Image  # noqa: PLC0415  an extra, for those who have pictures
            import PIL.ImageOps  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(f"format = {layout.format!r} needs Pillow", hint="pip install 'edged[image]'") from error
        PIL.Image.MAX_IMAGE_PIXELS = None  # Pillow would only warn where _MOST_PIXELS refuses
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd files, on standard error
        self._image, self._ops = PIL.Image, PIL.ImageOps
        self._format = layout.format
        self._raw = layout.raw
        self._size = (wanted.width, wanted.height)
        self._fit = wanted.fit
        self._filter = PIL.Image.Resampling[wanted.filter.upper()]
        self._mode = "L" if channels == ("grey",) else "RGB"
        self._order = (
            None if self._mode == "L" or channels == ("r", "g", "b") else ["rgb".index(one) for one in channels]
        )

    def parse(self, payload: bytes) -> Parsed:
        """Return float32 [height * width, channels], 0 to 255, without times.

        :raises ReadingFormatError: it is no picture of the configured format.
        :raises ReadingShapeError: it is too large, has too many parts, or is raw and of another size than configured.
        """
        picture = self._open_raw(payload) if self._format == "raw" else self._open(payload)
        if picture.size != self._size:
            picture = self._resized(picture)
        pixels: npt.NDArray[np.uint8] = np.asarray(picture).reshape(self._size[0] * self._size[1], -1)
        return (pixels if self._order is None else pixels[:, self._order]).astype(np.float32), None

    def _open(self, payload: bytes) -> Picture:
        part, most = _PARTS[self._format]
        if payload.count(part) > most:
            raise ReadingShapeError(f"a {self._format.upper()} picture has more scans or colour profiles than {most}")
        try:
            with self._image.open(io.BytesIO(payload), formats=[self._format.upper()]) as picture:
                width, height = picture.size
                if width * height > _MOST_PIXELS:
                    raise ReadingShapeError(f"a picture has {width} x {height} pixels, more than {_MOST_PIXELS}")
                return picture.convert(self._mode)
        except (OSError, SyntaxError, ValueError) as error:  # as Pillow has them
            raise ReadingFormatError(f"a reading is no whole {self._format.upper()} picture") from error

    def _open_raw(self, payload: bytes) -> Picture:
        raw = self._raw
        if raw is None:
            raise ConfigError("image: wanted with format = 'raw'")
        mode, order = ("L", "L") if raw.order == "grey" else ("RGB", raw.order.upper())
        wanted = raw.width * raw.height * len(mode)
        if len(payload) != wanted:
            raise ReadingShapeError(f"a raw picture has {len(payload)} bytes, {raw.width} x {raw.height} take {wanted}")
        picture = self._image.frombytes(mode, (raw.width, raw.height), payload, "raw", order)
        return picture.convert(self._mode)

    def _resized(self, picture: Picture) -> Picture:
        if self._fit == "crop":
            return self._ops.fit(picture, self._size, self._filter)
        if self._fit == "pad":
            return self._ops.pad(picture, self._size, self._filter, color=_BLACK)
        return picture.resize(self._size, self._filter)
