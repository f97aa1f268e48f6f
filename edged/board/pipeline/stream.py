"""The streams of rows that one model reads: each with its window, its decision, and the names of the readings in it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from edged.base.errors import ReadingGapError, ReadingSourceError
from edged.base.units import parse_duration
from edged.board.pipeline.binding import levels_of
from edged.config.model import ModelConfig
from edged.formats.channel.reading import ReadingOpener
from edged.formats.channel.result import LONGEST_SOURCE, Sealed
from edged.formats.cose.keys import ContentKey
from edged.formats.package.manifest import Manifest
from edged.formats.spec import Chain
from edged.model.live import Floats, Memory
from edged.model.reading import Decoder, Layout
from edged.model.signal.decide import Decider
from edged.model.signal.rows import Joiner, Timeline
from edged.model.signal.window import Slice, new_window

Doubles = npt.NDArray[np.float64]
Name = bytes | Sealed
"""The name of a reading in results: SHA-256 of a plain one, key id and count of a sealed one, input of an answer."""


def as_bytes(name: Name) -> bytes:
    """Return a name as it goes into a digest over several: a sealed one as key id, first and last count (uint64)."""
    if isinstance(name, bytes):
        return name
    return name.kid + name.first.to_bytes(8, "big") + name.last.to_bytes(8, "big")


class TopicInput(NamedTuple):
    """The way from one topic into a stream.

    :ivar place: its index among the topics of the stream.
    :ivar openers: by key id; empty where readings are not sealed.
    """

    stream: Stream
    place: int
    openers: Mapping[bytes, ReadingOpener]
    decode: Decoder


Start = tuple[int, int]
"""The start of a window: number in the row log of the reading with its first row, and the rows before it in there."""


class Windowed(NamedTuple):
    """A full window: float32 [rows, channels], valid until the iterator goes on, and its readings.

    :ivar start: its start in the row log.
    """

    rows: Floats
    names: list[Name]
    start: Start


class Stream:
    """A stream of rows.

    :param key: distinguishes it from other streams of the model: its topic, or the levels that `+` stood for.
    :param source: those levels; empty where the model's topics have no `+`.
    :param timed: True if the readings bring their times.
    :param places: of each topic that is joined, the columns that it brings; empty where one topic brings all.
    """

    def __init__(
        self,
        chain: Chain,
        key: str,
        source: str,
        places: Sequence[Sequence[int]],
        decider: Decider,
        *,
        timed: bool = False,
    ) -> None:
        self.key = key
        self.source = source
        self.decider = decider
        self.memory = None if chain.model.reset == "window" else Memory()
        self.restart_state = True
        """True if the model must clear its state before the next window."""
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
        self._gone = 0
        self._readings: deque[tuple[int, Name, int]] = deque()

    def push(
        self, rows: Floats, times: Doubles | None, name: Name, place: int, now: float, number: int = 0
    ) -> Iterator[Windowed]:
        """Take the rows (float32 [n, channels of the topic]) of a reading, and yield each window that they fill.

        :param times: of the rows, by the sensor's clock; None: they count as measured when they arrive.
        :param now: monotonic seconds.
        :param number: of the reading, in the row log.
        :raises ReadingOrderError: they are older than what came before.
        :raises ReadingGapError: a gap before them cost a window, and the manifest counts that.
        """
        if self._join is None and self._timeline is None:
            yield from self._windows(rows, None, name, number)
            return
        if times is None:
            times = self._arrival(len(rows), now)
        if self._join is not None:
            self._joined[place] = as_bytes(name)
            rows, times = self._join.push(place, rows, times)
            if not len(rows):
                return
            name = hashlib.sha256(b"".join(self._joined)).digest()
        if self._timeline is None:
            yield from self._windows(rows, times, name, number)
            return
        lost = False
        for piece in self._timeline.push(rows, times):
            if piece.restarts:
                lost |= self._restart_window()
            yield from self._windows(piece.rows, piece.times, name, number)
        if lost and self._refuses_gaps:
            raise ReadingGapError("a gap before a reading cost the window that was being filled")

    def hold_value(self, rows: Floats, times: Doubles | None, name: Name, place: int, now: float) -> None:
        """Take the newest of some rows as the value of a joined topic, which makes no row.

        :raises ReadingOrderError: it is older than the value before it.
        """
        if self._join is not None and len(rows):
            self._joined[place] = as_bytes(name)
            self._join.hold(place, rows[-1], now if times is None else float(times[-1]))

    def _windows(self, rows: Floats, times: Doubles | None, name: Name, number: int) -> Iterator[Windowed]:
        self._rows += len(rows)
        self._readings.append((self._rows, name, number))
        for full in self._window.push(rows, times):
            names = self._names(full)
            yield Windowed(full.rows, names, (self._readings[0][2], full.first - self._gone))

    def _names(self, full: Slice) -> list[Name]:
        """Return the readings that brought a window's rows; forget those that came before."""
        while self._readings[0][0] <= full.first:
            self._gone, _, _ = self._readings.popleft()
        names: list[Name] = []
        for behind, name, _ in self._readings:
            names.append(name)
            if behind > full.last:
                break
        return names

    def open_from(self) -> Start | None:
        """Return the start of the window that is being filled; None while no row waits."""
        begins = self._window.begins
        before = self._gone
        for behind, _, number in self._readings:
            if behind > begins:
                return number, begins - before
            before = behind
        return None

    def _arrival(self, rows: int, now: float) -> Doubles:
        """Return times of rows that bring none: the last has just come, those before it at the stated rate."""
        before, self.heard = self.heard, now
        if rows == 1 or self._period is None:
            return np.full(rows, now)
        first = max(before, now - rows * self._period)
        return first + (now - first) / rows * np.arange(1, rows + 1)

    def hear(self, now: float) -> None:
        """Note the arrival of a whole window; after a gap the state of the model is cleared first."""
        self.restart_state |= now - self.heard > self._longest_gap
        self.heard = now

    def restart(self) -> None:
        """Forget the window that is being filled: a row of it was refused."""
        self._restart_window()
        if self._timeline is not None:
            self._timeline.reset()

    def _restart_window(self) -> bool:
        self.restart_state = True
        self._readings.clear()
        self._gone = self._rows
        return self._window.reset()


