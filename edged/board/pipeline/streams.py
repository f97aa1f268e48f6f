"""The streams of rows that one model reads, and the topics' ways into them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from edged.board.pipeline.binding import levels_of
from edged.board.pipeline.message import Decoders
from edged.board.pipeline.stream import Inlet, Stream
from edged.config.model import ModelConfig
from edged.formats.channel.reading import ReadingOpener
from edged.formats.cose.keys import ContentKey
from edged.formats.package.manifest import Manifest
from edged.model.reading import Layout
from edged.model.signal.decide import Decider

STREAMS = 64
"""Streams that one model has; a further one takes the place of the stream that was quiet the longest."""


class Streams:
    """A model's streams: one for each topic, or for each that `+` stands for where topics are joined.

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
        self._inlets: dict[str, Inlet] = {}
        self._streams: OrderedDict[str, Stream] = OrderedDict()
        channels = manifest.input.channels
        self._filters = config.filters
        self._brought = [channels]
        self._places: list[list[int]] = []
        if config.topics:
            self._brought = [tuple(one for one in channels if config.topics[one] == topic) for topic in self._filters]
            self._places = [[channels.index(one) for one in names] for names in self._brought]

    def renew(self, manifest: Manifest) -> None:
        """Go on with another version that wants the same windows: its decisions begin anew, and so does its state."""
        self._manifest = manifest
        for stream in self._streams.values():
            stream.decider = Decider(manifest, self._config.tune)
            stream.anew = True

    def use_sensors(self, sensors: Sequence[ContentKey]) -> None:
        """Take readings that are sealed under these keys; windows that are being filled go on."""
        self._sensors = sensors
        self._inlets.clear()

    def find(self, key: str) -> Stream | None:
        """Return a stream that is there."""
        return self._streams.get(key)

    def open_windows(self) -> int:
        """Return how many windows are being filled."""
        return sum(stream.open_from() is not None for stream in self._streams.values())

    def get(self, key: str) -> Stream:
        """Return a stream; a new one may push the quietest out."""
        stream = self._streams.get(key)
        if stream is None:
            decider = Decider(self._manifest, self._config.tune)
            stream = self._streams[key] = Stream(
                self._manifest, key, self._places, decider, timed=self._config.time is not None
            )
            if len(self._streams) > STREAMS:
                _, quiet = self._streams.popitem(last=False)
                for topic in [topic for topic, inlet in self._inlets.items() if inlet.stream is quiet]:
                    del self._inlets[topic]
        self._streams.move_to_end(key)
        return stream

    def inlet(self, topic: str) -> Inlet:
        """Return a topic's way into its stream."""
        inlet = self._inlets.get(topic)
        if inlet is None:
            place, key = levels_of(self._filters, topic) if self._config.topics else (0, topic)
            openers = {key.kid: ReadingOpener(key, topic, self._config.channel) for key in self._sensors}
            layout = Layout.of(self._config, self._manifest.input, self._brought[place], self._limit)
            decode = self._decoders.get(topic, layout, sealed=bool(openers))
            inlet = self._inlets[topic] = Inlet(self.get(key), place, openers, decode)
        self._streams.move_to_end(inlet.stream.key)
        return inlet
