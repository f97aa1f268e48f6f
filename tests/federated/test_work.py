"""A board's share of a round: when it may not begin, and what becomes of one that it may not end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from edged.base.errors import MismatchError, NotAllowedError, ReplayError
from edged.config.federated import FederatedTable, Privacy
from edged.federated import work
from edged.federated.order import Order, Plan, Rounds
from edged.federated.privacy import Budget
from edged.federated.trainer import Trainer
from edged.federated.weights import digest, encode
from edged.federated.work import RoundWorker, TrainingInput
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role
from edged.model.runtime import choose
from support.vibration import WEIGHTS, Chain, board

MODEL = "bearing"
NOISY = Plan(epochs=1000, batch=8, rate=0.01, clip=1.0, noise=1.0)
"""As long as an order may ask for."""


class Bench:
    """A board with sixteen windows, and the aggregator that it believes."""

    def __init__(self, folder: Path) -> None:
        self.trainer = Trainer(WEIGHTS, choose())
        self.start = self.trainer.weights()
        self._examples = board(Chain(), 1, 16)
        self._aggregator, sealing = PrivateKey.generate(), PrivateKey.generate()
        signer, agreement = PrivateKey.generate(), PrivateKey.generate()
        self.table = FederatedTable(aggregator="a:1", record="r", ca="c", models=(MODEL,), secure=False)
        self.budget = Budget(folder / "budget", Privacy())
        self.asked = 0
        self.may: Callable[[], str | None] = lambda: None
        self.worker = RoundWorker(
            self.table,
            Record(Role.AGGREGATOR, "fleet", self._aggregator.public, sealing.public, None, 0),
            Record(Role.DEVICE, "press", signer.public, agreement.public, Aead.A256GCM, 0),
            signer,
            Rounds(folder / "rounds"),
            self.budget,
            self._open,
            may_train=self._may,
        )

    @contextmanager
    def _open(self, _: str) -> Iterator[TrainingInput]:
        yield TrainingInput(self.trainer, self._examples.x, self._examples.y)

    def _may(self) -> str | None:
        self.asked += 1
        return self.may()

    def train(self, number: int, plan: Plan) -> None:
        order = Order(1, number, MODEL, digest(self.start), plan, masked=False)
        self.worker.train(order.encode(self._aggregator), encode(self.start))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    tmp_path.chmod(0o700)
    return Bench(tmp_path)


def test_a_board_that_may_not_train_refuses_and_may_take_the_same_round_later(bench: Bench) -> None:
    bench.may = lambda: "it runs on its battery"
    with pytest.raises(NotAllowedError, match="not now: it runs on its battery") as refused:
        bench.train(1, replace(NOISY, epochs=1))
    assert "[federated.when]" in (refused.value.hint or "")
    bench.may = lambda: None
    bench.train(1, replace(NOISY, epochs=1))


def test_a_training_ends_when_the_board_may_train_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it leaves the board, and so it costs no privacy; its round is gone."""
    monkeypatch.setattr(work, "_LOOK", 0.0)
    bench.may = lambda: "it is 85 °C hot" if bench.asked > 3 else None
    with pytest.raises(NotAllowedError, match="no longer: it is 85 °C hot"):
        bench.train(1, NOISY)
    assert bench.asked == 4
    assert bench.budget.spent() == {}
    bench.may = lambda: None
    with pytest.raises(ReplayError):
        bench.train(1, replace(NOISY, epochs=1))
    bench.train(2, replace(NOISY, epochs=1))
    assert set(bench.budget.spent()) == {MODEL}


def test_a_training_looks_from_time_to_time_and_not_at_each_step(bench: Bench) -> None:
    began = time.monotonic()
    bench.train(1, replace(NOISY, epochs=20))
    assert bench.asked <= 1 + (time.monotonic() - began) / work._LOOK


def test_an_order_for_a_masked_round_is_not_carried_out_in_the_open(bench: Bench) -> None:
    order = Order(
        1, 1, MODEL, digest(bench.start), NOISY, masked=True, boards={"press": bytes(32), "other": bytes(31) + b"1"}
    )
    with pytest.raises(MismatchError):
        bench.worker.train(order.encode(bench._aggregator), encode(bench.start))