STREAMS = 64
"""The most streams of one model; a further one replaces the stream that was quiet the longest."""


class Decoders:
    """Decoders in use: models that read a topic with the same layout share a decoder, and its output."""

    def __init__(self) -> None:
        self._shared: WeakValueDictionary[tuple[str, Layout, bool], Decoder] = WeakValueDictionary()

    def get(self, topic: str, layout: Layout, *, sealed: bool) -> Decoder:
        """Return the decoder of a topic.

        :param sealed: True if its readings are sealed.
        """
        decoder = self._shared.get((topic, layout, sealed))
        if decoder is None:
            decoder = self._shared[topic, layout, sealed] = Decoder(layout)
        return decoder


class Streams:
    """The streams of a model: one for each topic, or, if topics are joined, for each value of `+`.

    :param sensors: keys of the sensor, where only sealed readings are taken: each that it may still use.
    :param limit: the longest message that is taken, in bytes.
    """

    def __init__(
        self,
        config: ModelConfig,
        manifest: Manifest,
        sensors: Sequence[ContentKey],
        limit: int,
        decoders: Decoders,
    ) -> None:
        self._config = config
        self._manifest = manifest
        self._sensors = sensors
        self._limit = limit
        self._decoders = decoders
        self._inputs: dict[str, TopicInput] = {}
        self._streams: OrderedDict[str, Stream] = OrderedDict()
        channels = manifest.input.channels
        self._filters = config.filters
        self._brought = [channels]
        self._places: list[list[int]] = []
        if config.topics:
            self._brought = [tuple(one for one in channels if config.topics[one] == topic) for topic in self._filters]
            self._places = [[channels.index(one) for one in names] for names in self._brought]

    def renew(self, manifest: Manifest) -> None:
        """Use another version with the same windows: decisions and state of the model restart."""
        self._manifest = manifest
        for stream in self._streams.values():
            stream.decider = Decider(manifest, self._config.tune)
            stream.restart_state = True

    def use_sensors(self, sensors: Sequence[ContentKey]) -> None:
        """Accept readings that are sealed under these keys; windows that are being filled go on."""
        self._sensors = sensors
        self._inputs.clear()

    def find(self, key: str) -> Stream | None:
        """Return a stream if it exists."""
        return self._streams.get(key)

    def open_windows(self) -> int:
        """Return the number of windows that are being filled."""
        return sum(stream.open_from() is not None for stream in self._streams.values())

    def get(self, key: str, source: str) -> Stream:
        """Return a stream; a new one may replace the quietest."""
        stream = self._streams.get(key)
        if stream is None:
            decider = Decider(self._manifest, self._config.tune)
            stream = self._streams[key] = Stream(
                self._manifest, key, source, self._places, decider, timed=self._config.time is not None
            )
            if len(self._streams) > STREAMS:
                _, quiet = self._streams.popitem(last=False)
                for topic in [topic for topic, topic_input in self._inputs.items() if topic_input.stream is quiet]:
                    del self._inputs[topic]
        self._streams.move_to_end(key)
        return stream

    def topic_input(self, topic: str) -> TopicInput:
        """Return the way from a topic into its stream.

        :raises ReadingSourceError: what `+` stands for does not fit into results.
        """
        topic_input = self._inputs.get(topic)
        if topic_input is None:
            number, source = levels_of(self._filters, topic)
            if "+" in self._filters[number] and not 0 < len(source.encode()) <= LONGEST_SOURCE:
                raise ReadingSourceError(f"+ stands for {len(source.encode())} bytes, not 1 to {LONGEST_SOURCE}")
            place, key = (number, source) if self._config.topics else (0, topic)
            openers = {key.kid: ReadingOpener(key, topic, self._config.channel) for key in self._sensors}
            layout = Layout.of(self._config, self._manifest.input, self._brought[place], self._limit)
            decode = self._decoders.get(topic, layout, sealed=bool(openers))
            topic_input = self._inputs[topic] = TopicInput(self.get(key, source), place, openers, decode)
        self._streams.move_to_end(topic_input.stream.key)
        return topic_input
