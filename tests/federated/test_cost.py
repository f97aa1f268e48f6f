"""The cost of learning to a board, printed: memory and CPU of its processes, idle and training, beside Flower's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edged.federated.flower.averaging import Averaging
from edged.federated.flower.lead import Settings, TrainingRequest, lead
from edged.federated.order import Plan
from edged.federated.trainer import Trainer
from edged.model.runtime import choose
from support.federation import MODEL, Federation
from support.vibration import WEIGHTS

_IDLE = 8.0
"""Seconds over which an idle board is watched."""
_LONG = Plan(epochs=1000, batch=16, rate=0.01)
_OWN_EXECUTOR = "from flwr.supercore.superexec.run_superexec import run_superexec"
_OWN_APP = "from flwr.supernode.runtime.run_clientapp import run_clientapp; import numpy"
"""The programs that Flower itself runs beside its SuperNode: the one all the time, the other while it trains."""


class Spent(NamedTuple):
    """Of a process: proportional set size in bytes, and CPU seconds since it began."""

    memory: int
    cpu: float


def spent(pid: int) -> Spent:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (kilobytes,) = (int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    columns = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Spent(1024 * kilobytes, (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK"))


def below(pid: int) -> Iterator[int]:
    """Yield a process and all that came of it."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from below(int(child))


def bare(imports: str) -> int:
    """Return the memory of a Python that has imported something and does nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{imports}\nprint('there', flush=True); import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        found = spent(process.pid).memory
        process.stdin.close()
    return found


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_a_board_spends_is_told(tmp_path: Path) -> None:
    trainer = Trainer(WEIGHTS, choose())
    wanted = TrainingRequest(MODEL, _LONG, Averaging(), Settings(2, patience=60), least=1)
    with Federation(tmp_path / "f", 1, {"material": "vibration", "windows": 200, "patient": True}) as fleet:
        ours, flower = below(fleet.boards[0].service.pid)
        fleet.boards[0].service.wait_logged("waits for rounds")
        before = [spent(ours), spent(flower)]
        time.sleep(_IDLE)  # CPU is measured over a time in which nothing happens
        idle = [spent(ours), spent(flower)]
        began = time.monotonic()
        outcome = lead(fleet.aggregator, wanted, trainer.weights())
        took = time.monotonic() - began
        trained = [spent(ours), spent(flower)]
    assert [report.kept for report in outcome.reports] == [True, True]
    executor, app = bare(_OWN_EXECUTOR), bare(_OWN_APP)
    rate = [(later.cpu - sooner.cpu) / _IDLE for sooner, later in zip(before, idle, strict=True)]
    print(
        f"\nidle:      {mb(idle[0])} edged federate run, {rate[0]:.1%} of a CPU; {mb(idle[1])} SuperNode, {rate[1]:.1%}"
    )
    print(
        f"training:  {mb(trained[0])} and {mb(trained[1])}; {trained[0].cpu - idle[0].cpu:.1f} s of CPU in {took:.1f} s"
    )
    print(
        f"Flower's:  {executor / 1e6:.0f} MB its executor, and {app / 1e6:.0f} MB its app while it trains, in edged's place"
    )
    assert idle[0].memory < executor + app, "edged alone takes more than what it stands in for"


def mb(one: Spent) -> str:
    return f"{one.memory / 1e6:.0f} MB"
