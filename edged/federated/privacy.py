"""Differential privacy: noise, the epsilon that noise promises, and the budget of each board.

Every bit of noise and of a sample comes from the system's generator, none from a plan or a seed. Whoever could foresee
the noise, or who is in a sample, would subtract the one and know the other; and a few thousand weights a step are few
enough to draw for.

Each step takes every example with the same chance and adds Gaussian noise to a sum in which none counts for more than
the clip: the sampled Gaussian mechanism. Its Renyi divergence at whole orders has a closed form (Mironov, Talwar and
Zhang, "Renyi differential privacy of the sampled Gaussian mechanism", 2019, section 3.3), adds up over steps, and
becomes an epsilon at a given delta (Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy",
2020, proposition 12).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from edged.base.errors import ConfigError, FormatError, NotAllowedError, error_context
from edged.base.files import PRIVATE_FILE, make_private_directory, read_bounded, write_atomically
from edged.config.federated import Privacy
from edged.federated.order import Plan
from edged.federated.weights import Shape, Weights
from edged.formats.cose import cbor

_LIMIT = 1024 * 1024
_RATES = 1000
"""Sampling rates are rounded up to one of so many, so that a growing store does not make each round a phase."""

ORDERS = (*range(2, 257), 512, 1024)
"""Of the divergence. The best of them counts; those left out make epsilon larger than it need be, never smaller."""

Unit: TypeAlias = Literal["example", "board"]
_HOLDS: Mapping[Unit, str] = {"example": "stores", "board": "fleets"}

_SUMMED = 4
"""Normal numbers that make one: which floats a single one can be would tell what it was added to (Mironov, "On
significance of the least significant bits for differential privacy", 2012; Holohan and Braghin, "Secure random sampling
in differential privacy", 2021)."""


def uniform(count: int) -> npt.NDArray[np.float64]:
    """Return numbers from (0, 1], each a multiple of 2^-53."""
    drawn = np.frombuffer(os.urandom(8 * count), "<u8") >> np.uint64(11)
    numbers: npt.NDArray[np.float64] = (drawn.astype(np.float64) + 1.0) * 2.0**-53
    return numbers


def normal(count: int) -> npt.NDArray[np.float64]:
    """Return independent numbers of the standard normal distribution (Box and Muller, 1958; four summed for each)."""
    radius = np.sqrt(-2.0 * np.log(uniform(_SUMMED * count)))
    angle = 2.0 * np.pi * uniform(_SUMMED * count)
    normals: npt.NDArray[np.float64] = (radius * np.cos(angle)).reshape(_SUMMED, count).sum(axis=0) / np.sqrt(_SUMMED)
    return normals


def noisy(weights: Weights, deviation: float) -> Weights:
    """Return them with noise of this standard deviation in every coordinate, independent of all other noise."""
    return [(each + deviation * _shaped(each.shape)).astype(np.float32) for each in weights]


def _shaped(shape: Shape) -> npt.NDArray[np.float64]:
    return normal(int(np.prod(shape, dtype=np.int64))).reshape(shape)


def sample(examples: int, chance: float) -> npt.NDArray[np.intp]:
    """Return which of so many examples are in: each with this chance, independently (Poisson sampling)."""
    return np.flatnonzero(uniform(examples) <= chance)


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
    """The promise of a number of steps: an upper bound.

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


class Budget:
    """Counts steps by model, and refuses a round that would go beyond what the owner allows.

    :param path: the file that holds the counts.
    """

    def __init__(self, path: Path, privacy: Privacy) -> None:
        self._path = path
        self._privacy = privacy
        self._phases: dict[str, list[Phase]] = {}
        if path.exists():
            with error_context(path, "without it, what was given away before is forgotten"):
                self._phases = _parse(cbor.decode_canonical(read_bounded(path, _LIMIT), cbor.Limits(_LIMIT, 8, 65_536)))

    def check(self, model: str, plan: Plan, examples: int) -> None:
        """Refuse a round that would spend more than ``federated.privacy.epsilon``.

        :param examples: that this board has for it.
        :raises NotAllowedError: it would.
        """
        allowed = self._privacy.epsilon
        if allowed is None or not examples:
            return
        size = min(plan.batch, examples)
        phase = _phase(plan.noise, size / examples, plan.epochs * math.ceil(examples / size))
        needed = spent(_joined(self._phases.get(model, []), phase), self._privacy.delta).epsilon
        if needed > allowed:
            raise NotAllowedError(
                f"{model}: the round would bring epsilon to {needed:.3g}, and federated.privacy.epsilon is {allowed:g}",
                hint="this board has given what its owner allows; more noise, or fewer steps a round, make it last",
            )

    def spend(self, model: str, noise: float, sampling: float, steps: int) -> None:
        """Count the steps of a round, durably; without noise epsilon has no end, and nothing is counted.

        :param noise: standard deviation of the noise in each step, as a multiple of the clip.
        :param sampling: the chance of each example to be in a step.
        """
        if not noise or not steps:
            return
        phase = _phase(noise, sampling, steps)
        self._phases[model] = _joined(self._phases.get(model, []), phase)
        make_private_directory(self._path.parent)
        counted = {name: [list(one) for one in phases] for name, phases in self._phases.items()}
        write_atomically(self._path, [cbor.encode(counted)], mode=PRIVATE_FILE, replace=True)

    def spent(self) -> dict[str, Spent]:
        """Return what was spent on each model."""
        return {model: spent(phases, self._privacy.delta) for model, phases in self._phases.items()}


def _phase(noise: float, sampling: float, steps: int) -> Phase:
    return Phase(float(noise), math.ceil(sampling * _RATES) / _RATES, steps)


def _joined(phases: list[Phase], last: Phase) -> list[Phase]:
    """Return phases with one more, added to one that is alike."""
    alike = [one for one in phases if one[:2] == last[:2]]
    others = [one for one in phases if one[:2] != last[:2]]
    return [*others, last._replace(steps=last.steps + sum(one.steps for one in alike))]


def _parse(value: object) -> dict[str, list[Phase]]:
    try:
        found = msgspec.convert(value, dict[str, list[tuple[float, float, int]]])
    except msgspec.ValidationError as error:
        raise FormatError(f"not what a board has spent: {error}") from error
    return {model: [Phase(*one) for one in phases] for model, phases in found.items()}
