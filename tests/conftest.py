"""The tests run against the installed wheel: what they import is what users get, data files included."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import edged


def pytest_configure() -> None:
    """Refuse the source tree, which an environment variable allows to those who want to see a change at once."""
    origin = Path(edged.__file__)
    if "site-packages" not in origin.parts and "EDGED_TEST_SOURCE" not in os.environ:
        pytest.exit(f"edged comes from {origin.parent}, not from the wheel: use `make test`", returncode=4)
