"""One model's way from a message to an answer: open, decode, window, infer, decide.

A :class:`Lane` is one ``[[model]]`` table. Each topic that matches it has a stream of its own: its window, its decision
state, and the names of the readings that the window holds. Sealing and publishing are the daemon's.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from edged.channel.reading import OpenedReading, ReadingOpener, ReplayGuard
from edged.channel.result import Answer, Input, Plain, ResultEncoder, Sealed
from edged.config.board import ModelConfig
from edged.config.units import parse_duration
from edged.cose.keys import ContentKey
from edged.errors import ConfigError, ReadingSizeError, naming
from edged.model import Floats, LiveModel
from edged.package.manifest import Manifest
from edged.signal.decide import Decider
from edged.signal.decode import Decoder
from edged.signal.window import Window

TOPICS = 64
"""Topics that one lane keeps a window for; a further one takes the place of the topic that was quiet the longest."""

_ENVELOPE = 128
"""Bytes by which a sealed reading may be longer than a plain one."""


@dataclass
class _Stream:
    """What one topic has: its way in, its window and its decision."""

    opener: ReadingOpener | None
    decode: Decoder
    window: Window
    decider: Decider
    rows: int = 0
    readings: deque[tuple[int, bytes | int]] = field(default_factory=deque)
    heard: float = float("inf")

    def restart_after_gap(self, longest: float, now: float) -> None:
        """Forget the window that is being filled if nothing came for longer than ``longest`` seconds."""
        if now - self.heard > longest:
            self.window.reset()
            self.readings.clear()
        self.heard = now

    def remember(self, rows: int, name: bytes | int) -> None:
        """Note that a reading called ``name`` brought the next ``rows`` rows."""
        self.rows += rows
        self.readings.append((self.rows, name))

    def names(self, first: int, last: int) -> list[bytes | int]:
        """Return the readings that brought the rows from ``first`` to ``last``; forget those that came before."""
        while self.readings[0][0] <= first:
            self.readings.popleft()
        names: list[bytes | int] = []
        for behind, name in self.readings:
            names.append(name)
            if behind > last:
                break
        return names


class Reading(NamedTuple):
    """A message that was opened and not yet decoded.

    :ivar name: what a result calls it: its count if it was sealed, else the SHA-256 of its bytes.
    """

    topic: str
    payload: bytes
    name: bytes | int
    sealed: OpenedReading | None


class Answered(NamedTuple):
    """An answer that is to be published, and the readings that it answers."""

    answer: Answer
    of: Input


class Lane:
    """One model in use on this board.

    :param sensor: key of the sensor, where only sealed readings are taken.
    :param guard: accepts each count of a sensor once.
    :param limit: the longest message that is taken, in bytes.
    :raises ConfigError: the board's table does not fit the model's manifest.
    """

    def __init__(
        self, config: ModelConfig, model: LiveModel, sensor: ContentKey | None, guard: ReplayGuard, limit: int
    ) -> None:
        self.config = config
        self._sensor = sensor
        self._guard = guard
        self._limit = limit
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._use(model)

    @property
    def holds_whole_windows(self) -> bool:
        """Whether each message is a window of its own, so that its acknowledgement can wait for its result."""
        return self.config.each == "window"

    def swap(self, model: LiveModel) -> None:
        """Answer with another version from the next window on; the old one is wiped.

        Windows that are being filled go on, unless the new version wants them otherwise.
        """
        old = self.model
        kept = (old.manifest.input, old.manifest.window) == (model.manifest.input, model.manifest.window)
        self._use(model)
        if kept:
            for stream in self._streams.values():
                stream.decider = self._new_decider()
        else:
            self._streams.clear()
        old.close()

    def close(self) -> None:
        """Wipe the model."""
        self.model.close()

    def _use(self, model: LiveModel) -> None:
        manifest = model.manifest
        check_binding(self.config, manifest)
        self.model = model
        gap = manifest.input.gap
        self._longest_gap = float("inf") if gap is None else parse_duration(gap.over)
        self.encoder = ResultEncoder(
            manifest.name,
            manifest.version,
            model.identity,
            labels=manifest.output.labels,
            scores=model.outputs,
            tune=self.config.tune,
        )

    def _new_decider(self) -> Decider:
        return Decider(self.model.manifest, self.config.tune)

    def _stream(self, topic: str) -> _Stream:
        stream = self._streams.get(topic)
        if stream is None:
            manifest = self.model.manifest
            opener = None if self._sensor is None else ReadingOpener(self._sensor, topic, self.config.channel)
            decode = new_decoder(self.config, manifest, self._limit)
            window = Window(manifest.window.size, manifest.window.step, len(manifest.input.channels))
            stream = self._streams[topic] = _Stream(opener, decode, window, self._new_decider())
            if len(self._streams) > TOPICS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(topic)
        return stream

    def open(self, topic: str, message: bytes) -> Reading:
        """Open one message.

        :raises ReadingSizeError: it is longer than allowed.
        :raises TrustError: it is sealed, and not to be believed; its count was not looked at yet.
        :raises FormatError: it should be sealed, and is not.
        """
        stream = self._stream(topic)
        if stream.opener is None:
            if len(message) > self._limit:
                raise ReadingSizeError(f"a reading is {len(message)} bytes long, more than the {self._limit} allowed")
            return Reading(topic, message, hashlib.sha256(message).digest(), None)
        opened = stream.opener.open(message, self._limit + _ENVELOPE)
        return Reading(topic, opened.payload, opened.count, opened)

    def answer(self, reading: Reading, *, clock_synchronised: bool) -> Iterator[Answered]:
        """Take a reading into its window, and yield an answer to each window that it fills.

        :raises ReplayError: its count was accepted before.
        :raises ReadingError: it cannot be used.
        :raises ModelError: the runtime fails on it.
        """
        stream = self._stream(reading.topic)
        if reading.sealed is not None:
            self._guard.check(reading.sealed.key, reading.sealed.count, clock_synchronised=clock_synchronised)
            self._guard.accept(reading.sealed.key, reading.sealed.count)
        rows = stream.decode(reading.payload)
        if self.holds_whole_windows:
            yield from self._decide(stream, rows, [reading.name])
            return
        stream.restart_after_gap(self._longest_gap, time.monotonic())
        stream.remember(len(rows), reading.name)
        for window in stream.window.push(rows):
            yield from self._decide(stream, window.rows, stream.names(window.first, window.last))

    def _decide(self, stream: _Stream, window: Floats, names: list[bytes | int]) -> Iterator[Answered]:
        decision = stream.decider.step(self.model.scores(window), time.monotonic())
        if decision.publish:
            answer = Answer(decision.label, decision.score, decision.value, decision.scores)
            yield Answered(answer, self._input(names))

    def _input(self, names: list[bytes | int]) -> Input:
        counts = [name for name in names if isinstance(name, int)]
        if self._sensor is not None:
            return Sealed(self._sensor.kid, counts[0], counts[-1])
        return Plain(hashlib.sha256(b"".join(name for name in names if isinstance(name, bytes))).digest())


def new_decoder(config: ModelConfig, manifest: Manifest, limit: int) -> Decoder:
    """Return the decoder of one topic: it remembers values that a manifest wants held.

    :raises ConfigError: a field is no JSON pointer.
    """
    return Decoder(
        config.format,
        config.each,
        manifest.input,
        size=manifest.window.size,
        fields=config.fields,
        calibrate=config.calibrate,
        limit=limit,
    )


def check_binding(config: ModelConfig, manifest: Manifest) -> None:
    """Check that a board's ``[[model]]`` table fits the manifest of the model that it names.

    :raises ConfigError: it names a channel that the manifest lacks, a field that is no JSON pointer, or tunes what the
        publisher does not allow.
    """
    where = f"[[model]] {config.name}"
    channels = manifest.input.channels
    for table, names in (("fields", config.fields), ("calibrate", config.calibrate)):
        for name in names:
            if name not in channels:
                raise ConfigError(
                    f"{where}: {table}.{name}: the model has no such channel", hint=f"it has {', '.join(channels)}"
                )
    for name, value in config.tune.items():
        bounds = manifest.tunable.get(name)
        if bounds is None:
            raise ConfigError(
                f"{where}: tune.{name}: the publisher does not let a site set it",
                hint=f"it may set {', '.join(manifest.tunable) or 'nothing'}",
            )
        if not bounds[0] <= value <= bounds[1]:
            raise ConfigError(
                f"{where}: tune.{name}: {value} is out of bounds",
                hint=f"from {bounds[0]} to {bounds[1]}, says the publisher",
            )
    with naming(where):
        new_decoder(config, manifest, limit=0)
