"""Boards with machines of their own: the example's model, its manifest, and windows for any number of boards."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "federated"


def _load(name: str) -> None:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)


_load("machines")
_load("compare")

from compare import (  # noqa: E402  it stands in the example's folder
    ANOMALY_MANIFEST,
    ANOMALY_PLAN,
    ANOMALY_WEIGHTS,
    MANIFEST,
    PLAN,
    WEIGHTS,
    Chain,
    Compared,
    Examples,
    accuracy,
    average,
    board,
    compare,
    held_out,
)
from machines import CONDITIONS, Machine  # noqa: E402  as above

SELF_TEST = FOLDER / "vibration-selftest.npz"

__all__ = [
    "ANOMALY_MANIFEST",
    "ANOMALY_PLAN",
    "ANOMALY_WEIGHTS",
    "CONDITIONS",
    "FOLDER",
    "MANIFEST",
    "PLAN",
    "SELF_TEST",
    "WEIGHTS",
    "Chain",
    "Compared",
    "Examples",
    "Machine",
    "accuracy",
    "average",
    "board",
    "compare",
    "held_out",
]
