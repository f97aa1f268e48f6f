"""A board with a lane for every format under a storm of generated messages, and a judge who says what becomes of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edged.base.errors import FormatError, ModelError, ReadingError, TrustError
from edged.board.pipeline import Job, Lane, Message
from edged.config.load import load_board
from edged.formats.channel.reading import ReadingSealer, ReplayGuard
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import ContentKey
from edged.formats.package.verify import Package
from edged.formats.spec import Image, Input, Output, Window
from edged.keystore.records import read_sensor_key
from edged.model.dry_run import open_model
from edged.model.live import load
from edged.model.runtime import choose
from support.bench import Bench
from support.fuzz import CHANNELS, HEAVY, LIMIT, PICTURE, Source
from support.packages import pin

FENCE = "fence"
"""Channel of the readings that are always good: the answer to one tells that what came before was dealt with."""

LANES = {
    "gearbox": (
        "json-row", "json-rows", "json-window", "text-row", "text-window", "csv-rows", "csv-window", "cbor-row",
        "cbor-rows", "cbor-window", "f32le-rows", "f32le-window", "json-row-sealed", "f32le-window-sealed",
    ),
    "eyes": ("png-window", "jpeg-window", "raw-window"),
    "clocked": ("json-rows-timed",),
}  # fmt: skip
"""Each model's channels, which say their format, what a message of theirs holds, and what else there is to it."""

_EXTRA = {
    "sealed": 'sensor = "sensor.key"',
    "timed": 'time = { at = "/t" }',
    "raw": 'image = { width = 4, height = 4, order = "grey" }',
}
_REFUSALS = (ReadingError, TrustError, FormatError, ModelError)
_SHORT = 10_000
_ROWS = 20_000
"""Bytes of a message that may hold many windows: a megabyte of them is thousands to answer, which is no hang."""
_REMEMBERED = 200


def topic_of(bench: Bench, channel: str) -> str:
    """Return the topic that a channel's readings come on."""
    return f"factory/{bench.name}/{channel}"


def prepare(bench: Bench) -> None:
    """Install a model for pictures and one for windows by time, and write a table for each channel."""
    _install(bench, "eyes", (16, 1), features=None, window=Window(),
             input=Input(channels=("grey",), image=Image(width=PICTURE[0], height=PICTURE[1])))  # fmt: skip
    _install(bench, "clocked", (5, len(CHANNELS)), window=Window(size="1 s", hop="500 ms"),
             input=Input(channels=CHANNELS, order="restart"))  # fmt: skip
    tables = ['[runtime]\nslow = "10 s"', _table(bench, "gearbox", FENCE, "f32le", "window")]
    for name, channels in LANES.items():
        for channel in channels:
            format_, each, *_ = words = channel.split("-")
            extra = [line for word, line in _EXTRA.items() if word in words]
            tables.append(_table(bench, name, channel, format_, each, *extra))
    folder = bench.path / "edged.toml.d"
    folder.mkdir()
    (folder / "lanes.toml").write_text("\n\n".join(tables))


def _install(bench: Bench, name: str, shape: tuple[int, int], **change: Any) -> None:
    config = bench.path / "edged.toml"
    config.write_text(config.read_text().replace('models = ["gearbox"', f'models = ["gearbox", "{name}"'))
    change |= {"name": name, "version": 1, "output": Output(kind="classifier", labels=("healthy", "broken"))}
    window = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    model = open_model(bench.workshop.author(**change), bench.models / "gearbox" / "dnn.tflite", choose())
    bench.workshop.write_self_test(window, model.scores(window))
    model.close()
    package = bench.path / f"{name}.edged"
    package.write_bytes(bench.pack_fast(**change))
    bench.install(package)


def _table(bench: Bench, name: str, channel: str, format_: str, each: str, *extra: str) -> str:
    texts = {"name": name, "channel": channel, "topic": topic_of(bench, channel), "format": format_, "each": each}
    return "\n".join(("[[model]]", *(f'{key} = "{text}"' for key, text in texts.items()), *extra))


