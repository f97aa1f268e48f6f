"""The rules that an update must keep before one of Flower's strategies averages it.

Flower averages whatever a connected node sends. Here an update counts only if a board that is allowed signed it for
this round, if it has the model's shapes and finite numbers, and no further than a bound; and a round only if the model
is not worse for it on the aggregator's own held-out examples.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.common import FitIns, FitRes, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import Strategy

from edged.base.errors import EdgedError, FormatError, NotAllowedError, ReplayError
from edged.federated.flower.protocol import ORDER, UPDATE, WEIGHTS
from edged.federated.nodes import NodeRecord
from edged.federated.order import Order, Plan
from edged.federated.report import RoundReport
from edged.federated.update import Round, open_update
from edged.federated.weights import Weights, add, check, difference, digest, encode, limited, norm
from edged.formats.cose.keys import Agreement, Signer

HeldOut = Callable[[Weights], float]
"""Scores weights on examples of the aggregator's own: 0 to 1, more is better."""


@dataclass(frozen=True)
class Rules:
    """The rules of one training.

    :ivar run: its number, above that of every earlier one.
    :ivar least: updates that a round must have.
    :ivar bound: L2 norm that no board's change may exceed; what does is cut down to it.
    :ivar tolerance: how far below the best score so far a round may fall and still count.
    """

    run: int
    model: str
    plan: Plan
    masked: bool
    least: int
    bound: float | None = None
    tolerance: float = 0.02


@dataclass
class _Tally:
    """The events of the present round."""

    clipped: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    boards: list[str] = field(default_factory=list)


