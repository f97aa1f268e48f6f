"""Learning together with the commands that people type, from keys to the package that comes of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.base.errors import FormatError, MissingFileError, UsageError
from edged.board.examples import Intake, Of, Window
from edged.board.installation import Board, mapped
from edged.cli.training import _scorer
from edged.config.load import load_board
from edged.federated.trainer import Trainer
from edged.formats.spec import fingerprint
from edged.model.runtime import choose
from support.commands import Done, edged, run_edged
from support.federation import ENDS_WITH_THE_TEST
from support.ports import quiet_port
from support.process import Service
from support.vibration import MANIFEST, PLAN, WEIGHTS, Chain, board, held_out
from support.waiting import wait_until

BOARDS, WINDOWS, ROUNDS = 3, 100, 1


class Fleet:
    """A publisher, an aggregator and boards in a folder, by command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o700)
        self.port = quiet_port()
        for role, name in (("publisher", "acme"), ("hub", "home")):
            self.edged("keygen", role, "--id", name, "--no-passphrase")
        (folder / "aggregator.toml").write_text(
            f'[aggregator]\nname = "fleet"\nstate = "aggregator"\nport = {self.port}\n'
        )
        self.aggregator("init", "-o", "aggregator.pub")
        self.configs = [self._make_board(number) for number in range(BOARDS)]
        granted = [part for number in range(BOARDS) for part in ("--to", f"press-{number}.enrol")]
        self.edged("pack", WEIGHTS, "-m", MANIFEST, "--sign", "acme.key", *granted, "-o", "vibration-1.edged")
        chain = Chain()
        for number, config in enumerate(self.configs):
            self.edged("install", "vibration-1.edged", "-c", config)
            self._collect(chain, number, config)

    def edged(self, *arguments: object) -> Done:
        """Run a command in the folder and this process."""
        return edged(*arguments, cwd=self.folder)

    def aggregator(self, *arguments: object) -> Done:
        """Run a command of the aggregator's in this process."""
        return self.edged("aggregator", *arguments, "-c", "aggregator.toml")

    def _make_board(self, number: int) -> Path:
        config = self.folder / f"press-{number}.toml"
        config.write_text(
            f"""
[device]
name = "press-{number}"
state = "press-{number}"
[broker]
url = "mqtt://127.0.0.1:1"
[publishers.acme]
key = "acme.pub"
models = ["vibration"]
[results]
hubs = ["home.pub"]
[federated]
aggregator = "localhost:{self.port}"
record = "aggregator.pub"
ca = "aggregator/tls/ca.pem"
models = ["vibration"]
[[model]]
name = "vibration"
channel = "c1"
topic = "press/{number}"
[model.collect]
label = "operator"
"""
        )
        self.edged("init", "-c", config, "-o", f"press-{number}.enrol")
        self.edged("federate", "init", "-c", config, "-o", f"press-{number}.node")
        return config

    @staticmethod
    def _collect(chain: Chain, number: int, config: Path) -> None:
        """Put into a board's store what its daemon would."""
        seen, here = board(chain, number, WINDOWS), Board(load_board(config))
        package = here.packages.all()[0].path
        of = Of("vibration", fingerprint(here.verify(mapped(package), package).manifest))
        windows = [
            Window(int(label), 1_000_000 * at, x.astype("<f4").tobytes())
            for at, (x, label) in enumerate(zip(seen.x, seen.labels, strict=True))
        ]
        with closing(here.examples(here.keystore())) as examples:
            Intake(examples).add(of, windows, 1 << 26)

    @contextmanager
    def running(self, *arguments: object) -> Iterator[Service]:
        """Run a command that serves until the block ends; it is ready at the start of the block."""
        name = f"{arguments[0]}-{Path(str(arguments[-1])).stem}"
        command = (*ENDS_WITH_THE_TEST, sys.executable, "-m", "edged", *arguments)
        service = Service(command, self.folder, name)
        try:
            service.wait_ready()
            yield service
        finally:
            service.stop()
            print(service.said[-1500:])

    def status(self) -> dict[str, Any]:
        """Return what the aggregator says of itself and its boards."""
        said: dict[str, Any] = json.loads(self.aggregator("status", "--json").stdout)
        return said

    def online(self) -> int:
        """Return how many boards are connected."""
        return sum(one["state"] == "online" for one in self.status()["boards"].values())


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_three_boards_learn_by_command_and_a_package_comes_of_it(tmp_path: Path) -> None:
    """Masked, as boards insist by default; from windows in their stores, with the model out of their packages."""
    fleet = Fleet(tmp_path)
    windows = held_out(Chain(), BOARDS, 30)
    np.savez(tmp_path / "held-out.npz", x=windows.x, y=windows.y)
    assert "allowed press-0" in fleet.aggregator("allow", *(f"press-{number}.node" for number in range(BOARDS))).stdout
    train = (
        *("train", "vibration", "--model", WEIGHTS, "--rounds", ROUNDS, "--held-out", "held-out.npz", "--range", 4),
        *("--epochs", PLAN.epochs, "--batch", PLAN.batch, "--rate", PLAN.rate, "--patience", 30, "-o", "out.learned"),
    )
    with fleet.running("aggregator", "serve", "-c", "aggregator.toml"):
        with (
            fleet.running("federate", "run", "-c", fleet.configs[0]) as first,
            fleet.running("federate", "run", "-c", fleet.configs[1]) as second,
            fleet.running("federate", "run", "-c", fleet.configs[2]) as third,
        ):
            assert fleet.status()["serving"]
            wait_until(lambda: fleet.online() == BOARDS, every=0.2, told=fleet.status)
            train += ("--png", "curve.png", "-c", "aggregator.toml")
            done = run_edged("aggregator", *train, cwd=tmp_path)
            print(done.stdout)
            status = json.loads(fleet.edged("federate", "status", "--json", "-c", fleet.configs[0]).stdout)
            assert status["running"]
            assert status["answered"]["answered"] == 5 * ROUNDS  # a masked round has five stages
            assert status["aggregator"]["answers"], status["aggregator"]
            for service in (first, second, third):  # all at once: each takes a while to end
                service.process.terminate()
        fleet.aggregator("revoke", "press-2")
        wait_until(lambda: "press-2" not in fleet.status()["boards"], every=0.2, told=fleet.status)
    assert "Connection refused" in fleet.edged("federate", "status", "-c", fleet.configs[0]).stdout
    assert "updates masked" in done.stdout
    assert (tmp_path / "curve.png").exists()
    fleet.edged(
        *("pack", WEIGHTS, "-m", MANIFEST, "--learned", "out.learned", "--aggregator", "aggregator.pub"),
        *("--version", 2, "--sign", "acme.key", "--to", "press-0.enrol", "-o", "vibration-2.edged"),
    )
    assert "installed vibration 2" in fleet.edged("install", "vibration-2.edged", "-c", fleet.configs[0]).stdout
    listed = fleet.edged("federate", "data", "list", "-c", fleet.configs[0]).stdout
    assert "vibration" in listed


