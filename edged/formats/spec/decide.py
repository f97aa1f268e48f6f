"""``[decide]`` and ``[publish]``: what answers come to, and which of them are told."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from edged.base.errors import ConfigError
from edged.base.units import check_quantity, parse_duration
from edged.formats.spec.input import Table
from edged.formats.spec.output import check_label

_MOST_WINDOWS = 1000


class Needed(Table, frozen=True):
    """``decide.needed``: at least ``n`` of the last ``of`` windows."""

    n: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.n <= self.of <= _MOST_WINDOWS:
            raise ConfigError(f"decide.needed: n between 1 and of, of at most {_MOST_WINDOWS}")


class Smooth(Table, frozen=True):
    """``decide.smooth``: over the last windows.

    :ivar method: ``mean`` or ``median`` of each score, before anything is decided; ``majority`` of the labels that
        single windows come to (the newest of those that are even).
    :ivar over: how many windows.
    """

    method: Literal["mean", "median", "majority"]
    over: int

    def __post_init__(self) -> None:
        if not 1 < self.over <= _MOST_WINDOWS:
            raise ConfigError(f"decide.smooth.over: between 2 and {_MOST_WINDOWS} windows")


class Decide(Table, frozen=True):
    """``[decide]``: what scores come to. Without it the label with the highest score holds.

    :ivar watch: the label that is watched: it holds from enough windows at or above `enter` until enough of them below
        `leave`; meanwhile the best of the others does, or ``otherwise``. Of an anomaly detector it is always the
        second.
    :ivar enter: default: 0.5. An anomaly detector must state it: its threshold.
    :ivar leave: default: `enter`.
    :ivar needed: how many windows of how many a change takes: into and out of the watched label, or, without `watch`,
        to any other label.
    :ivar smooth: over the last windows.
    :ivar thresholds: label = score that it needs at least; labels that are not named need none.
    :ivar otherwise: what holds when no label reaches its threshold, or while ``watch`` does not; one of the labels, or
        a further one: with ``watch``, a network with one output has a second label so.
    """

    watch: str | None = None
    enter: float | None = None
    leave: float | None = None
    needed: Needed = Needed()
    smooth: Smooth | None = None
    thresholds: dict[str, float] = msgspec.field(default_factory=dict)
    otherwise: str | None = None

    def __post_init__(self) -> None:
        for key, value in (("enter", self.enter), ("leave", self.leave), *self.thresholds.items()):
            if value is not None and not math.isfinite(value):
                raise ConfigError(f"decide: {key}: not a finite number")
        if self.leave is not None and self.leave > self.level:
            raise ConfigError(f"decide.leave: {self.leave} is above decide.enter, {self.level}")
        if self.otherwise is None if self.thresholds else self.otherwise is not None and self.watch is None:
            raise ConfigError("decide.thresholds and decide.otherwise go together")
        if self.otherwise is not None:
            check_label("decide.otherwise", self.otherwise)
        if self.thresholds and self.watch is not None:
            raise ConfigError("decide.watch and decide.thresholds do not go together")

    @property
    def level(self) -> float:
        """``enter``, or its default."""
        return 0.5 if self.enter is None else self.enter


class Publish(Table, frozen=True):
    """``[publish]``: which decisions are told. One that is not releases its reading at once.

    :ivar when: every ``window``, or each ``change`` of the label (of a regressor: of the value, by `by` or more).
    :ivar by: how far a regressor's value must move.
    :ivar at_least_every: a sign of life, with ``change``.
    :ivar at_most_every: the shortest time between two results; a change in between is told after it.
    """

    when: Literal["window", "change"] = "window"
    by: float | None = None
    at_least_every: str | None = None
    at_most_every: str | None = None

    def __post_init__(self) -> None:
        for key in ("at_least_every", "at_most_every"):
            if getattr(self, key) is not None:
                check_quantity(f"publish.{key}", parse_duration, getattr(self, key))
        if self.by is not None and (self.when != "change" or not 0 < self.by < math.inf):
            raise ConfigError("publish.by: a number above 0, with publish.when = 'change'")
