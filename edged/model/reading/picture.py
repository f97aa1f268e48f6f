"""From a picture's bytes to the rows of a window: its pixels, row by row from the top left."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edged.base.errors import ConfigError, EdgedError, ReadingFormatError, ReadingShapeError
from edged.model.reading.layout import Layout, Parsed, Parser

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.Image import Transpose

_MOST_SIDE, _MOST_PIXELS = 16_384, 4096 * 4096
"""A small file can hold a huge picture: a larger one is refused before it is unpacked."""
_MOST_RATIO = 512
"""Times that a side may be as long as the model's: the tables of a resize grow with it."""
_ROOM = 16_000_000
"""Bytes that unpacking and resizing may take beside the picture itself."""
_SUPPORT = {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos": 3}
"""Pixels on each side that a filter looks at, where the picture shrinks: times the ratio."""
_NEAR = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})
"""Modes that Pillow turns into grey or RGB in one step."""
_CONVERTED = _NEAR | {"CMYK"}
"""Modes that Pillow turns into grey or RGB with the right brightness."""
_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L"})
"""Modes of 16 bits: Pillow would take everything above 255 for white."""
_TO_BYTE = ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)
_ORIENTATION = 0x0112
"""EXIF's tag: 1 is upright."""
_COEFFICIENT = 8
"""Bytes of a resize's factor for one pixel."""

_PARTS = {"png": ((b"iCCP", b"zTXt", b"iTXt"), 4), "jpeg": ((b"\xff\xda",), 32)}
"""Parts that a small file can repeat to take long to unpack, and how often they may occur.

A PNG's colour profile and texts are compressed; a JPEG's scan goes over the whole picture.
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
        self._upright = wanted.orientation == "exif"
        turn = PIL.Image.Transpose
        self._turns = {
            2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE,
            6: turn.ROTATE_270, 7: turn.TRANSVERSE, 8: turn.ROTATE_90,
        }  # fmt: skip
        self._filter = PIL.Image.Resampling[wanted.filter.upper()]
        self._support = _SUPPORT[wanted.filter]
        self._mode = "L" if channels == ("grey",) else "RGB"
        self._order = (
            None if self._mode == "L" or channels == ("r", "g", "b") else ["rgb".index(one) for one in channels]
        )

    def parse(self, payload: bytes) -> Parsed:
        """Return float32 [height * width, channels], 0 to 255, without times.

        :raises ReadingFormatError: it is no picture of the configured format.
        :raises ReadingShapeError: it is too large, has too many parts, a mode whose colours are not certain, or is raw
            and of another size than configured.
        """
        picture = self._open_raw(payload) if self._format == "raw" else self._open(payload)
        if picture.size != self._size:
            picture = self._resized(picture)
        pixels: npt.NDArray[np.uint8] = np.asarray(picture).reshape(self._size[0] * self._size[1], -1)
        return (pixels if self._order is None else pixels[:, self._order]).astype(np.float32), None

    def _open(self, payload: bytes) -> Picture:
        parts, most = _PARTS[self._format]
        if sum(payload.count(part) for part in parts) > most:
            raise ReadingShapeError(
                f"a {self._format.upper()} picture has more scans, texts or colour profiles than {most}"
            )
        try:
            with self._image.open(io.BytesIO(payload), formats=[self._format.upper()]) as picture:
                self._check_size(picture.size)
                self._check_room(picture)
                picture.load()
                turn = self._turns.get(picture.getexif().get(_ORIENTATION, 1)) if self._upright else None
                converted = self._converted(picture)
                return converted if turn is None else self._turned(converted, turn)
        except EdgedError:
            raise
        except Exception as error:  # of any kind: Pillow's decoders trip over a broken chunk where they read it
            raise ReadingFormatError(f"a reading is no whole {self._format.upper()} picture") from error

    def _converted(self, picture: Picture) -> Picture:
        """Return the picture in grey or RGB, bytes; what is transparent in it shows the colour that stands there."""
        if picture.mode == self._mode:
            return picture
        if picture.mode in _DEEP:
            picture = self._image.fromarray(_in_bytes(np.asarray(picture)))
        elif picture.mode not in _CONVERTED:
            raise ReadingShapeError(f"a {self._format.upper()} picture in mode {picture.mode}, which is not read")
        elif picture.mode == "CMYK" and "adobe" not in picture.info:
            raise ReadingShapeError(
                "a JPEG picture in CMYK without Adobe's marker: its inks may be inverted", hint="send it as RGB"
            )
        return picture if picture.mode == self._mode else picture.convert(self._mode)

    def _turned(self, picture: Picture, turn: Transpose) -> Picture:
        turned = picture.transpose(turn)
        self._check_size(turned.size)
        self._check_room(turned)
        return turned

    def _check_size(self, size: tuple[int, int]) -> None:
        width, height = size
        if width * height > _MOST_PIXELS or max(size) > _MOST_SIDE:
            raise ReadingShapeError(
                f"a picture has {width} x {height} pixels, more than {_MOST_PIXELS} or {_MOST_SIDE} on a side"
            )
        if any(side > _MOST_RATIO * wanted for side, wanted in zip(size, self._size, strict=True)):
            raise ReadingShapeError(
                f"a picture of {width} x {height} pixels is more than {_MOST_RATIO} times as wide or high as the"
                f" model's {self._size[0]} x {self._size[1]}"
            )

    def _check_room(self, picture: Picture) -> None:
        """Refuse a picture that takes more memory beside itself than there is room for.

        That is a copy in other colours, by way of RGB where Pillow has no shorter one; the coefficients of a
        progressive JPEG; and, afterwards, what a resize takes.
        """
        width, height = picture.size
        each = 2 * len(picture.getbands()) if picture.info.get("progressive") else 0
        if picture.mode != self._mode:
            each += _bytes_of(self._mode) + (0 if picture.mode in _NEAR else _bytes_of("RGB"))
        if self._upright:
            each += _bytes_of(self._mode)
        across = self._size[0] * height * _bytes_of(self._mode)  # resized in width first, then in height
        tables = 2 * self._support * (width + height) * _COEFFICIENT
        resizing = across + tables if self._support and picture.size != self._size else 0
        needed = max(width * height * each, resizing)
        if needed > _ROOM:
            raise ReadingShapeError(
                f"a {self._format.upper()} picture of {width} x {height} pixels in mode {picture.mode} takes"
                f" {needed / 1e6:.0f} MB beside itself, more than {_ROOM / 1e6:.0f}"
            )

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


def _in_bytes(deep: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """Return a picture of 16 bits in 8, row by row: the numbers of all pixels would take eight bytes each."""
    pixels = np.empty(deep.shape, np.uint8)
    for target, row in zip(pixels, deep, strict=True):
        target[:] = _TO_BYTE[row]
    return pixels


def _bytes_of(mode: str) -> int:
    """Return the bytes that a pixel of a mode takes in memory: Pillow rounds three channels up to four."""
    return 1 if mode == "L" else 4
