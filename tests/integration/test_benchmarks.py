"""`make bench` reaches into the daemon for what it compares with: it has to go on doing so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["durability", "own"])
def test_what_reaches_into_the_daemon_can_be_measured(what: str) -> None:
    """Shortly, and whatever comes out: figures of a machine that does other things as well mean nothing."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PYTHONSAFEPATH", None)  # its parts stand beside it
    command = [sys.executable, RUN, "--quick", "--only", what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert " us" in done.stdout
