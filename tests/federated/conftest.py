"""Tests of learning together. Those that need Flower are left out where it is not installed: it is an extra."""

from __future__ import annotations

import importlib.util
import warnings

_WITH_FLOWER = (
    "test_rounds.py",
    "test_secagg.py",
    "test_attacks.py",
    "test_simulation.py",
    "test_commands.py",
    "test_board.py",
)

collect_ignore = [] if importlib.util.find_spec("flwr") else [*_WITH_FLOWER]

if importlib.util.find_spec("flwr"):
    from edged.federated.flower.processes import hush, quiet

    quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports warn of what others deprecate
        for name in ("client_app", "lead", "runner", "board", "superlink"):
            importlib.import_module(f"edged.federated.flower.{name}")
    hush()
