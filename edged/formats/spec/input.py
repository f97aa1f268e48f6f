"""``[input]`` and ``[window]``: what one row is, how rows are cleaned, and which of them the model sees together."""

from __future__ import annotations

from typing import Literal

import msgspec

from edged.base.errors import ConfigError
from edged.base.units import check_quantity, parse_duration, parse_rate


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A table of the manifest: its keys and no others; what has its default value is left out when it is signed."""


Layout = Literal["channels_last", "channels_first"]

_COLOURS = frozenset("rgb")
_GREY = ("grey",)
_MOST_PIXELS = 4096 * 4096


class Gap(Table, frozen=True):
    """``input.gap``: what a pause between two rows means.

    :ivar over: a pause longer than this is a gap.
    :ivar then: ``restart`` begins the window anew; ``refuse`` does so too, and counts the window that was lost as
        refused; ``fill`` repeats the last row at ``input.rate``, unless the gap is longer than a window.
    """

    over: str
    then: Literal["restart", "refuse", "fill"] = "restart"

    def __post_init__(self) -> None:
        check_quantity("input.gap.over", parse_duration, self.over)


class Join(Table, frozen=True):
    """``input.join``: when values from several topics make a row.

    :ivar when: ``all`` makes a row once every topic has sent since the last row; ``any`` makes one of each message,
        with the last values of the other topics.
    :ivar within: no value of a row may be older than this; with ``any`` it must be stated.
    """

    when: Literal["all", "any"] = "all"
    within: str | None = None

    def __post_init__(self) -> None:
        if self.within is not None:
            check_quantity("input.join.within", parse_duration, self.within)
        elif self.when == "any":
            raise ConfigError("input.join.within: wanted with when = 'any': a topic may have fallen silent")


class Image(Table, frozen=True):
    """``input.image``: each reading is a picture, and its pixels, row by row from the top left, are the window's rows.

    ``input.channels`` are the colours in the model's order, of ``r``, ``g`` and ``b``, or ``grey`` alone (ITU-R 601
    luma); their values are 0 to 255. Pictures of 16 bits are scaled to that. Transparency and colour profiles are
    ignored: a transparent pixel has the colour that is stored.

    :ivar width: pixels, after resizing.
    :ivar height: pixels, after resizing.
    :ivar fit: ``stretch`` ignores the aspect ratio; ``crop`` keeps the middle; ``pad`` adds black borders.
    :ivar orientation: ``stored`` takes pixels as they are stored; ``exif`` turns a picture upright as its EXIF data
        say: cameras and phones that know how they are held write them.
    :ivar filter: how pixels are interpolated where the picture has another size (as Pillow names it).
    """

    width: int
    height: int
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    orientation: Literal["stored", "exif"] = "stored"

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or self.width * self.height > _MOST_PIXELS:
            raise ConfigError(f"input.image: {self.width} x {self.height} is not between 1 and {_MOST_PIXELS} pixels")


class Input(Table, frozen=True):
    """``[input]``: what one row is, and how rows are cleaned before they make windows.

    :ivar channels: names of the values of a row, in the model's order.
    :ivar unit: of the values, for people.
    :ivar rate: rows a second: for `resample`, `gap.then = "fill"`, windows in seconds and frequencies in hertz.
    :ivar missing: where a reading lacks a channel: ``refuse`` it, ``hold`` the last value, or take this number.
    :ivar nan: a value that is not finite: ``refuse`` its window, or take this number.
    :ivar range: lowest and highest value after calibration.
    :ivar outside: a value outside the range: ``refuse`` its window, or ``clamp`` it to the bound.
    :ivar order: a row older than the one before: ``refuse`` it and count that, ``drop`` it silently, or ``restart``
        the window with it (sensors whose clock begins anew).
    :ivar resample: ``linear`` interpolates rows to `rate` from their times, ``hold`` repeats the last one; ``none``
        takes rows as they come.
    :ivar gap: what a pause means. Without it, pauses mean nothing.
    :ivar join: how values from several topics make a row.
    :ivar image: set: readings are pictures.
    :ivar layout: the order of a window in the model's input: ``channels_last`` puts it in row by row ([rows, channels],
        [height, width, colours]), ``channels_first`` channel by channel. Default: the order that the input's shape has;
        ``channels_last`` where it may be either.
    """

    channels: tuple[str, ...]
    unit: str = ""
    rate: str | None = None
    missing: Literal["refuse", "hold"] | float = "refuse"
    nan: Literal["refuse"] | float = "refuse"
    range: tuple[float, float] | None = None
    outside: Literal["refuse", "clamp"] = "refuse"
    order: Literal["refuse", "drop", "restart"] = "refuse"
    resample: Literal["none", "linear", "hold"] = "none"
    gap: Gap | None = None
    join: Join = Join()
    image: Image | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ConfigError("input.channels: at least one, each once")
        if self.rate is not None:
            check_quantity("input.rate", parse_rate, self.rate)
        elif self.resample != "none":
            raise ConfigError("input.rate: wanted with input.resample")
        elif self.gap is not None and self.gap.then == "fill":
            raise ConfigError("input.rate: wanted with input.gap.then = 'fill'")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ConfigError("input.range: the first number must be below the second")
        if self.outside == "clamp" and self.range is None:
            raise ConfigError("input.outside: nothing is outside without input.range")
        if self.image is not None:
            self._check_image()

    def _check_image(self) -> None:
        if self.channels != _GREY and not _COLOURS.issuperset(self.channels):
            raise ConfigError('input.channels: with input.image, "r", "g" and "b" in the model\'s order, or "grey"')
        if self.gap is not None or self.resample != "none" or self.rate is not None:
            raise ConfigError("input.image: a picture has no rate, gap or resample: its rows are pixels")

    @property
    def hertz(self) -> float | None:
        """Rows a second, where the manifest states them."""
        return None if self.rate is None else parse_rate(self.rate)


MOST_ROWS = 1_000_000
_SHORTEST = 0.001


class Window(Table, frozen=True):
    """``[window]``: which rows the model sees together.

    :ivar size: rows of a window, or a time such as "2 s".
    :ivar hop: from one window to the next, in what `size` is in; default: `size`.
    """

    size: int | str = 1
    hop: int | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.size, str):
            check_quantity("window.size", parse_duration, self.size)
        elif not 0 < self.size <= MOST_ROWS:
            raise ConfigError(f"window.size: between 1 and {MOST_ROWS:,} rows")
        if self.hop is None:
            return
        if isinstance(self.hop, str) != isinstance(self.size, str):
            raise ConfigError("window.hop: in rows or in time as window.size is")
        if isinstance(self.hop, str):
            check_quantity("window.hop", parse_duration, self.hop)
            if _number(self.hop) < _SHORTEST:
                raise ConfigError("window.hop: at least 1 ms: a sensor's clock tells no finer")
        if not 0 < _number(self.hop) <= _number(self.size):
            raise ConfigError(f"window.hop: above 0 and at most window.size, {self.size}")

    @property
    def in_time(self) -> bool:
        """True if ``size`` and ``hop`` are seconds, not rows."""
        return isinstance(self.size, str)

    @property
    def extent(self) -> float:
        """Rows or seconds of a window."""
        return _number(self.size)

    @property
    def step(self) -> float:
        """Rows or seconds from one window to the next."""
        return self.extent if self.hop is None else _number(self.hop)


def _number(quantity: int | str) -> float:
    return parse_duration(quantity) if isinstance(quantity, str) else quantity