class GuardedStrategy(Strategy):  # type: ignore[misc]
    """A strategy around one of Flower's.

    :param boards: records of the boards that are allowed, by Flower's number.
    :param signer: signs orders.
    :param agreement: opens updates.
    :param held_out: None where nothing can be said of how good weights are.
    :ivar weights: the last that were kept: what the next round begins with.
    :ivar best: the best score of any that were kept.
    :ivar published: the weights that had it; without scores, the last that were kept.
    :ivar rounds: how many led to those.
    :ivar order: of the present round, and ``ordered`` its signed bytes.
    :ivar reports: a line a round.
    :ivar boards: how many took part in any of those.
    """

    def __init__(
        self,
        inner: Strategy,
        rules: Rules,
        initial: Weights,
        boards: Mapping[int, NodeRecord],
        signer: Signer,
        agreement: Agreement,
        held_out: HeldOut | None,
    ) -> None:
        self.weights = initial
        self.best = -math.inf if held_out is None else held_out(initial)
        self.first = self.best
        self.published, self.rounds = initial, 0
        self.order: Order | None = None
        self.ordered = b""
        self.reports: list[RoundReport] = []
        self.boards = 0
        self._took_part: set[str] = set()
        self._inner = inner
        self._rules = rules
        self._shapes = [one.shape for one in initial]
        self._boards = boards
        self._signer = signer
        self._agreement = agreement
        self._held_out = held_out
        self._began = time.monotonic()
        self._kept = 0

    def name_of(self, node: int) -> str:
        """Return what people call a node."""
        record = self._boards.get(node)
        return f"node {node}" if record is None else record.device.id

    # --- what Flower calls ------------------------------------------------------------------------

    def initialize_parameters(self, client_manager: Any) -> Parameters:  # noqa: ANN401, ARG002  Flower's
        """Return what the training begins with."""
        return ndarrays_to_parameters(self.weights)

    def configure_fit(
        self,
        server_round: int,
        parameters: Parameters,
        client_manager: Any,  # noqa: ANN401  Flower's
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Return the order for every board that is allowed."""
        self._began = time.monotonic()
        rules = self._rules
        del parameters  # what comes round from Flower is what was kept
        asked = self._inner.configure_fit(server_round, ndarrays_to_parameters(self.weights), client_manager)
        allowed = [proxy for proxy, _ in asked if proxy.node_id in self._boards]
        if rules.masked and len(allowed) < rules.least:
            return []
        devices = [self._boards[proxy.node_id].device for proxy in allowed]
        boards = {one.id: one.sign.thumbprint for one in devices} if rules.masked else {}
        order = Order(rules.run, server_round, rules.model, digest(self.weights), rules.plan, rules.masked, boards)
        self.ordered = order.encode(self._signer)
        self.order = Order.open(self.ordered, self._signer.public)
        instructions = FitIns(Parameters([encode(self.weights)], WEIGHTS), {ORDER: self.ordered})
        return [(proxy, instructions) for proxy in allowed]

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[Any],
    ) -> tuple[Parameters | None, dict[str, Any]]:
        """Average what may count, and keep it if it is not worse."""
        del failures  # who sent nothing is known to the grid, by name
        tally = _Tally()
        counted: list[tuple[ClientProxy, FitRes]] = []
        for proxy, result in results:
            name = self.name_of(proxy.node_id)
            try:
                if name in tally.boards:
                    raise ReplayError(f"a second update of {name} in one round")
                weights = self._open(server_round, proxy.node_id, result)
            except EdgedError as error:
                tally.refused[name] = type(error).__name__
                continue
            tally.boards.append(name)
            result.parameters = ndarrays_to_parameters(self._bounded(name, weights, tally))
            result.num_examples = 1  # all weigh the same, whatever they say
            counted.append((proxy, result))
        return self._finish(server_round, tally, counted)

    def configure_evaluate(self, server_round: int, parameters: Parameters, client_manager: Any) -> list[Any]:  # noqa: ANN401, ARG002  Flower's
        """Boards are not asked how good weights are: their answers would tell of their data."""
        return []

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> tuple[None, dict[str, Any]]:  # noqa: ANN401, ARG002  Flower's
        """Nothing to add up."""
        return None, {}

    def evaluate(self, server_round: int, parameters: Parameters) -> None:
        """Weights are scored where they are averaged."""

    # --- the rules --------------------------------------------------------------------------------

    def _open(self, number: int, node: int, result: FitRes) -> Weights:
        """Return the weights that one result stands for.

        :raises EdgedError: why it does not count.
        """
        record = self._boards.get(node)
        if record is None:
            raise NotAllowedError(f"node {node} is no board that is allowed")
        if self._rules.masked:
            # every result holds the mean change of all: SecAgg+ has unmasked no other number
            moved = [np.asarray(one, np.float32) for one in parameters_to_ndarrays(result.parameters)]
            check(moved, self._shapes)
            return add(self.weights, moved)
        if result.parameters.tensor_type != UPDATE or len(result.parameters.tensors) != 1:
            raise FormatError("the result is no sealed update")
        about = Round(self._rules.run, number, record.device.id)
        return open_update(result.parameters.tensors[0], about, record.device.sign, self._agreement, self._shapes)

    def _bounded(self, name: str, weights: Weights, tally: _Tally) -> Weights:
        """Return weights no further from the present ones than the bound.

        Of a masked update nobody but its board knows the norm; but the mean of updates within the bound lies within it.
        """
        bound = self._rules.bound
        moved = difference(weights, self.weights)
        if bound is None or norm(moved) <= bound:
            return weights
        tally.clipped.append("the mean" if self._rules.masked else name)
        return add(self.weights, limited(moved, bound))

    def _finish(
        self, number: int, tally: _Tally, counted: list[tuple[ClientProxy, FitRes]]
    ) -> tuple[Parameters | None, dict[str, Any]]:
        before = copy.deepcopy(self._inner)  # momenta of a round that is not kept are not kept either
        why, weights, score = "", None, None
        if len(counted) < self._rules.least:
            why = f"{len(counted)} updates, and {self._rules.least} must be there"
        else:
            mean, _ = self._inner.aggregate_fit(number, counted, [])
            weights = None if mean is None else [np.asarray(one, np.float32) for one in parameters_to_ndarrays(mean)]
            score, why = self._judge(weights)
        kept = weights is not None and not why
        if kept and weights is not None:
            self._keep(weights, score, tally)
        else:
            self._inner = before
        self.reports.append(
            RoundReport(
                number,
                tuple(tally.boards),
                tally.refused,
                {},
                tuple(dict.fromkeys(tally.clipped)),
                score,
                kept,
                why,
                time.monotonic() - self._began,
            )
        )
        return (ndarrays_to_parameters(self.weights) if kept else None), {}

    def _keep(self, weights: Weights, score: float | None, tally: _Tally) -> None:
        self.weights = weights
        self._took_part.update(tally.boards)
        self._kept += 1
        if score is None or score >= self.best:
            self.best = self.best if score is None else score
            self.published, self.rounds, self.boards = weights, self._kept, len(self._took_part)

    def _judge(self, weights: Weights | None) -> tuple[float | None, str]:
        """Return the score of new weights, and what speaks against keeping them."""
        if weights is None:
            return None, "the strategy gave no mean"
        try:
            check(weights, self._shapes)
        except FormatError as error:
            return None, error.message
        if self._held_out is None:
            return None, ""
        score = self._held_out(weights)
        if not score >= self.best - self._rules.tolerance:
            return score, f"the held-out score fell from {self.best:.2%}"
        return score, ""
