"""What the manifest says of single values: not finite, or out of range."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edged.base.errors import ReadingValueError
from edged.formats.spec import Input

Floats = npt.NDArray[np.float32]


class Cleaner:
    """``input.nan``, ``input.range`` and ``input.outside``."""

    def __init__(self, source: Input) -> None:
        self._nan = None if source.nan == "refuse" else np.float32(source.nan)
        self._range = source.range
        self._clamps = source.outside == "clamp"

    def __call__(self, rows: Floats) -> Floats:
        """Return rows (float32 [n, channels]) that are finite and in range.

        :raises ReadingValueError: they are not, and the manifest wants that refused.
        """
        bounds = self._range
        if bounds is None and math.isfinite(np.vdot(rows, rows)):  # quick, and finite only if every value is
            return rows
        low, high = rows.min(), rows.max()  # NaN if any value is
        if not (math.isfinite(low) and math.isfinite(high)):
            if self._nan is None:
                raise ReadingValueError("a reading holds a value that is not finite")
            rows = np.where(np.isfinite(rows), rows, self._nan)
            low, high = rows.min(), rows.max()
        if bounds is not None and (low < bounds[0] or high > bounds[1]):
            if not self._clamps:
                raise ReadingValueError(f"a reading holds a value outside input.range, {bounds[0]} to {bounds[1]}")
            rows = rows.clip(*bounds)
        return rows