class Judge:
    """The same lanes in this process: what they make of a message is what the board has to make of it.

    :ivar results: how many answers there were.
    :ivar refused: what was refused, by kind.
    """

    def __init__(self, bench: Bench) -> None:
        self.results = 0
        self.refused: Counter[str] = Counter()
        publishers = pin(bench.workshop.publisher.public, *LANES)
        packages = {name: bench.path / ("first.edged" if name == "gearbox" else f"{name}.edged") for name in LANES}
        self._models = {
            name: load(Package.parse(memoryview(path.read_bytes())).verify(publishers), bench.board_key, choose())
            for name, path in packages.items()
        }
        key, guard = read_sensor_key(bench.path / "sensor.key"), ReplayGuard({})
        self._lanes = {
            table.topic: Lane(table, self._models[table.name], (key,) if table.sensors else (), guard, LIMIT)
            for table in load_board(bench.path / "edged.toml").model
        }

    def take(self, topic: str, payload: bytes) -> None:
        """Count what becomes of a message. Whatever is no refusal comes out."""
        lane = self._lanes[topic]
        try:
            for job in lane.take(lane.open(Message(topic, payload)), clock_synchronised=True):
                self._ask(lane, job)
        except _REFUSALS as error:
            self.refused[type(error).__name__] += 1

    def _ask(self, lane: Lane, job: Job) -> None:
        try:
            self.results += lane.decide(job, lane.ask(job)).publish
        except _REFUSALS as error:  # of one window: the message may fill others
            self.refused[type(error).__name__] += 1

    def close(self) -> None:
        """Let go of the models."""
        for model in self._models.values():
            model.close()


@dataclass
class Storm:
    """What is sent, in batches: valid readings, changed ones, and earlier ones again."""

    bench: Bench
    source: Source
    _earlier: dict[str, list[bytes]] = field(default_factory=dict)
    _sealers: dict[tuple[str, bytes], ReadingSealer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._channels = [channel for channels in LANES.values() for channel in channels]
        self._key = read_sensor_key(self.bench.path / "sensor.key")
        self._stranger = ContentKey.generate(Aead.A256GCM)

    def batch(self, size: int) -> list[tuple[str, bytes]]:
        """Return topics and payloads, none twice: the copy of a window whose answer is under way gets no other."""
        batch: dict[tuple[str, bytes], None] = {}
        while len(batch) < size:
            channel = self.source.random.choice(self._channels)
            batch[channel, self._message(channel)] = None
        for channel, payload in batch:
            if len(payload) < _SHORT:
                kept = self._earlier.setdefault(channel, [])
                kept.append(payload)
                del kept[:-_REMEMBERED]
        return [(topic_of(self.bench, channel), payload) for channel, payload in batch]

    def heaviest(self) -> list[tuple[str, bytes]]:
        """Return topics and payloads: what costs the most, at the limit, for each format that can hold it."""
        channels = ("json-window", "text-window", "csv-window", "cbor-window")
        return [(topic_of(self.bench, channel), make(LIMIT)) for channel in channels for make in HEAVY]

    def _message(self, channel: str) -> bytes:
        source, chance = self.source, self.source.random.random()
        if channel in self._earlier and chance < 0.05:
            return source.random.choice(self._earlier[channel])
        format_, each, *words = channel.split("-")
        valid = source.timed() if "timed" in words else source.reading(format_, each)
        largest = _ROWS if each == "rows" else LIMIT
        if "sealed" in words:
            return self._sealed(channel, valid, chance)
        return valid if chance < 0.25 else source.changed(valid, largest)

    def _sealed(self, channel: str, valid: bytes, chance: float) -> bytes:
        if chance < 0.4:
            return self._seal(channel, self.source.changed(valid))
        if chance < 0.65:
            return self._seal(channel, valid)
        if chance < 0.7:
            return self._seal(channel, valid, self._stranger)
        if chance < 0.75:
            return self._seal(FENCE, valid)
        return self.source.changed(self._seal(channel, valid))

    def _seal(self, channel: str, reading: bytes, key: ContentKey | None = None) -> bytes:
        key = key or self._key
        if (channel, key.kid) not in self._sealers:
            self._sealers[channel, key.kid] = ReadingSealer(key, topic_of(self.bench, channel))
        return self._sealers[channel, key.kid].seal(reading)
