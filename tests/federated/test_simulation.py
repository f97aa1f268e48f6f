"""A hundred simulated boards, a third of which is away in every round: Flower's simulation, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from flwr.app import Message

from edged.config.federated import FederatedTable
from edged.federated.flower.averaging import Averaging, choose
from edged.federated.flower.lead import Settings, train
from edged.federated.flower.runner import BoardApp
from edged.federated.flower.strategy import GuardedStrategy, Rules
from edged.federated.order import Plan, Rounds
from edged.federated.privacy import Budget
from edged.federated.report import curves, draw
from edged.federated.trainer import Trainer
from edged.federated.work import RoundWorker, TrainingInput
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role
from edged.model.runtime import choose as choose_engine
from support.simulation import Simulation
from support.vibration import PLAN, WEIGHTS, Chain, Examples, accuracy, board, held_out

ROUNDS, WINDOWS, AWAY = 20, 60, 0.3
MODEL = "bearing"
_LOCAL = threading.local()


class House:
    """Boards with keys of their own that do in this process all that a board does."""

    def __init__(self, folder: Path, boards: list[Examples], aggregator: PrivateKey, sealing: PrivateKey) -> None:
        self._boards = boards
        self._apps: list[BoardApp] = []
        self.records: list[Record] = []
        pinned = Record(Role.AGGREGATOR, "fleet", aggregator.public, sealing.public, None, 0)
        table = FederatedTable(aggregator="a:1", record="r", ca="c", models=(MODEL,), secure=False)
        for number in range(len(boards)):
            signer, agreement = PrivateKey.generate(), PrivateKey.generate()
            record = Record(Role.DEVICE, f"press-{number:03d}", signer.public, agreement.public, Aead.A256GCM, 0)
            own = folder / f"{number}"
            rounds, budget = Rounds(own / "rounds"), Budget(own / "budget", table.privacy)
            worker = RoundWorker(table, pinned, record, signer, rounds, budget, self._open(number))
            self.records.append(record)
            self._apps.append(BoardApp(worker))

    def _open(self, number: int):  # noqa: ANN202  what a worker wants
        @contextmanager
        def open_material(_: str) -> Iterator[TrainingInput]:
            if not hasattr(_LOCAL, "trainer"):
                _LOCAL.trainer = Trainer(WEIGHTS, choose_engine())
            yield TrainingInput(_LOCAL.trainer, self._boards[number].x, self._boards[number].y)

        return open_material

    def answer(self, number: int, message: Message) -> Message:
        turn = int(message.metadata.group_id)
        if np.random.default_rng((turn, number)).random() < AWAY:
            raise ConnectionError("this board is away")
        return self._apps[number](message)


def simulate(
    folder: Path,
    boards: list[Examples],
    windows: Examples,
    rounds: int,
    how: Averaging = Averaging(),  # noqa: B008  it cannot be changed
    plan: Plan = PLAN,
) -> tuple[GuardedStrategy, list[float]]:
    """Return the guard after so many rounds, and the seconds of each."""
    trainer = Trainer(WEIGHTS, choose_engine())
    aggregator, sealing = PrivateKey.generate(), PrivateKey.generate()
    house = House(folder, boards, aggregator, sealing)
    rules = Rules(run=1, model=MODEL, plan=plan, masked=False, least=len(boards) // 2, bound=50.0, tolerance=0.05)
    seconds: list[float] = []
    with Simulation(len(boards), house.answer) as simulation:
        named = {node: SimpleNamespace(device=house.records[number]) for node, number in simulation.nodes.items()}
        start = trainer.weights()
        strategy = choose(how, list(start), rules.least)
        guard = GuardedStrategy(
            strategy, rules, start, named, aggregator, sealing, lambda weights: accuracy(trainer, weights, windows)
        )
        began = time.monotonic()

        def told(report: object) -> None:
            nonlocal began
            print(report.line().split(", silent")[0], flush=True)
            seconds.append(time.monotonic() - began)
            began = time.monotonic()

        train(simulation.grid, simulation.boards, guard, rules, Settings(rounds, 30), told)
    return guard, seconds


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_hundred_boards_learn_while_a_third_is_away(tmp_path: Path) -> None:
    chain = Chain()
    boards = [board(chain, number, WINDOWS) for number in range(100)]
    windows = held_out(chain, 20, 8)
    few, few_seconds = simulate(tmp_path / "few", boards[:10], windows, 5)
    many, many_seconds = simulate(tmp_path / "many", boards, windows, ROUNDS)
    scores = [many.first, *(report.score or 0.0 for report in many.reports)]
    named = {"100 boards, 30 % away": scores}
    print(curves(named))
    draw(tmp_path / "simulation.png", named, "100 simulated boards, 30 % away in each round")
    print(f"the picture: {tmp_path / 'simulation.png'}")
    answering = [len(report.boards) for report in many.reports]
    print(f"boards in a round: {min(answering)} to {max(answering)}, {np.mean(answering):.1f} on average")
    print(f"seconds a round: {np.median(few_seconds):.2f} with 10 boards, {np.median(many_seconds):.2f} with 100")
    assert len(scores) == ROUNDS + 1
    assert 55 < np.mean(answering) < 85
    assert all(len(report.boards) + len(report.silent) == 100 for report in many.reports)
    assert scores[-1] > 0.9
    assert scores[-1] > scores[0] + 0.3
    assert few.reports[-1].kept


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "plan"),
    [
        (Averaging(strategy="fedprox"), msgspec.structs.replace(PLAN, proximal=0.05)),
        (Averaging(strategy="fedadam", eta=0.05), PLAN),
        (Averaging(strategy="trimmed", trim=0.1), PLAN),
        (Averaging(noise=0.05, clip=2.0), PLAN),
        (Averaging(noise=0.05, clip=1.0, adaptive=True), PLAN),
        (Averaging(), msgspec.structs.replace(PLAN, clip=1.0, noise=0.4)),
    ],
    ids=["fedprox", "fedadam", "trimmed", "central", "central-adaptive", "local"],
)
def test_boards_learn_by_every_strategy(tmp_path: Path, how: Averaging, plan: Plan) -> None:
    chain = Chain()
    boards = [board(chain, number, WINDOWS) for number in range(10)]
    guard, _ = simulate(tmp_path, boards, held_out(chain, 10, 8), 5, how, plan)
    assert guard.first < 0.2
    assert guard.best > 0.7
    away = [why for report in guard.reports for why in report.silent.values()]
    assert all("this board is away" in why for why in away), away
