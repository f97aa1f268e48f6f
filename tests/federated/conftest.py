"""Tests of learning together. Those that need Flower are left out where it is not installed: it is an extra."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path

import pytest

_WANTS_FLOWER = re.compile(
    r"^(from|import) (flwr|edged\.federated\.flower|support\.(federation|simulation))\b", re.MULTILINE
)

collect_ignore: list[Path] = []

if importlib.util.find_spec("flwr"):
    from edged.federated.flower import hush, quiet

    quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports warn of what others deprecate
        for name in ("lead", "runner", "board", "superlink"):
            importlib.import_module(f"edged.federated.flower.{name}")
    hush()
else:
    collect_ignore += [one for one in Path(__file__).parent.glob("test_*.py") if _WANTS_FLOWER.search(one.read_text())]

_SHARED = ("fleet", "link")
"""Fixtures of several processes, which serve all tests of a file."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share processes in one worker, where they are started once: see --dist=loadgroup."""
    here = Path(__file__).parent
    for item in items:
        for name in {*_SHARED} & {*getattr(item, "fixturenames", ())} if item.path.parent == here else ():
            item.add_marker(pytest.mark.xdist_group(name))
