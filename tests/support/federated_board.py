"""A board of a test federation, in a process of its own: `python federated_board.py FOLDER`.

Its SuperNode is Flower's own program, which asks for messages every three seconds, and nothing sets that; here it asks
more often, or a test would mostly wait. A board that is "patient" asks as seldom as one in the field.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edged.config.federated import FederatedTable, Privacy
from edged.federated.flower import processes, quiet
from edged.federated.nodes import open_node_key
from edged.federated.order import Order, Rounds
from edged.federated.privacy import Budget
from edged.federated.update import Round, seal_update
from edged.federated.work import RoundWorker, TrainedRound, TrainingInput
from edged.formats.identity import Role
from edged.keystore.file import FileKeystore
from edged.keystore.records import read_record

quiet()
from edged.federated.flower.board import BoardProcess  # noqa: E402  Flower reads its switches when it is imported
from support.learner import Softmax, examples  # noqa: E402

_IMPATIENT = """
import time, types
import flwr.supernode.start_client_internal as worker
worker.time = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: time.sleep(min(seconds, 0.3))})
import flwr.supercore.heartbeat as beat, flwr.supernode.fleet_http_connection as link
beat.HEARTBEAT_DEFAULT_INTERVAL = link.HEARTBEAT_DEFAULT_INTERVAL = 10
"""
"""Runs in the SuperNode before Flower's own."""


class Liar(RoundWorker):
    """A board that does in one way or another what it should not, or leaves a note of what it learned for the test."""

    how = ""
    folder = Path()
    _first: bytes = b""
    _of: int | None = None

    def train(self, order: bytes, weights: bytes, joined: Order | None = None) -> TrainedRound:
        outcome = super().train(order, weights, joined)
        np.savez(self.folder / f"moved-{outcome.order.round}.npz", *RoundWorker.moved(outcome))
        return outcome

    def sealed(self, learned: TrainedRound) -> bytes:
        weights = learned.fitted.weights
        if self.how == "x1000":
            weights = [start + 1000 * (end - start) for start, end in zip(learned.start, weights, strict=True)]
        elif self.how == "nan":
            weights = [np.full_like(one, np.nan) for one in weights]
        elif self.how == "replay":  # the update of a run's first round, as long as the run lasts
            if self._of != learned.order.run:
                self._of, self._first = learned.order.run, super().sealed(learned)
            return self._first
        else:
            return super().sealed(learned)
        about = Round(learned.order.run, learned.order.round, self._device.id)
        return seal_update(weights, about, self._signer, self._device.aead, self._aggregator.sealing_key)


def main(folder: Path) -> None:
    setting = json.loads((folder / "board.json").read_text())
    if not setting.get("patient"):
        processes._STARTER = processes._STARTER.replace("runpy.run_path", f"{_IMPATIENT}runpy.run_path")
    keystore = FileKeystore.open("file:", folder / "keys", None)
    device = read_record(folder / "device.enrol", Role.DEVICE)
    table = FederatedTable(
        aggregator=setting["aggregator"],
        record=setting["record"],
        ca=setting["ca"],
        models=(setting["model"],),
        secure=setting["secure"],
        privacy=Privacy(**setting.get("privacy", {})),
    )

    trainings = 0

    @contextmanager
    def material(_: str) -> Iterator[TrainingInput]:
        nonlocal trainings
        trainings += 1
        if trainings == setting.get("stuck"):
            (folder / "stuck").touch()
            threading.Event().wait()  # for its end
        if setting["material"] == "vibration":
            from support.vibration_board import open_material  # noqa: PLC0415

            with open_material(setting) as opened:
                yield opened
            return
        yield TrainingInput(Softmax(), *examples(setting["number"]))

    worker = Liar(
        table,
        read_record(Path(table.record), Role.AGGREGATOR),
        device,
        keystore.signer,
        Rounds(folder / "rounds"),
        Budget(folder / "budget", table.privacy),
        material,
    )
    worker.how, worker.folder = setting.get("how", ""), folder
    process = BoardProcess(table, open_node_key(folder / "node.key", device, keystore), worker, folder / "federated")
    signal.signal(signal.SIGTERM, lambda *_: process.stop.set())
    process.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(Path(sys.argv[1]))
