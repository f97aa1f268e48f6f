"""What noise promises: an epsilon, reckoned with the assumptions that it stands on, which are told with it.

Each step takes every example with the same chance and adds Gaussian noise to a sum in which none counts for more than
the clip: the sampled Gaussian mechanism. Its Renyi divergence at whole orders has a closed form (Mironov, Talwar and
Zhang, "Renyi differential privacy of the sampled Gaussian mechanism", 2019, section 3.3), adds up over steps, and
becomes an epsilon at a given delta (Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy",
2020, proposition 12).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from edged.base.errors import ConfigError

ORDERS = (*range(2, 257), 512, 1024)
"""Of the divergence. The best of them counts; those left out make epsilon larger than it need be, never smaller."""


Unit: TypeAlias = Literal["example", "board"]
_HOLDS: Mapping[Unit, str] = {"example": "stores", "board": "fleets"}


class Phase(NamedTuple):
    """Steps that were taken alike.

    :ivar noise_multiplier: the noise's standard deviation over the clip.
    :ivar sampling_rate: the chance of each example to be in a step.
    :ivar steps: how many were taken.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int


class Spent(NamedTuple):
    """What was promised, at most.

    :ivar epsilon: infinite without noise.
    :ivar order: of the divergence that it comes of; 0 where none does.
    :ivar assumptions: what has to be true for it.
    """

    epsilon: float
    order: int
    assumptions: str


def epsilon(noise_multiplier: float, sampling_rate: float, steps: int, delta: float, unit: Unit = "example") -> Spent:
    """Return what so many steps alike have spent.

    :raises ConfigError: a number is out of its bounds.
    """
    return spent([Phase(noise_multiplier, sampling_rate, steps)], delta, unit)


def spent(phases: Iterable[Phase], delta: float, unit: Unit = "example") -> Spent:
    """Return what all of these have spent together, one after another, on the same examples.

    :param delta: the chance that the promise does not hold; well below one over the number of examples, or boards.
    :param unit: what the noise hides: an example on its board, or a whole board.
    :raises ConfigError: a number is out of its bounds.
    """
    taken = [phase for phase in map(_checked, phases) if phase.steps and phase.sampling_rate]
    if not 0 < delta < 1:
        raise ConfigError(f"delta: between 0 and 1, not {delta:g}")
    if not taken:
        return Spent(0.0, 0, _assumptions(delta, taken, unit))
    best, order = min((_converted(_divergence(taken, order), order, delta), order) for order in ORDERS)
    return Spent(best, order if math.isfinite(best) else 0, _assumptions(delta, taken, unit))


def _checked(phase: Phase) -> Phase:
    if not (math.isfinite(phase.noise_multiplier) and phase.noise_multiplier >= 0):
        raise ConfigError(f"noise: at least 0 and finite, not {phase.noise_multiplier:g}")
    if not 0 <= phase.sampling_rate <= 1:
        raise ConfigError(f"sampling: from 0 to 1, not {phase.sampling_rate:g}")
    if phase.steps < 0:
        raise ConfigError(f"steps: at least 0, not {phase.steps}")
    return phase


def _divergence(phases: Iterable[Phase], order: int) -> float:
    return sum(phase.steps * _of_one_step(phase.sampling_rate, phase.noise_multiplier, order) for phase in phases)


def _of_one_step(rate: float, noise: float, order: int) -> float:
    """Return the Renyi divergence of one step: log(A) / (order - 1), A as in the paper's section 3.3."""
    if not noise:
        return math.inf
    if rate == 1:
        return order / (2 * noise * noise)
    terms = [
        math.lgamma(order + 1)
        - math.lgamma(k + 1)
        - math.lgamma(order - k + 1)
        + k * math.log(rate)
        + (order - k) * math.log1p(-rate)
        + (k * k - k) / (2 * noise * noise)
        for k in range(order + 1)
    ]
    largest = max(terms)
    return max(0.0, (largest + math.log(math.fsum(math.exp(term - largest) for term in terms))) / (order - 1))


def _converted(divergence: float, order: int, delta: float) -> float:
    """Return the epsilon that a divergence promises at ``delta``."""
    if delta * delta + math.expm1(-divergence) > 0:  # Bretagnolle and Huber: what can be told at all is below delta
        return 0.0
    return max(0.0, divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1))


def _assumptions(delta: float, phases: Iterable[Phase], unit: Unit) -> str:
    told = "; ".join(
        f"{phase.steps} steps, each {unit} in a step with chance {phase.sampling_rate:.4g},"
        f" noise {phase.noise_multiplier:g} times the clip"
        for phase in phases
    )
    return (
        f"delta {delta:g}; {told or 'no steps'}; two {_HOLDS[unit]} are neighbours where one has a single {unit} more;"
        f" {unit}s are sampled independently (Poisson), and whoever sees the result knows neither samples nor noise;"
        " noise is Gaussian of real numbers, which floats come near to; only the weights are shown: losses and counts"
        " are not covered"
    )
