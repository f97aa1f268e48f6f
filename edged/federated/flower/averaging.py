"""The averaging of updates: Flower's own strategies, and its central differential privacy around them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from flwr.common import FitRes, NDArrays, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedProx,
    FedTrimmedAvg,
    Strategy,
)

from edged.base.errors import ConfigError
from edged.federated.privacy import noisy

Results = list[tuple[ClientProxy, FitRes]]
Mean = tuple[Parameters | None, dict[str, Any]]
Name = Literal["fedavg", "fedprox", "fedadam", "trimmed"]


class Averaging(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The averaging that a training asks for.

    :ivar trim: share of the boards that ``trimmed`` leaves out at each end, weight by weight.
    :ivar eta: FedAdam's step, and ``tau`` what keeps it from dividing by zero: also its largest relative step.
    :ivar proximal: FedProx's mu.
    :ivar noise: of central differential privacy, as a multiple of ``clip``; 0: none.
    :ivar clip: norm that each update is clipped to before it is averaged; with ``adaptive``, what it begins with.
    :ivar adaptive: move ``clip`` towards the median of the updates' norms (Andrew et al., 2021).
    :raises ConfigError: parts do not go together.
    """

    strategy: Name = "fedavg"
    trim: float = 0.2
    eta: float = 0.1
    tau: float = 0.01
    proximal: float = 0.01
    noise: float = 0.0
    clip: float | None = None
    adaptive: bool = False
    masked: bool = False

    def __post_init__(self) -> None:
        if self.noise and self.clip is None:
            raise ConfigError("noise: wants a clip, which it is measured by", hint="--central-clip")
        if self.noise and self.strategy not in {"fedavg", "fedprox"}:
            raise ConfigError(
                f"central noise does not go with {self.strategy}: it is measured for a plain mean",
                hint="fedavg or fedprox",
            )
        if self.masked and self.strategy == "trimmed":
            raise ConfigError(
                "a trimmed mean needs each update by itself, and masking hides them", hint="one or the other"
            )
        if self.masked and self.adaptive:
            raise ConfigError("adaptive clipping needs each update's norm, and masking hides it", hint="a fixed clip")
        if self.adaptive and not self.noise:
            raise ConfigError("adaptive: is of central differential privacy, which wants noise")
        if not 0 <= self.trim < 0.5:  # noqa: PLR2004  both halves
            raise ConfigError("trim: from 0 to below 0.5")
        if not (self.eta > 0 and self.tau > 0 and self.proximal >= 0 and self.noise >= 0):
            raise ConfigError("eta and tau are above 0; proximal and noise are not below")

    @property
    def label(self) -> str:
        """The strategy's name for people."""
        names = {"fedavg": "FedAvg", "fedprox": "FedProx", "fedadam": "FedAdam", "trimmed": "FedTrimmedAvg"}
        clipping = ", adaptive clipping" if self.adaptive else ", fixed clipping" if self.noise else ""
        return names[self.strategy] + clipping


def choose(how: Averaging, initial: NDArrays, boards: int) -> Strategy:
    """Return Flower's strategy.

    :param initial: the weights that the training begins with.
    :param boards: that are expected.
    """
    strategy = _plain(how, ndarrays_to_parameters(initial), boards)
    if not how.noise or how.clip is None:
        return strategy
    if how.adaptive:
        # who was clipped is counted with noise as well: enough of it that the rest need not grow by more than a sixth
        counting = max(boards / 20, how.noise)
        return _Adaptive(strategy, how.noise, boards, initial_clipping_norm=how.clip, clipped_count_stddev=counting)
    return _Fixed(strategy, how.noise, how.clip, boards)


def _plain(how: Averaging, initial: Parameters, boards: int) -> Strategy:
    least = dict.fromkeys(("min_fit_clients", "min_evaluate_clients", "min_available_clients"), boards)
    common: dict[str, Any] = {**least, "initial_parameters": initial}
    if how.strategy == "fedadam":
        return FedAdam(**common, eta=how.eta, tau=how.tau, fit_metrics_aggregation_fn=_no_metrics)
    if how.strategy == "fedprox":
        return FedProx(**common, proximal_mu=how.proximal, fit_metrics_aggregation_fn=_no_metrics)
    if how.strategy == "trimmed":
        return FedTrimmedAvg(**common, beta=how.trim, fit_metrics_aggregation_fn=_no_metrics)
    return FedAvg(**common, fit_metrics_aggregation_fn=_no_metrics)


def _no_metrics(_: object) -> dict[str, bool]:
    """Average no metrics: boards send none."""
    return {}


class _Fixed(DifferentialPrivacyServerSideFixedClipping):  # type: ignore[misc]
    """Flower's, with noise for the boards that answered: it counts those that were asked, whose mean would need less.

    Its noise comes of numpy's generator of 19,937 known bits; this one's from the system.
    """

    noise_multiplier: float
    clipping_norm: float

    def aggregate_fit(self, server_round: int, results: Results, failures: list[Any]) -> Mean:
        """Clip, average, and add noise."""
        multiplier, self.noise_multiplier = self.noise_multiplier, 0.0
        self.num_sampled_clients = len(results)
        try:
            mean, metrics = super().aggregate_fit(server_round, results, failures)
        finally:
            self.noise_multiplier = multiplier
        return _with_noise(mean, multiplier * self.clipping_norm / len(results)), metrics


class _Adaptive(DifferentialPrivacyServerSideAdaptiveClipping):  # type: ignore[misc]
    """Flower's, with noise for the norm that updates were clipped to: it takes the next round's, which may be less."""

    noise_multiplier: float
    clipping_norm: float

    def aggregate_fit(self, server_round: int, results: Results, failures: list[Any]) -> Mean:
        """Clip, average, and add noise."""
        multiplier, self.noise_multiplier = self.noise_multiplier, 0.0
        clipped_to = self.clipping_norm
        self.num_sampled_clients = len(results)
        try:
            mean, metrics = super().aggregate_fit(server_round, results, failures)
        finally:
            self.noise_multiplier = multiplier
        return _with_noise(mean, multiplier * clipped_to / len(results)), metrics


def _with_noise(mean: Parameters | None, deviation: float) -> Parameters | None:
    if mean is None:
        return None
    return ndarrays_to_parameters(
        noisy([np.asarray(one, np.float32) for one in parameters_to_ndarrays(mean)], deviation)
    )
