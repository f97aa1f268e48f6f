"""Values that come on several topics, joined to rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edged.base.units import parse_duration
from edged.formats.spec import Join

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Joiner:
    """``input.join``: the newest values of each topic, and when they make a row.

    :param places: of each topic, the columns of a row that it brings.
    """

    def __init__(self, join: Join, places: Sequence[Sequence[int]]) -> None:
        self._every = join.when == "all"
        self._within = math.inf if join.within is None else parse_duration(join.within)
        self._places = [np.array(place) for place in places]
        self._row = np.zeros(sum(map(len, places)), np.float32)
        self._times = np.full(len(places), -math.inf)
        self._new = [False] * len(places)

    def push(self, topic: int, values: Floats, times: Doubles) -> tuple[Floats, Doubles]:
        """Take values of one topic (float32 [n, its channels]) and return the rows that they complete.

        :param topic: its number in ``places``.
        :return: float32 [m, channels], and float64 [m]: the newest time of each.
        """
        rows: list[Floats] = []
        moments: list[float] = []
        for value, time in zip(values, times, strict=True):
            self._row[self._places[topic]] = value
            self._times[topic] = time
            self._new[topic] = True
            newest = float(self._times.max())
            self._new = [new and newest - at <= self._within for new, at in zip(self._new, self._times, strict=True)]
            if all(self._new):
                rows.append(self._row.copy())
                moments.append(newest)
                if self._every:
                    self._new = [False] * len(self._new)
        return np.array(rows, np.float32).reshape(-1, len(self._row)), np.array(moments)
