"""The signal chain as a manifest states it: the same names in the author's TOML and in the signed CBOR.

Only what works is accepted here; a key that this release does not know is refused by its name.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edged.config.units import check_quantity, parse_duration, parse_rate
from edged.errors import ConfigError

MOST_LABELS, LONGEST_LABEL = 1024, 40
"""A sealed result has one size per model: the label's length is made up for by padding, and padding has bounds."""

FEATURE_NAMES = ("sum_abs", "mean", "std", "rms", "min", "max", "kurtosis")


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A table of the manifest: its keys and no others; what has its default value is left out when it is signed."""


class Gap(Table, frozen=True):
    """``input.gap``: after a pause ``over`` this long between two messages, the window being filled starts anew."""

    over: str
    then: Literal["restart"] = "restart"

    def __post_init__(self) -> None:
        check_quantity("input.gap.over", parse_duration, self.over)


class Input(Table, frozen=True):
    """``[input]``: what one row is.

    :ivar channels: names of the values of a row, in the model's order.
    :ivar unit: for people.
    :ivar rate: rows a second, for people and `edged send`.
    :ivar missing: what to do where a reading lacks a channel: refuse it, hold the last value, or take a number.
    :ivar nan: what to do with a value that is not finite: refuse the reading, or take a number.
    :ivar range: values outside it are refused.
    :ivar gap: when the window that is being filled is not worth going on with.
    """

    channels: tuple[str, ...]
    unit: str = ""
    rate: str | None = None
    missing: Literal["refuse", "hold"] | float = "refuse"
    nan: Literal["refuse"] | float = "refuse"
    range: tuple[float, float] | None = None
    gap: Gap | None = None

    def __post_init__(self) -> None:
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ConfigError("input.channels: at least one, each once")
        if self.rate is not None:
            check_quantity("input.rate", parse_rate, self.rate)
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ConfigError("input.range: the first number must be below the second")


class Window(Table, frozen=True):
    """``[window]``: how many rows make a window, and after how many the next one is full (default: ``size``)."""

    size: int
    hop: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.size <= 1_000_000:  # noqa: PLR2004  a bound, used here only
            raise ConfigError("window.size: between 1 and 1,000,000 rows")
        if self.hop is not None and not 0 < self.hop <= self.size:
            raise ConfigError("window.hop: between 1 and window.size rows")

    @property
    def step(self) -> int:
        """Rows from one window to the next."""
        return self.hop or self.size


class Feature(Table, frozen=True):
    """A feature with its parameters: ``ddof`` for std, ``bias`` for kurtosis."""

    name: str
    ddof: int = 0
    bias: bool = True

    def __post_init__(self) -> None:
        if self.name not in FEATURE_NAMES:
            raise ConfigError(f"features.use: unknown feature {self.name!r}", hint=f"known: {', '.join(FEATURE_NAMES)}")
        if self.ddof < 0:
            raise ConfigError("features.use: ddof is not below 0")
        if self.ddof and self.name != "std":
            raise ConfigError(f"features.use: {self.name} takes no ddof")
        if not self.bias and self.name != "kurtosis":
            raise ConfigError(f"features.use: {self.name} takes no bias")


class Features(Table, frozen=True):
    """``[features]``: values that take the window's place, by feature and then by channel."""

    use: tuple[str | Feature, ...]

    def __post_init__(self) -> None:
        if not self.all:
            raise ConfigError("features.use: at least one feature")

    @property
    def all(self) -> tuple[Feature, ...]:
        """The features, those given by name alone with their defaults."""
        return tuple(Feature(name=one) if isinstance(one, str) else one for one in self.use)


