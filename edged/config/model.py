"""``[[model]]``: where a model's readings come from at this site, and where its answers go."""

import math
import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from edged.base.errors import ConfigError
from edged.base.names import RESERVED_CHANNELS, check_name
from edged.base.units import check_quantity, parse_duration, parse_size
from edged.formats.readings import FORMATS, Format

MOST_TOPICS = 64
MOST_TITLES, LONGEST_TITLE = 256, 64
"""Sources with names, of all models, and bytes of a name: they stand in the inventory, which has a bound."""
_MOST_TRIAL = 1_000_000

_LEVEL = r"(?:\+|[^+#/\0]*)"
_TOPIC_FILTER = rf"(?!\Z){_LEVEL}(?:/{_LEVEL})*"

Each = Literal["row", "rows", "window"]
TimeUnit = Literal["s", "ms", "us", "ns", "iso"]


class SiteTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: its keys and no others.

    Modules of tables do without ``from __future__ import annotations``: msgspec would compile each annotation.
    """


class Calibration(SiteTable, frozen=True):
    """``model.calibrate.CHANNEL``: value * scale + offset, first of all."""

    scale: float = 1.0
    offset: float = 0.0


class TimeField(SiteTable, frozen=True):
    """``model.time``: where a row says when it was measured.

    :ivar at: JSON pointer, or column of a CSV.
    :ivar unit: of the number that stands there; ``iso``: text as in RFC 3339.
    """

    at: str
    unit: TimeUnit = "s"


class RawImage(SiteTable, frozen=True):
    """``model.image``: what the bytes of ``format = "raw"`` are: 8 bits a colour, row by row from the top left."""

    width: int
    height: int
    order: Literal["rgb", "bgr", "grey"] = "rgb"

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ConfigError("model.image: width and height are above 0")


class Gate(SiteTable, frozen=True):
    """``model.when``: the model is asked only while another one's decision is one of these labels.

    :ivar channel: of a model that stands above it.
    :ivar label: one of its labels, or several.
    """

    channel: str
    label: str | tuple[str, ...]

    @property
    def labels(self) -> frozenset[str]:
        """The labels that open it."""
        return frozenset((self.label,) if isinstance(self.label, str) else self.label)


class TrialTable(SiteTable, frozen=True):
    """``model.trial``: a version's first windows, after which the one before comes back if they go wrong.

    :ivar windows: how many; 0 for none.
    :ivar latency: a version of whose windows three take longer than this has failed; default: no bound.
    """

    windows: int = 20
    latency: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.windows <= _MOST_TRIAL:
            raise ConfigError(f"model.trial.windows: between 0 and {_MOST_TRIAL:,}")
        if self.latency is not None:
            check_quantity("model.trial.latency", parse_duration, self.latency)


class RuleTable(SiteTable, frozen=True):
    """``model.collect.rule``: a label by a column of the window's own rows, after ``calibrate``.

    :ivar column: one of the manifest's channels.
    :ivar of: what is made of the column's values in the window.
    :ivar over: where that lies above this number, the label is ``then``.
    :ivar otherwise: the label elsewhere; default: such windows are left out.
    """

    column: str
    over: float
    then: str
    otherwise: str | None = None
    of: Literal["mean", "max", "min", "last"] = "mean"

    def __post_init__(self) -> None:
        if not math.isfinite(self.over):
            raise ConfigError("model.collect.rule.over: a finite number")


class CollectTable(SiteTable, frozen=True):
    """``model.collect``: windows that stay on this board, sealed, to train the model with.

    :ivar label: who says what a window is: an operator (``edged federate data label``), a message on another topic, a
        rule; or the window itself, for an anomaly detector.
    :ivar size: bytes of sealed windows that are kept of the model.
    :ivar every: one window of so many is kept.
    :ivar at_most_every: and none sooner after another.
    :ivar topic: where labels come from: with as many ``+`` as the model's topic, or none.
    :ivar field: JSON pointer of the label in such a message; default: the message is the label.
    :ivar within: how old a label may be.
    :ivar names: labels by what the messages call them.
    """

    label: Literal["operator", "input", "rule", "sensor"]
    size: str = "64 MB"
    every: int = 1
    at_most_every: str = "1 s"
    rule: RuleTable | None = None
    topic: str | None = None
    field: str | None = None
    within: str = "10 s"
    names: dict[str, str] = {}

    def __post_init__(self) -> None:
        check_quantity("model.collect.size", parse_size, self.size)
        check_quantity("model.collect.at_most_every", parse_duration, self.at_most_every)
        check_quantity("model.collect.within", parse_duration, self.within)
        if self.every < 1:
            raise ConfigError("model.collect.every: at least 1")
        if (self.label == "rule") != (self.rule is not None):
            raise ConfigError("model.collect.rule: goes with label = 'rule'")
        if (self.label == "sensor") != (self.topic is not None):
            raise ConfigError("model.collect.topic: goes with label = 'sensor'")
        if self.topic is None and (self.field is not None or self.names):
            raise ConfigError("model.collect: field and names are of the messages on `topic`")
        if self.topic is not None and not re.fullmatch(_TOPIC_FILTER, self.topic):
            raise ConfigError(f"model.collect.topic: {self.topic!r} is no topic filter")


class ModelConfig(SiteTable, frozen=True, rename={"from_": "from"}):
    """``[[model]]``: one model in use. Readings come by `topic`, by `topics`, or `from` another model.

    :ivar topic: topic filter; each topic that matches has a window of its own.
    :ivar topics: topic filter of each of the manifest's channels, where each comes on its own; what `+` stands for
        tells which belong together.
    :ivar from_: channel of a model that stands above: its answers are this one's rows.
    :ivar retained: what a retained message counts for, which is old: the ``value`` of its topic where topics are joined
        (and nothing elsewhere), a new ``reading``, or nothing at all.
    :ivar fields: JSON pointer (RFC 6901) of each of the manifest's channels, or column of a CSV.
    :ivar time: when rows were measured; default: when they arrive.
    :ivar image: what raw pictures are.
    :ivar when: what another model must have decided.
    :ivar publish: false: answers go to other models only.
    :ivar delegate: the accelerator that runs it, one of ``[runtime.delegates]``.
    :ivar trial: how a new version proves itself.
    :ivar tune: what the publisher lets a site set.
    :ivar collect: which windows stay on this board to train the model with; default: none.
    :ivar title: what people here call it; default: the manifest's name of it.
    :ivar sources: what people here call the sources: each by the levels that `+` stands for, joined by `/`.
    """

    name: str
    channel: str
    title: str | None = None
    sources: dict[str, str] = {}
    topic: str | None = None
    topics: dict[str, str] = {}
    from_: str | None = None
    format: Format = "json"
    each: Each = "row"
    qos: Literal[0, 1] = 1
    retained: Literal["value", "reading", "ignore"] = "value"
    sensor: str | tuple[str, ...] | None = None
    journal: bool = False
    fields: dict[str, str] = {}
    time: TimeField | None = None
    image: RawImage | None = None
    calibrate: dict[str, Calibration] = {}
    when: Gate | None = None
    publish: bool = True
    delegate: str | None = None
    trial: TrialTable = TrialTable()
    tune: dict[str, float] = {}
    collect: CollectTable | None = None

    def __post_init__(self) -> None:
        where = f"[[model]] {check_name('model.name', self.name)}"
        check_name(f"{where}: channel", self.channel)
        if self.channel in RESERVED_CHANNELS:
            raise ConfigError(f"{where}: channel: {self.channel!r} is edged's own", hint="choose another name")
        if (self.topic is not None) + bool(self.topics) + (self.from_ is not None) != 1:
            raise ConfigError(f"{where}: topic: wanted, or `topics`, or `from`: exactly one of them")
        for topic in self.filters:
            if not re.fullmatch(_TOPIC_FILTER, topic):
                raise ConfigError(
                    f"{where}: topic: {topic!r} is no topic filter",
                    hint="+ stands for one whole level; # is not taken",
                )
        for name, one in self.calibrate.items():
            if not (math.isfinite(one.scale) and math.isfinite(one.offset)):
                raise ConfigError(f"{where}: calibrate.{name}: scale and offset are finite numbers")
        self._check_layout(where)
        self._check_collect(where)
        self._check_titles(where)

    def _check_layout(self, where: str) -> None:
        if FORMATS[self.format].is_picture and self.each != "window":
            raise ConfigError(f"{where}: each: a picture is a whole window", hint='each = "window"')
        if (self.format == "raw") != (self.image is not None):
            raise ConfigError(f"{where}: image: goes with format = 'raw', which it describes")
        if self.time is not None and not FORMATS[self.format].has_times:
            *most, last = (name for name, one in FORMATS.items() if one.has_times)
            hint = f"{', '.join(most)} and {last} have"
            raise ConfigError(f"{where}: time: {self.format} has no place for it", hint=hint)
        if self.topics:
            if self.each == "window":
                raise ConfigError(f"{where}: each: rows that come on several topics are joined, not whole windows")
            if len(self.filters) > MOST_TOPICS:
                raise ConfigError(f"{where}: topics: at most {MOST_TOPICS} of them")
            if len({topic.split("/").count("+") for topic in self.filters}) > 1:
                raise ConfigError(
                    f"{where}: topics: each has as many + as the others, which tell what belongs together"
                )
        if self.journal and (self.each == "window" or self.topics or self.time is not None or self.from_ is not None):
            raise ConfigError(
                f"{where}: journal: for rows of one topic, without times",
                hint="whole windows are not acknowledged before their result is safe: they need none",
            )
        if self.from_ is not None and (self.sensor is not None or self.fields or self.time is not None):
            raise ConfigError(f"{where}: from: sensor, fields and time are of messages, not of another model's answers")

    def _check_collect(self, where: str) -> None:
        topic = None if self.collect is None else self.collect.topic
        if topic is None or "+" not in topic:
            return
        if any(one.split("/").count("+") != topic.split("/").count("+") for one in self.filters or ("",)):
            raise ConfigError(
                f"{where}: collect.topic: as many + as the model's own topics have, or none",
                hint="what + stands for tells which window a label is of",
            )

    def _check_titles(self, where: str) -> None:
        titles = {f"{where}: sources.{source}": title for source, title in self.sources.items()}
        for key, title in {f"{where}: title": self.title, **titles}.items():
            if title is not None and not (0 < len(title.encode()) <= LONGEST_TITLE and title.isprintable()):
                raise ConfigError(f"{key}: between 1 and {LONGEST_TITLE} bytes of UTF-8 that can be printed")
        if len(set(self.sources.values())) < len(self.sources):
            raise ConfigError(f"{where}: sources: each has a name of its own")
        levels = max((topic.split("/").count("+") for topic in self.filters), default=0)
        for source in self.sources:
            if not levels or source.count("/") != levels - 1:
                raise ConfigError(
                    f"{where}: sources: {source!r} is not what the {levels} + of its topic stand for",
                    hint="its levels, joined by /" if levels else "a model has sources where its topic has +",
                )

    @property
    def has_sources(self) -> bool:
        """True if results name the source of their readings: what `+` in the topic stood for."""
        return any("+" in topic.split("/") for topic in self.filters)

    @property
    def sensors(self) -> tuple[str, ...]:
        """The files of the sensor's keys: each that it may still use."""
        return () if self.sensor is None else (self.sensor,) if isinstance(self.sensor, str) else self.sensor

    @property
    def wants_retained(self) -> bool:
        """True if the broker is to send retained messages with the subscription."""
        return self.retained == "reading" or (self.retained == "value" and bool(self.topics))

    @property
    def filters(self) -> tuple[str, ...]:
        """The topic filters that it subscribes to, each once."""
        return tuple(dict.fromkeys((self.topic,) if self.topic is not None else self.topics.values()))


def check_sources(models: Iterable[ModelConfig]) -> None:
    """Refuse a model that stands on one that does not stand above it.

    :raises ConfigError: naming it.
    """
    above: set[str] = set()
    for model in models:
        for key, channel in (("from", model.from_), ("when.channel", model.when and model.when.channel)):
            if channel is not None and channel not in above:
                raise ConfigError(
                    f"[[model]] {model.name}: {key}: no model above it has the channel {channel!r}",
                    hint="a chain goes from top to bottom",
                )
        above.add(model.channel)
