"""Selects the windows that stay on the board to train the model with, and their labels."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edged.base.topics import topic_matches
from edged.base.units import parse_duration, parse_size
from edged.board.examples import Like, Of
from edged.board.pipeline.binding import levels_of
from edged.config.model import CollectTable, ModelConfig, RuleTable
from edged.formats.package.manifest import Manifest
from edged.formats.spec import fingerprint
from edged.model.live import Floats, LiveModel
from edged.model.reading.objects import compile_pointers
from edged.model.signal.chain import Prepared

NO_LABEL, UNKNOWN_LABEL = "no-label", "unknown-label"
"""Reasons to leave a window out."""

_LONGEST = 64 * 1024
"""The most bytes of a message with a label."""

_MOST_STREAMS = 64

_REDUCE: dict[str, Callable[[Floats], float]] = {
    "mean": lambda values: float(values.mean(dtype=np.float64)),
    "max": lambda values: float(values.max()),
    "min": lambda values: float(values.min()),
    "last": lambda values: float(values[-1]),
}


class Example(NamedTuple):
    """A window to be stored.

    :ivar channel: of the model.
    :ivar most: the most bytes that may be stored of the model.
    :ivar window: float32 [rows, channels], its own copy.
    :ivar prepare: turns it into the input of the model.
    :ivar at: Unix microseconds.
    """

    channel: str
    of: Of
    most: int
    window: Floats
    prepare: Callable[[Floats], Prepared]
    label: int | None
    at: int

    def values(self) -> bytes:
        """Return the input of the model before quantisation: float32, little-endian.

        :raises ReadingError: the signal chain refuses the window.
        """
        return self.prepare(self.window).values.astype("<f4").tobytes()


class ExampleSelector:
    """Selects windows of one ``[[model]]``.

    :param config: its table; ``table`` is the ``collect`` of it.
    """

    def __init__(self, config: ModelConfig, table: CollectTable, model: LiveModel) -> None:
        self._channel = config.channel
        self._topic_of = config.topic
        self._table = table
        self._most = parse_size(table.size)
        self._pause = parse_duration(table.at_most_every)
        self._within = parse_duration(table.within)
        self._find = None if table.field is None else compile_pointers([table.field])
        self._heard: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._passed = table.every - 1
        self._next = -float("inf")
        self.topic = table.topic
        """The topic of labels."""
        self.use(model)

    def use(self, model: LiveModel) -> None:
        """Use another version from now on."""
        manifest = model.manifest
        self._of = Of(manifest.name, fingerprint(manifest))
        self._labels = {label: number for number, label in enumerate(manifest.output.labels)}
        self._columns = manifest.input.channels
        self._prepare = model.prepare

    def hear(self, topic: str, payload: bytes, now: float) -> None:
        """Take a message on a topic that may bring labels.

        :param now: monotonic seconds.
        """
        if self.topic is not None and len(payload) <= _LONGEST and topic_matches(self.topic, topic):
            _, levels = levels_of([self.topic], topic)
            self._heard[levels] = (payload, now)
            self._heard.move_to_end(levels)
            if len(self._heard) > _MOST_STREAMS:
                self._heard.popitem(last=False)

    def take(self, window: Floats, stream: str, now: float) -> Example | str | None:
        """Return the example to store of a window, or the reason to leave it out, or None if its turn has not come.

        :param stream: key of its stream.
        :param now: monotonic seconds.
        """
        self._passed += 1
        if self._passed < self._table.every or now < self._next:
            return None
        label: int | None = None
        if self._table.rule is not None or self.topic is not None:
            name = self._by_rule(self._table.rule, window) if self._table.rule else self._by_sensor(stream, now)
            if name is None:
                return NO_LABEL
            if name not in self._labels:
                return UNKNOWN_LABEL
            label = self._labels[name]
        self._passed = 0
        self._next = now + self._pause
        at = time.time_ns() // 1000
        return Example(self._channel, self._of, self._most, window.copy(), self._prepare, label, at)

    def _by_rule(self, rule: RuleTable, window: Floats) -> str | None:
        value = _REDUCE[rule.of](window[:, self._columns.index(rule.column)])
        return rule.then if value > rule.over else rule.otherwise

    def _by_sensor(self, stream: str, now: float) -> str | None:
        levels = ""
        if self.topic is not None and "+" in self.topic:
            levels = stream if self._topic_of is None else levels_of([self._topic_of], stream)[1]
        payload, at = self._heard.get(levels, (b"", -float("inf")))
        if now - at > self._within:
            return None
        said = self._read(payload)
        return None if said is None else self._table.names.get(said, said)

    def _read(self, payload: bytes) -> str | None:
        """Return the label in a message: its text, or the value that a JSON pointer finds."""
        try:
            if self._find is None:
                return payload.decode().strip()
            (found,) = self._find(json.loads(payload))
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, str) else None if found is None else json.dumps(found)


def like(manifest: Manifest, shape: tuple[int, ...]) -> Like:
    """Return the properties that stored windows need to train a model.

    :param shape: of one window, as the model takes it.
    """
    output = manifest.output
    return Like(fingerprint(manifest), shape, len(output.labels) if output.kind == "classifier" else 0)
