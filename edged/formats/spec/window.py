"""``[window]``: which rows the model sees together."""

from __future__ import annotations

from edged.base.errors import ConfigError
from edged.base.units import check_quantity, parse_duration
from edged.formats.spec.table import Table

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
        """Whether ``size`` and ``hop`` are seconds, not rows."""
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
