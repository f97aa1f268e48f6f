"""What a board of a test federation learns from where it has a machine: the example's model, and windows of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edged.federated.trainer import Trainer
from edged.federated.work import TrainingInput
from edged.model.runtime import choose
from support.vibration import WEIGHTS, Chain, board


@contextmanager
def open_material(setting: dict[str, Any]) -> Iterator[TrainingInput]:
    seen = board(Chain(), setting["number"], setting["windows"])
    trainer = Trainer(WEIGHTS, choose())
    try:
        yield TrainingInput(trainer, seen.x, seen.y)
    finally:
        trainer.close()
