"""What one round asks of a board, bounded: a board takes it from an aggregator."""

from __future__ import annotations

import math

import msgspec

from edged.base.errors import ConfigError

_MOST_EPOCHS = 1000
_MOST_BATCH = 65_536
_MOST_RATE = 100.0
_MOST_PROXIMAL = 1e4
_LEAST_NORM, _MOST_NORM = 1e-6, 1e9
_MOST_NOISE = 1e3


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a board trains on its own examples in one round.

    :ivar epochs: how often it goes over them.
    :ivar batch: examples of one step; with noise, how many a step takes on average.
    :ivar rate: the step's size, times the mean gradient.
    :ivar proximal: FedProx's mu, which pulls towards the weights that the round began with; 0.0 is FedAvg.
    :ivar clip: L2 norm that no example's gradient exceeds; without it, gradients are as they are.
    :ivar noise: of local differential privacy: the standard deviation is ``noise * clip``, added to each step's sum.
    :ivar bound: L2 norm that the whole update does not exceed.
    :raises ConfigError: a value lies out of bounds, or noise is wanted without a clip.
    """

    epochs: int
    batch: int
    rate: float
    proximal: float = 0.0
    clip: float | None = None
    noise: float = 0.0
    bound: float | None = None

    def __post_init__(self) -> None:
        _check("epochs", self.epochs, _MOST_EPOCHS, least=1)
        _check("batch", self.batch, _MOST_BATCH, least=1)
        _check("rate", self.rate, _MOST_RATE, above=True)
        _check("proximal", self.proximal, _MOST_PROXIMAL)
        _check("noise", self.noise, _MOST_NOISE)
        for name, value in (("clip", self.clip), ("bound", self.bound)):
            if value is not None:
                _check(name, value, _MOST_NORM, least=_LEAST_NORM)
        if self.noise and self.clip is None:
            raise ConfigError("plan.noise: wants plan.clip, which it is measured by")


def _check(name: str, value: float, most: float, *, least: float = 0.0, above: bool = False) -> None:
    if not (math.isfinite(value) and least <= value <= most) or (above and value == least):
        raise ConfigError(f"plan.{name}: {'above' if above else 'from'} {least:g} up to {most:g}, not {value:g}")
