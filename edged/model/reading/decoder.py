"""From a message's bytes to rows: float32 [n, channels], calibrated, with their times where they bring any; and back.

The format of a message is configured, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from edged.base.errors import ReadingShapeError, UsageError
from edged.config.model import Calibration
from edged.model.reading.cbor import CborParser, F32leParser, encode_cbor, encode_f32le
from edged.model.reading.json import JsonParser, encode_json
from edged.model.reading.layout import Doubles, Floats, Layout, Parser
from edged.model.reading.objects import ObjectParser
from edged.model.reading.picture import PictureParser
from edged.model.reading.text import CsvParser, TextParser, encode_lines


class Codec(NamedTuple):
    """Both directions of a format.

    :ivar parser: parses the messages of a topic with a given layout.
    :ivar encode: encodes one row ([channels]) or several ([n, channels]), with the channels' names where they are
        known; None for pictures, which are sent as they are.
    """

    parser: Callable[[Layout], Parser]
    encode: Callable[[Floats, tuple[str, ...] | None], bytes] | None = None


CODECS: Mapping[str, Codec] = {
    "json": Codec(JsonParser, encode_json),
    "text": Codec(TextParser, encode_lines),
    "csv": Codec(CsvParser, encode_lines),
    "cbor": Codec(CborParser, encode_cbor),
    "f32le": Codec(F32leParser, encode_f32le),
    "png": Codec(PictureParser),
    "jpeg": Codec(PictureParser),
    "raw": Codec(PictureParser),
}
"""Every format of :data:`edged.formats.readings.FORMATS`."""


class Decoded(NamedTuple):
    """The content of a message.

    :ivar rows: float32 [n, channels], calibrated.
    :ivar times: float64 [n], seconds of the sensor's clock; None where the site names no field for it.
    """

    rows: Floats
    times: Doubles | None


class Decoder:
    """Decodes the messages of one topic; ``input.missing = "hold"`` remembers what that topic sent last.

    :raises ConfigError: a field is no JSON pointer, or a library is missing.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._channels = len(layout.channels)
        parser = CODECS[layout.format].parser(layout)
        self._parse = parser.parse
        self._holds = parser if layout.missing == "hold" and isinstance(parser, ObjectParser) else None
        self._scale, self._offset = _calibration(layout)
        self._calibrated = bool(layout.calibrate)
        self._newest: Floats | None = None

    def __call__(self, payload: bytes) -> Decoded:
        """Return the rows of a message; one where it holds a row.

        :raises ReadingFormatError: not the configured format.
        :raises ReadingShapeError: no number of rows.
        :raises ReadingValueError: a value is missing.
        """
        values, times = self._parse(payload)
        rows = self._shaped(values)
        if self._holds is not None:
            self._newest = rows[-1]
        if self._calibrated:
            with np.errstate(over="ignore", invalid="ignore"):  # judged by input.nan
                rows = rows * self._scale + self._offset
        return Decoded(rows, times)

    def keep(self) -> None:
        """Remember the newest row, uncalibrated, for channels that later readings lack; its caller found it good."""
        if self._holds is not None and self._newest is not None:
            self._holds.hold(self._newest.tolist())

    def _shaped(self, values: Floats) -> Floats:
        channels = self._channels
        if values.ndim > 1 and values.shape[-1] != channels:
            raise ReadingShapeError(f"a reading has rows of {values.shape[-1]} values, not of {channels}")
        if not values.size or values.size % channels:
            raise ReadingShapeError(f"a reading has {values.size} values, which is no number of rows of {channels}")
        rows = values.reshape(-1, channels)
        if self.layout.each == "row" and len(rows) != 1:
            raise ReadingShapeError(f"a reading has {len(rows)} rows, and `each` says that it has one")
        return rows


def _calibration(layout: Layout) -> tuple[Floats, Floats]:
    calibrate = dict(layout.calibrate)
    each = [calibrate.get(name, Calibration()) for name in layout.channels]
    return np.array([one.scale for one in each], np.float32), np.array([one.offset for one in each], np.float32)


def encode_reading(values: Floats, format_: str, names: tuple[str, ...] | None) -> bytes:
    """Encode one row ([channels]) or several ([n, channels]) as the board's ``format`` of that name.

    :param names: keys of JSON objects; without them JSON carries plain arrays.
    """
    codec = CODECS.get(format_)
    if codec is None or codec.encode is None:
        *most, last = (name for name, one in CODECS.items() if one.encode is not None)
        raise UsageError(f"format {format_!r} is none of {', '.join(most)} and {last}")
    return codec.encode(values, names)
