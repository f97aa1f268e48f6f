"""What a board has given away of itself: steps of local DP-SGD on each model, durably, against its owner's limit."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from edged.base.errors import FormatError, NotAllowedError, naming
from edged.base.files import PRIVATE_FILE, make_private_directory, read_bounded, write_atomically
from edged.config.federated import Privacy
from edged.federated.fit import Fitted
from edged.federated.plan import Plan
from edged.federated.privacy import Phase, Spent, spent
from edged.formats.cose import cbor

_LIMIT = 1024 * 1024
_RATES = 1000
"""Sampling rates are rounded up to one of so many, so that a growing store does not make each round a phase."""


class Budget:
    """Counts steps by model, and refuses a round that would go beyond what the owner allows.

    :param path: the file that holds the counts.
    """

    def __init__(self, path: Path, privacy: Privacy) -> None:
        self._path = path
        self._privacy = privacy
        self._phases: dict[str, list[Phase]] = {}
        if path.exists():
            with naming(path, "without it, what was given away before is forgotten"):
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

    def spend(self, model: str, plan: Plan, fitted: Fitted) -> None:
        """Count what a round came to, durably; without noise there is no end to it, and nothing is counted."""
        if not plan.noise or not fitted.steps:
            return
        phase = _phase(plan.noise, fitted.sampling, fitted.steps)
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
