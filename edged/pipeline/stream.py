"""What one stream of rows has: its window, its decision, and the names of the readings that the window holds."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edged.channel.reading import ReadingOpener
from edged.channel.result import Sealed
from edged.config.units import parse_duration
from edged.errors import ReadingGapError
from edged.model import Floats, Memory
from edged.signal.decide import Decider
from edged.signal.decode import Decoder
from edged.signal.join import Joiner
from edged.signal.spec import Chain
from edged.signal.timeline import Timeline
from edged.signal.window import Slice, new_window

Doubles = npt.NDArray[np.float64]
Name = bytes | int | Sealed
"""What a result calls a reading: SHA-256 of a plain one, count of a sealed one, or what a model's answer was of."""


class Inlet(NamedTuple):
    """One topic's way into a stream.

    :ivar place: which of the stream's topics it is.
    """

    stream: Stream
    place: int
    opener: ReadingOpener | None
    decode: Decoder


class Windowed(NamedTuple):
    """A full window: float32 [rows, channels], valid until the iterator goes on, and the readings that brought it."""

    rows: Floats
    names: list[Name]


class Stream:
    """One stream of rows.

    :param key: what tells it from the model's other streams: its topic, or what `+` stood for.
    :param timed: whether the readings bring their times.
    :param places: of each topic that is joined, the columns that it brings; empty where one topic brings all.
    """

    def __init__(
        self, chain: Chain, key: str, places: Sequence[Sequence[int]], decider: Decider, *, timed: bool = False
    ) -> None:
        self.key = key
        self.decider = decider
        self.memory = None if chain.model.reset == "window" else Memory()
        self.anew = True
        """Whether the model has to begin anew with the next window."""
        self.label: str | None = None
        self.heard = -float("inf")
        self._window = new_window(chain)
        self._timeline = Timeline(chain) if timed or Timeline.needed(chain) else None
        self._join = Joiner(chain.input.join, places) if places else None
        self._joined: list[bytes] = [b""] * len(places)
        gap = chain.input.gap
        self._refuses_gaps = gap is not None and gap.then == "refuse"
        self._longest_gap = float("inf") if gap is None else parse_duration(gap.over)
        self._period = None if chain.input.hertz is None else 1 / chain.input.hertz
        self._rows = 0
        self._readings: deque[tuple[int, Name]] = deque()

    def push(self, rows: Floats, times: Doubles | None, name: Name, place: int, now: float) -> Iterator[Windowed]:
        """Take the rows (float32 [n, channels of the topic]) of a reading, and yield each window that they fill.

        :param times: of the rows, by the sensor's clock; None: they count as measured when they arrive.
        :param now: monotonic seconds.
        :raises ReadingOrderError: they are older than what came before.
        :raises ReadingGapError: a gap before them cost a window, and the manifest wants that counted.
        """
        if self._join is None and self._timeline is None:
            yield from self._windows(rows, None, name)
            return
        if times is None:
            times = self._arrival(len(rows), now)
        if self._join is not None:
            self._joined[place] = name if isinstance(name, bytes) else repr(name).encode()
            rows, times = self._join.push(place, rows, times)
            if not len(rows):
                return
            name = hashlib.sha256(b"".join(self._joined)).digest()
        if self._timeline is None:
            yield from self._windows(rows, times, name)
            return
        lost = False
        for piece in self._timeline.push(rows, times):
            if piece.anew:
                lost |= self._begin_anew()
            yield from self._windows(piece.rows, piece.times, name)
        if lost and self._refuses_gaps:
            raise ReadingGapError("a gap before a reading cost the window that was being filled")

    def _windows(self, rows: Floats, times: Doubles | None, name: Name) -> Iterator[Windowed]:
        self._rows += len(rows)
        self._readings.append((self._rows, name))
        for full in self._window.push(rows, times):
            yield Windowed(full.rows, self._names(full))

    def _names(self, full: Slice) -> list[Name]:
        """Return the readings that brought a window's rows; forget those that came before."""
        while self._readings[0][0] <= full.first:
            self._readings.popleft()
        names: list[Name] = []
        for behind, name in self._readings:
            names.append(name)
            if behind > full.last:
                break
        return names

    def _arrival(self, rows: int, now: float) -> Doubles:
        """Return times of rows that bring none: the last has just come, those before it at the stated rate."""
        before, self.heard = self.heard, now
        if rows == 1 or self._period is None:
            return np.full(rows, now)
        first = max(before, now - rows * self._period)
        return first + (now - first) / rows * np.arange(1, rows + 1)

    def hear(self, now: float) -> None:
        """Note that a whole window came; after a gap the model begins anew with it."""
        self.anew |= now - self.heard > self._longest_gap
        self.heard = now

    def restart(self) -> None:
        """Forget the window that is being filled: a row of it was refused."""
        self._begin_anew()
        if self._timeline is not None:
            self._timeline.reset()

    def _begin_anew(self) -> bool:
        self.anew = True
        self._readings.clear()
        return self._window.reset()