class Normalise(Table, frozen=True):
    """``[normalise]``: zscore ``(x - mean) / std`` or minmax ``(x - min) / (max - min)``.

    Each parameter is one number, or one for each value that goes in: features in their order, or channels.
    """

    method: Literal["none", "zscore", "minmax"] = "none"
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    min: float | tuple[float, ...] | None = None
    max: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        wanted = {"none": (), "zscore": ("mean", "std"), "minmax": ("min", "max")}[self.method]
        for name in ("mean", "std", "min", "max"):
            if (getattr(self, name) is not None) != (name in wanted):
                raise ConfigError(
                    f"normalise.{name}: {'wanted' if name in wanted else 'not known'} with method {self.method!r}"
                )


class Output(Table, frozen=True):
    """``[output]``: what comes out of the model."""

    kind: Literal["classifier", "regressor"]
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    labels: tuple[str, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        if (self.kind == "classifier") != bool(self.labels):
            raise ConfigError(
                f"output.labels: a {self.kind} has {'at least one' if self.kind == 'classifier' else 'none'}"
            )
        if len(self.labels) > MOST_LABELS or len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"output.labels: at most {MOST_LABELS}, each once")
        for label in self.labels:
            if not 0 < len(label.encode()) <= LONGEST_LABEL:
                raise ConfigError(f"output.labels: {label!r} is not between 1 and {LONGEST_LABEL} bytes long in UTF-8")


class Needed(Table, frozen=True):
    """``decide.needed``: at least ``n`` of the last ``of`` windows."""

    n: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.n <= self.of <= 1000:  # noqa: PLR2004  a bound, used here only
            raise ConfigError("decide.needed: n between 1 and of, of at most 1000")


class Decide(Table, frozen=True):
    """``[decide]``: ``watch`` holds from enough windows at or above ``enter`` until enough of them below ``leave``."""

    watch: str
    enter: float = 0.5
    leave: float | None = None
    needed: Needed = Needed()


class Publish(Table, frozen=True):
    """``[publish]``: every window's result, or changes of the label with a sign of life at least every so often."""

    when: Literal["window", "change"] = "window"
    at_least_every: str | None = None

    def __post_init__(self) -> None:
        if self.at_least_every is not None:
            check_quantity("publish.at_least_every", parse_duration, self.at_least_every)


class HomeAssistant(Table, frozen=True):
    """``[home_assistant]``: how a hub shows the model."""

    name: str
    device_class: str | None = None


class Chain(Table, frozen=True):
    """The whole signal chain.

    :ivar tunable: what a site may set, and how far: "decide.enter" and "decide.leave".
    """

    input: Input
    window: Window
    output: Output
    features: Features | None = None
    normalise: Normalise = Normalise()
    decide: Decide | None = None
    publish: Publish = Publish()
    tunable: dict[str, tuple[float, float]] = {}
    home_assistant: HomeAssistant | None = None

    def __post_init__(self) -> None:
        if self.decide is not None and self.decide.watch not in self.output.labels:
            raise ConfigError(f"decide.watch: {self.decide.watch!r} is none of output.labels")
        if self.output.kind == "regressor" and self.publish != Publish():
            raise ConfigError("publish: a regressor publishes every window")
        for name, (low, high) in self.tunable.items():
            if name not in TUNABLE or self.decide is None:
                raise ConfigError(
                    f"tunable: {name!r} cannot be tuned", hint=f"known, with [decide]: {', '.join(TUNABLE)}"
                )
            if not low <= high:
                raise ConfigError(f"tunable: {name!r}: the first bound must not be above the second")
        if self.decide is not None:
            self._check_decide(self.decide)

    def _check_decide(self, decide: Decide) -> None:
        if len(self.output.labels) < 2:  # noqa: PLR2004  something must hold while `watch` does not
            raise ConfigError("decide: needs two labels or more")
        enter = min(decide.enter, *self.tunable.get("decide.enter", (decide.enter,)))
        leave = max(self.tunable.get("decide.leave", ()), default=enter)
        if decide.leave is not None:
            leave = max(leave, decide.leave)
        if leave > enter:
            raise ConfigError(
                f"decide.leave: {leave} is above decide.enter, {enter}", hint="[tunable] bounds count, too"
            )


TUNABLE = ("decide.enter", "decide.leave")
