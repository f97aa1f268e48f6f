"""The formats of plain readings, as far as configurations and the command line need to know them.

To add a format: its name and its row here; its parser and encoder in :mod:`edged.model.reading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Format = Literal["json", "text", "csv", "cbor", "f32le", "png", "jpeg", "raw"]


class ReadingFormat(NamedTuple):
    """Properties of a format that decide which configurations make sense.

    :ivar has_times: its rows may say when they were measured.
    :ivar is_picture: each message is a picture, and so a whole window.
    """

    has_times: bool = False
    is_picture: bool = False


FORMATS: Mapping[Format, ReadingFormat] = {
    "json": ReadingFormat(has_times=True),
    "cbor": ReadingFormat(has_times=True),
    "csv": ReadingFormat(has_times=True),
    "text": ReadingFormat(),
    "f32le": ReadingFormat(),
    "png": ReadingFormat(is_picture=True),
    "jpeg": ReadingFormat(is_picture=True),
    "raw": ReadingFormat(is_picture=True),
}
