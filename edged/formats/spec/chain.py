"""The whole signal chain: its tables, and what they must be to each other."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any, Literal, Self

import msgspec

from edged.base.errors import ConfigError
from edged.formats.cose import cbor
from edged.formats.spec.decide import Decide, Publish
from edged.formats.spec.features import Feature, Features, Normalise, Tensor
from edged.formats.spec.input import MOST_ROWS, Input, Layout, Table, Window
from edged.formats.spec.output import ModelTable, Output

_MOST_TUNABLE = 8
_FINGERPRINTED = ("input", "window", "features", "normalise", "tensors")


class HomeAssistant(Table, frozen=True):
    """``[home_assistant]``: how a hub shows the model.

    :ivar name: what people call it.
    :ivar device_class: as Home Assistant names it: of a regressor's value; of a classifier or anomaly detector, what it
        means that the watched label holds (default: ``problem``).
    :ivar state_class: of a regressor's value, as Home Assistant names it.
    :ivar binary: of a classifier: further labels that are shown by themselves, each with its device class, such as
        ``occupancy`` or ``motion``.
    """

    name: str
    device_class: str | None = None
    state_class: Literal["measurement", "total", "total_increasing"] = "measurement"
    binary: dict[str, str] = msgspec.field(default_factory=dict)


class Chain(Table, frozen=True):
    """The whole signal chain.

    :ivar input: what one row is.
    :ivar output: what comes out of the model.
    :ivar window: which rows the model sees together.
    :ivar features: values that take the window's place.
    :ivar normalise: how values are scaled.
    :ivar model: how the model is asked.
    :ivar decide: what scores come to.
    :ivar publish: which decisions are told.
    :ivar home_assistant: how a hub shows the model.
    :ivar tensors: what each input is given, by its name, where the model has several.
    :ivar tunable: what a site may set, and how far: a number in [decide] or [publish], such as "decide.enter".
    """

    input: Input
    output: Output
    window: Window = Window()
    features: Features | None = None
    normalise: Normalise = Normalise()
    tensors: dict[str, Tensor] = msgspec.field(default_factory=dict)
    model: ModelTable = ModelTable()
    decide: Decide | None = None
    publish: Publish = Publish()
    tunable: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    home_assistant: HomeAssistant | None = None

    def __post_init__(self) -> None:
        self._check_window()
        self._check_tensors()
        self._check_features()
        self._check_decide()
        self._check_tunable()

    @property
    def rows(self) -> int | None:
        """Rows of a window; None where it holds as many as came in its time."""
        if self.input.image is not None:
            return self.input.image.width * self.input.image.height
        if self.window.in_time:
            return self._rows_in(self.window.extent)
        return int(self.window.extent)

    @property
    def hop(self) -> int | None:
        """Rows from one window to the next; None where :attr:`rows` is."""
        if self.rows is None or self.input.image is not None:
            return self.rows
        return self._rows_in(self.window.step) if self.window.in_time else int(self.window.step)

    def _rows_in(self, seconds: float) -> int | None:
        if self.input.resample == "none" or self.input.hertz is None:
            return None
        return round(seconds * self.input.hertz)

    def _check_window(self) -> None:
        if self.input.image is not None and self.window != Window():
            raise ConfigError("window: with input.image, each picture is the window")
        if self.rows is not None and not (0 < self.rows <= MOST_ROWS and self.hop):
            raise ConfigError(
                f"window.size: at input.rate it holds {self.rows} rows, and hop {self.hop}",
                hint=f"both between 1 and {MOST_ROWS:,}",
            )
        if self.rows is None and not all(tensor.features for tensor in self.parts.values()):
            raise ConfigError(
                "window.size: in time it holds now more rows, now fewer, and a tensor has one size",
                hint="set input.resample and input.rate, or [features], or window.size as a number of rows",
            )

    @property
    def all_labels(self) -> tuple[str, ...]:
        """All labels that may hold: the output's, and ``decide.otherwise``."""
        otherwise = None if self.decide is None else self.decide.otherwise
        labels = self.output.labels
        return labels if otherwise is None or otherwise in labels else (*labels, otherwise)

    @property
    def watched(self) -> str | None:
        """The label that is watched; None where there is none."""
        if self.output.kind == "anomaly":
            return self.output.labels[1]
        return None if self.decide is None else self.decide.watch

    def with_layouts(self, layouts: Mapping[str, Layout]) -> Self:
        """Return the chain with the layouts of windows stated that are not the usual one, by the names of its parts."""
        first = {name for name, layout in layouts.items() if layout == "channels_first"}
        if not self.tensors:
            one = msgspec.structs.replace(self.input, layout="channels_first") if first else self.input
            return msgspec.structs.replace(self, input=one)
        tensors = {
            name: msgspec.structs.replace(tensor, layout="channels_first") if name in first else tensor
            for name, tensor in self.tensors.items()
        }
        return msgspec.structs.replace(self, tensors=tensors)

    @property
    def parts(self) -> Mapping[str, Tensor]:
        """The table of each input, by name; a model with one input has the empty name."""
        one = Tensor(features=self.features, normalise=self.normalise, layout=self.input.layout)
        return self.tensors or {"": one}

    def _check_tensors(self) -> None:
        if self.tensors and (self.features is not None or self.normalise != Normalise()):
            raise ConfigError("tensors: features and normalise stand below each of them, then")
        if self.tensors and self.input.layout is not None:
            raise ConfigError("input.layout: stands below each of [tensors], then")
        for name, tensor in self.tensors.items():
            if unknown := set(tensor.channels) - set(self.input.channels):
                raise ConfigError(f"tensors.{name}.channels: {min(unknown)!r} is none of input.channels")
        for name, tensor in self.parts.items():
            if tensor.layout is not None and tensor.features is not None:
                where = f"tensors.{name}" if name else "input"
                raise ConfigError(f"{where}.layout: of windows; features have features.order")
        if both := set(self.tensors) & set(self.model.feedback):
            raise ConfigError(f"tensors.{min(both)}: model.feedback fills it already")

    def _check_features(self) -> None:
        for feature in self._all_features():
            for _, high in feature.bands:
                if self.input.hertz is None:
                    raise ConfigError("input.rate: wanted with features in hertz", hint=f"{feature.name} has bands")
                if high > self.input.hertz:
                    raise ConfigError(
                        f"features.use: {feature.name}: a band up to {high} Hz, and input.rate is {self.input.rate}"
                    )

    def _all_features(self) -> list[Feature]:
        return [one for tensor in self.parts.values() if tensor.features is not None for one in tensor.features.all]

    def _check_decide(self) -> None:
        decide, output = self.decide, self.output
        if output.kind == "regressor":
            smooth = None if decide is None else decide.smooth
            if decide not in (None, Decide(smooth=smooth)) or (smooth and smooth.method == "majority"):
                raise ConfigError("decide: a regressor has decide.smooth alone, by mean or median")
        elif self.publish.by is not None:
            raise ConfigError("publish.by: for a regressor; labels change or do not")
        if output.kind == "regressor" and self.publish.when == "change" and self.publish.by is None:
            raise ConfigError("publish.by: wanted with publish.when = 'change': how far the value must move")
        if output.kind == "anomaly":
            if decide is None or decide.enter is None:
                raise ConfigError("decide.enter: wanted: the error from which on it is an anomaly")
            if decide.thresholds or decide.watch not in {None, output.labels[1]}:
                raise ConfigError(f"decide: an anomaly detector watches {output.labels[1]!r}, by decide.enter")
        elif output.kind == "classifier" and decide is not None:
            _check_classifier(decide, output.labels)
        shown = {} if self.home_assistant is None else self.home_assistant.binary
        if unknown := set(shown) - set(self.all_labels):
            raise ConfigError(f"home_assistant.binary: {min(unknown)!r} is none of output.labels")

    def _check_tunable(self) -> None:
        if len(self.tunable) > _MOST_TUNABLE:
            raise ConfigError(f"tunable: at most {_MOST_TUNABLE} keys")
        for name, (low, high) in self.tunable.items():
            if not low <= high:
                raise ConfigError(f"tunable: {name!r}: the first bound must not be above the second")
        for corner in itertools.product(*self.tunable.values()) if self.tunable else ():
            try:
                self._replaced(dict(zip(self.tunable, corner, strict=True)))
            except ConfigError as error:
                raise ConfigError(error.message, hint=error.hint or "[tunable] bounds count, too") from error

    def tuned(self, values: Mapping[str, float]) -> Chain:
        """Return the chain as a site has tuned it.

        :param values: by the names of :attr:`tunable`; whether they are in bounds is the caller's question.
        :raises ConfigError: such a key holds no number.
        """
        return self._replaced(values) if values else self

    def _replaced(self, values: Mapping[str, float]) -> Chain:
        tables: dict[str, dict[str, Any]] = {
            "decide": {} if self.decide is None else msgspec.to_builtins(self.decide),
            "publish": msgspec.to_builtins(self.publish),
        }
        for path, value in values.items():
            table, *steps = path.split(".", 2)
            if table not in tables or not steps or (table == "decide" and self.decide is None):
                raise _not_tunable(path)
            where = tables[table]
            for step in steps[:-1]:
                where = where.setdefault(step, {})
            where[steps[-1]] = value
        try:
            decide = None if self.decide is None else msgspec.convert(tables["decide"], Decide)
            publish = msgspec.convert(tables["publish"], Publish)
        except msgspec.ValidationError as error:
            raise _not_tunable(", ".join(values)) from error
        return msgspec.structs.replace(self, decide=decide, publish=publish, tunable={})