def test_errors_name_the_way_out(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "a.toml").write_text('[aggregator]\nname = "fleet"\nstate = "a"\nport = 1\n')

    def fail(*arguments: object) -> str:
        done = edged(*arguments, cwd=tmp_path, check=False)
        assert done.returncode
        return done.stderr

    assert "edged aggregator init" in fail("aggregator", "serve", "-c", "a.toml")
    edged("aggregator", "init", "-c", "a.toml", cwd=tmp_path)
    assert "exists already" in fail("aggregator", "init", "-c", "a.toml")
    assert "edged federate init" in fail("aggregator", "allow", "a.toml", "-c", "a.toml")
    assert "is not allowed" in fail("aggregator", "revoke", "press-7", "-c", "a.toml")
    assert "edged aggregator serve" in fail("aggregator", "train", "m", "--model", WEIGHTS, "-c", "a.toml")
    assert "aggregator init" in fail("aggregator", "status", "-c", "b.toml") or "--config" in fail(
        "aggregator", "status", "-c", "b.toml"
    )


@pytest.mark.parametrize(
    ("x", "y", "score"),
    [
        (np.zeros((4, 18)), np.eye(4), None),
        (np.zeros((4, 17)), np.eye(4), "x is"),
        (np.zeros((0, 18)), np.zeros((0, 4)), "x is"),
        (np.zeros((4, 18)), np.eye(3), "y is"),
    ],
)
def test_held_out_examples_fit_the_model_or_are_refused(
    tmp_path: Path, x: np.ndarray, y: np.ndarray, score: str | None
) -> None:
    trainer = Trainer(WEIGHTS, choose())
    np.savez(tmp_path / "held-out.npz", x=x, y=y)
    if score is None:
        assert 0 <= _scorer(trainer, tmp_path / "held-out.npz")(trainer.weights()) <= 1
        return
    with pytest.raises(UsageError, match=score):
        _scorer(trainer, tmp_path / "held-out.npz")


def test_held_out_examples_in_another_form_are_told(tmp_path: Path) -> None:
    trainer = Trainer(WEIGHTS, choose())
    with pytest.raises(MissingFileError):
        _scorer(trainer, tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(FormatError, match="npz"):
        _scorer(trainer, tmp_path / "text.npz")
