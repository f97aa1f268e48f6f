"""JSON: a number, arrays of numbers, objects by channel, or arrays of either."""

from __future__ import annotations

import msgspec

from edged.base.errors import ReadingFormatError
from edged.model.reading.layout import Floats, Layout, Parsed, array, floats
from edged.model.reading.objects import ObjectParser

_NUMBERS = msgspec.json.Decoder(list[float])
_ROWS = msgspec.json.Decoder(list[list[float]])
_NUMBER = msgspec.json.Decoder(float)


class JsonParser(ObjectParser):
    """``format = "json"``."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._single = layout.each == "row"
        self._named = bool(layout.fields) or layout.time is not None

    def parse(self, payload: bytes) -> Parsed:
        """See :meth:`Parser.parse`."""
        try:
            if not self._single:
                return self._parse_rows(payload)
            if not self._named:
                start = payload.lstrip()[:1]
                if start == b"[":
                    return floats(_NUMBERS.decode(payload)), None
                if start != b"{":
                    return floats([_NUMBER.decode(payload)]), None
            return self.rows([msgspec.json.decode(payload)])
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
            raise ReadingFormatError("a reading is not the JSON that is configured") from error

    def _parse_rows(self, payload: bytes) -> Parsed:
        if not self._named:
            try:
                return array(_ROWS.decode(payload)), None
            except msgspec.ValidationError:
                pass  # an array of objects, or an object of arrays
        value = msgspec.json.decode(payload)
        return self.rows(value) if isinstance(value, list) else self.columns(value)


def encode_json(values: Floats, names: tuple[str, ...] | None) -> bytes:
    """Encode one row or several: as objects where ``names`` are given, else as plain arrays."""
    plain = values.tolist()
    if names is None:
        return msgspec.json.encode(plain)
    if values.ndim == 1:
        return msgspec.json.encode(dict(zip(names, plain, strict=True)))
    return msgspec.json.encode([dict(zip(names, row, strict=True)) for row in plain])
