"""A training: so many rounds, each by Flower's own workflow, plain or masked, until done or until boards run out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord, Context, RecordDict
from flwr.compat.common import recorddict_compat as compat
from flwr.server.client_manager import ClientManager
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.server.workflow.default_workflows import default_fit_workflow
from flwr.serverapp.grid import Grid

from edged.base.errors import BrokerError
from edged.federated.flower.secagg import MaskedRound
from edged.federated.flower.strategy import Guard, Rules
from edged.federated.report import RoundReport


@dataclass(frozen=True)
class Settings:
    """How a training goes about it.

    :ivar patience: seconds to wait for boards: to connect, and to answer, in each stage of a round.
    :ivar largest: change of a weight that a masked round can hold.
    """

    rounds: int
    patience: float
    largest: float = 8.0


def train(
    grid: Grid,
    boards: ClientManager,
    guard: Guard,
    rules: Rules,
    settings: Settings,
    told: Callable[[RoundReport], None] = lambda _: None,
) -> list[RoundReport]:
    """Train, and return a report a round; ``guard.weights`` are what came of it.

    :param told: is told of each round as it ends.
    :raises BrokerError: too few boards are connected.
    """
    context = _context(guard, boards)
    config = context.state.config_records[MAIN_CONFIGS_RECORD]
    silent: dict[int, str] = getattr(grid, "silent", {})
    workflow = MaskedRound(settings.largest, settings.patience) if rules.masked else default_fit_workflow
    for number in range(1, settings.rounds + 1):
        if not boards.wait_for(rules.least, int(settings.patience)):
            raise BrokerError(
                f"round {number}: {boards.num_available()} boards are connected, and {rules.least} must be",
                hint="`edged aggregator status` lists them; `edged federate run` connects a board",
            )
        config[Key.CURRENT_ROUND] = number
        began = time.monotonic()
        silent.clear()
        workflow(grid, context)
        if not guard.reports or guard.reports[-1].number != number:  # a masked round that came to nothing
            why = "too few boards went through all stages of the masked round"
            guard.reports.append(RoundReport(number, why=why, seconds=time.monotonic() - began))
        named = {guard.name_of(node): why for node, why in silent.items()}
        guard.reports[-1] = replace(guard.reports[-1], silent=named)
        told(guard.reports[-1])
    return guard.reports


def _context(guard: Guard, boards: ClientManager) -> LegacyContext:
    """Return what Flower's workflows keep their state in."""
    context = LegacyContext(Context(0, 0, {}, RecordDict(), {}), strategy=guard, client_manager=boards)
    initial = guard.initialize_parameters(boards)
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(initial, keep_input=True)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 0})
    return context
