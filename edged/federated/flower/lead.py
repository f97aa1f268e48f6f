"""Leads one training from beginning to end: a run at the SuperLink, its rounds, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord, Context, RecordDict
from flwr.compat.common import recorddict_compat as compat
from flwr.server.client_manager import ClientManager
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.server.workflow.default_workflows import default_fit_workflow
from flwr.serverapp.grid import Grid

from edged.base.errors import BrokerError, KeystoreError, MissingFileError
from edged.base.files import read_private
from edged.base.lock import Lock
from edged.base.nothing import nothing
from edged.federated.aggregator import Aggregator
from edged.federated.flower import hush
from edged.federated.flower.averaging import Averaging, choose
from edged.federated.flower.grid import Connected, open_run
from edged.federated.flower.masked_round import MaskedRound
from edged.federated.flower.strategy import GuardedStrategy, HeldOut, Rules
from edged.federated.flower.superlink import Control
from edged.federated.order import Plan
from edged.federated.privacy import Spent, epsilon
from edged.federated.report import RoundReport
from edged.federated.weights import Weights
from edged.formats.cose.pem import public_pem
from edged.formats.package.manifest import Training


@dataclass(frozen=True)
class Settings:
    """The length of a training, and its limits.

    :ivar patience: seconds to wait for boards: to connect, and to answer, in each stage of a round.
    :ivar largest: change of a weight that a masked round can hold.
    """

    rounds: int
    patience: float
    largest: float = 8.0


def train(
    grid: Grid,
    boards: ClientManager,
    guard: GuardedStrategy,
    rules: Rules,
    settings: Settings,
    told: Callable[[RoundReport], None] = nothing,
) -> list[RoundReport]:
    """Train, and return a report a round; ``guard.weights`` are what came of it.

    :param told: is called with the report of each round.
    :raises BrokerError: too few boards are connected.
    """
    context = _context(guard, boards)
    config = context.state.config_records[MAIN_CONFIGS_RECORD]
    silent: dict[int, str] = getattr(grid, "silent", {})
    workflow = MaskedRound(guard, settings.largest, settings.patience) if rules.masked else default_fit_workflow
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


def _context(guard: GuardedStrategy, boards: ClientManager) -> LegacyContext:
    """Return what Flower's workflows keep their state in."""
    context = LegacyContext(Context(0, 0, {}, RecordDict(), {}), strategy=guard, client_manager=boards)
    initial = guard.initialize_parameters(boards)
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(initial, keep_input=True)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 0})
    return context


_PATIENCE = 30.0
_POLL = 0.2
_LIMIT = 1024


@dataclass(frozen=True)
class TrainingRequest:
    """The request for one training.

    :ivar least: updates that a round must have.
    :ivar bound: L2 norm that no board's change may exceed.
    """

    model: str
    plan: Plan
    averaging: Averaging
    settings: Settings
    least: int
    bound: float | None = None
    tolerance: float = 0.02
    delta: float = 1e-5


@dataclass(frozen=True)
class TrainingOutcome:
    """The result of a training.

    :ivar run: its number at the aggregator.
    :ivar weights: the weights to publish: those with the best held-out score, or the last that were kept.
    :ivar first: held-out score that it began with; minus infinity without one.
    :ivar training: the record to publish them with; None where no round was kept.
    :ivar spent: what central noise promises to each board; None without it.
    """

    run: int
    weights: Weights
    reports: list[RoundReport]
    first: float
    training: Training | None
    spent: Spent | None = None


def lead(
    aggregator: Aggregator,
    wanted: TrainingRequest,
    initial: Weights,
    held_out: HeldOut | None = None,
    told: Callable[[RoundReport], None] = nothing,
) -> TrainingOutcome:
    """Train with the boards that are allowed and connected.

    :param initial: the weights to begin with.
    :raises StateLockedError: another training is led from here.
    :raises EdgedError: why it could not begin, or did not come to its end.
    """
    with closing(Lock(aggregator.directory, "training.lock")):
        return _lead(aggregator, wanted, initial, held_out, told)


def _lead(
    aggregator: Aggregator,
    wanted: TrainingRequest,
    initial: Weights,
    held_out: HeldOut | None,
    told: Callable[[RoundReport], None],
) -> TrainingOutcome:
    hush()
    keystore = aggregator.keystore()
    control = Control(aggregator.address, aggregator.tls.ca)
    try:
        secret = _secret(aggregator)
        numbers = {pem: number for pem, (number, _) in control.nodes().items()}
        allowed = aggregator.boards().values()
        boards = {numbers[pem]: one for one in allowed if (pem := public_pem(one.node)) in numbers}
        run = aggregator.begin_run()
        control.start_run()
        token = _token(control, secret)
    finally:
        control.close()
    rules = Rules(
        run=run,
        model=wanted.model,
        plan=wanted.plan,
        masked=wanted.averaging.masked,
        least=wanted.least,
        bound=wanted.bound,
        tolerance=wanted.tolerance,
    )
    strategy = choose(wanted.averaging, list(initial), wanted.least)
    guard = GuardedStrategy(strategy, rules, initial, boards, keystore.signer, keystore.agreement, held_out)
    ca = aggregator.tls.ca.read_bytes()
    with open_run(aggregator.address, ca, token, wanted.settings.patience) as (grid, flower_run):
        connected = Connected(grid, flower_run.run_id)
        train(grid, connected, guard, rules, wanted.settings, told)
    spent = None
    if wanted.averaging.noise:  # every board is in every round: each round is one step at a rate of 1
        spent = epsilon(wanted.averaging.noise, 1.0, len(guard.reports), wanted.delta, "board")
    training = _record(aggregator, run, wanted, guard, spent) if guard.rounds else None
    return TrainingOutcome(run, guard.published, guard.reports, guard.first, training, spent)


def _secret(aggregator: Aggregator) -> bytes:
    try:
        return read_private(aggregator.secret_path, _LIMIT)
    except MissingFileError as error:
        raise KeystoreError(error.message, hint="does `edged aggregator serve` run?") from error


def _token(control: Control, secret: bytes) -> str:
    """Return the token by which the SuperLink knows that this process leads the run."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if token := control.acquire(secret):
            return token
        time.sleep(_POLL)
    raise BrokerError(f"the SuperLink at {control.address} started no run", hint="its own log says why")


def _record(
    aggregator: Aggregator, run: int, wanted: TrainingRequest, guard: GuardedStrategy, spent: Spent | None
) -> Training:
    """Return the training record, which the publisher signs with the weights."""
    averaging, plan = wanted.averaging, wanted.plan
    local = plan.noise > 0 and not averaging.noise
    return Training(
        run=run,
        aggregator=aggregator.record().sign.thumbprint,
        rounds=guard.rounds,
        boards=guard.boards,
        strategy=averaging.strategy,
        masked=averaging.masked,
        score=guard.best if guard.best >= 0 else None,
        clip=plan.clip if local else averaging.clip,
        noise=plan.noise if local else averaging.noise,
        local=local,
        epsilon=None if spent is None else spent.epsilon,
        delta=None if spent is None else wanted.delta,
    )