def _not_tunable(path: str) -> ConfigError:
    return ConfigError(f"tunable: {path!r} cannot be tuned", hint="a number in [decide] or [publish]: decide.enter")


def _check_classifier(decide: Decide, labels: tuple[str, ...]) -> None:
    if decide.watch is not None:
        if decide.watch not in labels:
            raise ConfigError(f"decide.watch: {decide.watch!r} is none of output.labels")
        if len(labels) < 2:  # noqa: PLR2004  something must hold while `watch` does not
            raise ConfigError("decide.watch: needs two labels or more")
    elif decide.enter is not None or decide.leave is not None:
        raise ConfigError("decide.watch: wanted with decide.enter and decide.leave")
    if unknown := set(decide.thresholds) - set(labels):
        raise ConfigError(f"decide.thresholds: {min(unknown)!r} is none of output.labels")


def fingerprint(chain: Chain) -> bytes:
    """Return the SHA-256 of the tables that make tensors of rows, and of the labels.

    Equal fingerprints mean equal tensors of equal rows, and equal labels. Decisions, thresholds and weights are left
    out: a window that was kept under one version of a model trains the next.
    """
    tables = {name: msgspec.to_builtins(getattr(chain, name)) for name in _FINGERPRINTED}
    return hashlib.sha256(cbor.encode([tables, chain.output.kind, list(chain.output.labels)])).digest()
