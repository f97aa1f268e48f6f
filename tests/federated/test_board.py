"""A board's process without Flower's: when it connects and leaves, and what it makes of what goes wrong."""

from __future__ import annotations

import datetime as dt
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from edged.base.errors import BrokerError
from edged.config.federated import FederatedTable
from edged.federated.flower import SWITCHES, processes
from edged.federated.flower import board as module
from edged.federated.flower.board import BoardProcess
from edged.federated.flower.grid import open_run
from edged.federated.flower.processes import Child, Secret
from edged.federated.flower.superlink import Control
from edged.formats.cose.keys import PrivateKey
from edged.keystore.certificates import Authority
from support.waiting import PATIENCE, wait_until


class Script:
    """All that happens to a board, call by call; the test ends with it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.folder = folder
        self.may: Callable[[], str | None] = lambda: None
        self.step: Callable[[], bool] = lambda: False
        script = self

        class FakeChild:
            running = True

            def __init__(self, *_: Any) -> None:
                script.told.append("connects")

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *_: object) -> None:
                script.told.append("leaves")

        class FakeRunner:
            def __init__(self, *_: Any) -> None:
                self.answered: Counter[str] = Counter()

            def step(self) -> bool:
                return script.step()

            def close(self) -> None:
                pass

        monkeypatch.setattr(module, "Child", FakeChild)
        monkeypatch.setattr(module, "Runner", FakeRunner)
        monkeypatch.setattr(module, "_LOOK", 0.02)
        monkeypatch.setattr(module, "_POLL", 0.01)
        monkeypatch.setattr(module, "_FIRST_PAUSE", 0.01)

    def _ask(self) -> str | None:
        return self.may()

    def run(self) -> None:
        table = FederatedTable(aggregator="a:1", record="r", ca="c", models=("m",))

        class NoWorker:
            least = 3
            join = None

        worker: Any = NoWorker()
        self.process = BoardProcess(
            table, PrivateKey.generate(), worker, self.folder / "federated", may_train=self._ask
        )
        guard = threading.Timer(PATIENCE, self.process.stop.set)
        guard.start()
        try:
            self.process.run()
        finally:
            guard.cancel()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    tmp_path.chmod(0o700)
    return Script(tmp_path, monkeypatch)


def test_a_board_connects_only_while_it_may_train_and_leaves_when_it_may_no_more(script: Script) -> None:
    reasons = iter(["it runs on its battery", "it runs on its battery", None, None, "it is 85 C hot", "it is 85 C hot"])
    seen: list[tuple[str | None, list[str]]] = []

    def may() -> str | None:
        reason = next(reasons, "end")
        seen.append((reason, [*script.told]))
        if reason == "end":
            script.process.stop.set()
        return reason

    script.may = may
    script.run()
    assert script.told == ["connects", "leaves"]
    assert all(told == [] for _, told in seen[:3])
    assert seen[-1][1] == ["connects", "leaves"]


def test_a_supernode_on_its_way_up_is_waited_for(script: Script) -> None:
    answers = iter([httpx.ConnectError("not yet"), httpx.ConnectError("not yet"), True])

    def step() -> bool:
        answer = next(answers, None)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            script.process.stop.set()
        return bool(answer)

    script.step = step
    script.run()
    assert script.told == ["connects", "leaves"]
    status = json.loads((script.folder / "federated" / "status.json").read_text())
    assert status["state"] == "does not run"


def test_a_supernode_that_does_not_understand_is_replaced(script: Script) -> None:
    def step() -> bool:
        if script.told.count("connects") == 3:
            script.process.stop.set()
        raise BrokerError("not as it should")

    script.step = step
    script.run()
    assert script.told == ["connects", "leaves"] * 3


# --- children ------------------------------------------------------------------------------------

PROGRAM = """#!{python}
import os, signal, sys
from pathlib import Path
Path("new").write_bytes(Path(sys.argv[1]).read_bytes() + b"|" + repr(sorted(os.environ.items())).encode())
Path("new").rename("seen")
signal.pause()
"""


def test_a_child_reads_its_secret_from_memory_and_ends_with_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    beside = tmp_path / "bin"
    beside.mkdir()
    (beside / "python").symlink_to(sys.executable)
    (beside / "program").write_text(PROGRAM.format(python=sys.executable))
    monkeypatch.setenv("AWS_SECRET", "not for others")
    monkeypatch.setattr(processes.sys, "executable", str(beside / "python"))
    with Child("program", [Secret("x", b"top secret")], tmp_path / "home") as child:
        seen = tmp_path / "home" / "seen"
        wait_until(seen.exists)
        content = seen.read_bytes()
        assert child.running
    assert not child.running
    assert content.startswith(b"top secret|")
    assert b"not for others" not in content
    assert all(name.encode() in content for name in SWITCHES)


# --- the aggregator's end ------------------------------------------------------------------------


def test_a_superlink_that_is_gone_ends_a_training_in_time(tmp_path: Path) -> None:
    """Flower would try for ever."""
    tmp_path.chmod(0o700)
    ca = Authority("nobody", tmp_path / "ca.pem", dt.timedelta(days=1)).ca
    began = time.monotonic()
    with pytest.raises(BrokerError) as error, open_run("localhost:1", ca.read_bytes(), "token", 1.5):
        pass
    assert "edged aggregator serve" in (error.value.hint or "")
    print(f"\na training whose SuperLink is gone ends after {time.monotonic() - began:.1f} s; its patience is 1.5 s")
    with closing(Control("localhost:1", ca)) as control:
        assert not control.is_up()
        with pytest.raises(BrokerError):
            control.nodes()
