"""Three boards with machines of their own learn together, through real SuperLink and SuperNode processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edged.federated.flower.averaging import Averaging
from edged.federated.flower.lead import Settings, TrainingRequest, lead
from edged.federated.learned import Learned
from edged.federated.order import Plan
from edged.federated.report import curves, draw
from edged.federated.trainer import Trainer
from edged.model.runtime import choose
from support.federation import MODEL, Federation
from support.learner import Softmax
from support.published import answers, enrol, install_learned
from support.site import Site
from support.vibration import CONDITIONS, PLAN, WEIGHTS, Chain, accuracy, board, compare, held_out

BOARDS, WINDOWS, ROUNDS = 3, 200, 10
WITHIN = 0.02


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ten_rounds_come_within_two_points_of_central_training_and_their_model_answers_so(
    tmp_path: Path, site: Site
) -> None:
    chain, trainer = Chain(), Trainer(WEIGHTS, choose())
    windows = held_out(chain, BOARDS, 50)
    boards = [board(chain, number, WINDOWS) for number in range(BOARDS)]
    here = compare(trainer, boards, windows, ROUNDS, PLAN)
    wanted = TrainingRequest("vibration", PLAN, Averaging(), Settings(ROUNDS, patience=30), least=BOARDS, bound=50.0)
    with Federation(
        tmp_path / "f", BOARDS, {"model": "vibration", "material": "vibration", "windows": WINDOWS}
    ) as fleet:
        outcome = lead(
            fleet.aggregator,
            wanted,
            trainer.weights(),
            lambda weights: accuracy(trainer, weights, windows),
            lambda report: print(report.line(), flush=True),
        )
        key = fleet.aggregator.keystore().signer
        path = fleet.aggregator.outcome("vibration", outcome.run)
        assert outcome.training is not None
        Learned.of("vibration", outcome.weights, outcome.training).write(path, key)
        again = Learned.read(path, key.public)
        enrol(site)
        install_learned(site, path, fleet.aggregator.record_path)
    results = answers(site, windows.rows)
    said = [result["label"] == CONDITIONS[label] for result, label in zip(results, windows.labels, strict=True)]
    together = [outcome.first, *(report.score or 0.0 for report in outcome.reports)]
    named = {
        "together, through Flower": together,
        "all data in one place": [here.centrally],
        **{f"board {number} alone": [score] for number, score in enumerate(here.alone)},
    }
    print(curves(named))
    draw(tmp_path / "rounds.png", named, f"{BOARDS} boards, {ROUNDS} rounds")
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")
    print(f"the picture: {tmp_path / 'rounds.png'}")
    assert len(outcome.reports) == ROUNDS
    assert all(len(report.boards) == BOARDS for report in outcome.reports)
    assert together[-1] >= here.centrally - WITHIN
    assert together[-1] > max(here.alone) > np.mean(here.alone)
    print(f"over MQTT, from a sealed package: {np.mean(said):.2%} of {len(said)} windows")
    assert np.mean(said) == pytest.approx(max(together), abs=1 / len(said))
    assert again.training == outcome.training
    assert again.training.score == max(report.score or 0 for report in outcome.reports)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_board_that_lost_its_power_takes_part_again(tmp_path: Path) -> None:
    """By itself, once it is up; in rounds that it has not taken before."""
    start = Softmax().weights()
    plan = Plan(epochs=1, batch=16, rate=0.1)
    wanted = TrainingRequest(MODEL, plan, Averaging(), Settings(1, patience=60), least=BOARDS)
    with Federation(tmp_path / "f", BOARDS) as fleet:
        before = lead(fleet.aggregator, wanted, start)
        lost = fleet.boards[0]
        lost.service.kill()
        fleet.wait_for(BOARDS - 1)
        lost.start()
        fleet.wait_for(BOARDS)
        after = lead(fleet.aggregator, wanted, before.weights)
    for outcome in (before, after):
        (report,) = outcome.reports
        assert report.kept, report
        assert set(report.boards) == {board.name for board in fleet.boards}
