"""Start of commands, in CPU time, against a Python that does nothing but import the libraries that they need."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from report import Row, ratio

_LOOKS = "import click, msgspec, cbor2"
_LISTENS = f"{_LOOKS}, cryptography.hazmat.primitives.serialization, cryptography.hazmat.primitives.ciphers.aead"
_LIBRARIES = {"looks": ("-c", _LOOKS), "listens": ("-c", f"{_LISTENS}, paho.mqtt.client")}
_EDGED = ("-m", "edged")
_COMPLETION = {"_EDGED_COMPLETE": "bash_complete", "COMP_WORDS": "edged s", "COMP_CWORD": "1"}
_COMMANDS: Mapping[str, tuple[str, tuple[str, ...], Mapping[str, str]]] = {
    "edged --help": ("looks", ("--help",), {}),
    "completion of a command": ("looks", (), _COMPLETION),
    "edged status": ("looks", ("status", "-c", "edged.toml"), {}),
    "edged audit": ("looks", ("audit", "-c", "edged.toml"), {}),
    "edged listen, to its first look at the options": ("listens", ("listen", "--help"), {}),
}
_BARS = {"looks": 1.3, "listens": 1.2}
_CONFIG = """
[device]
name = "bench"
state = "state"

[broker]
url = "mqtt://127.0.0.1:9"

[publishers.acme]
key = "acme.pub"
models = ["any"]

[results]
hubs = ["home.pub"]
"""
_STATE = """
from contextlib import closing
from pathlib import Path
from edged.board.installation import Board
from edged.board.state import State
from edged.config.load import load_board

board = Board(load_board(Path("edged.toml")))
with closing(State(board.directory)) as state:
    log = board.audit(state, board.keystore())
    for _ in range(20):  # of which the sixteenth is signed
        log.add("start")
"""


def measure(directory: Path, *, quick: bool) -> list[Row]:
    """Start one command after the other, in turns."""
    _prepare(directory)
    bare: dict[str, list[float]] = {name: [] for name in _LIBRARIES}
    seconds: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(3 if quick else 31):
        for name, arguments in _LIBRARIES.items():
            bare[name].append(_cpu_seconds(directory, arguments, {}))
        for name, (_, arguments, environment) in _COMMANDS.items():
            seconds[name].append(_cpu_seconds(directory, (*_EDGED, *arguments), environment))
    return [
        Row(f"start of {name} / its libraries' imports", ratio(seconds[name], bare[needs]), "x", _BARS[needs])
        for name, (needs, _, _) in _COMMANDS.items()
    ]


def _prepare(directory: Path) -> None:
    """Make a board's keys, state and audit log."""
    (directory / "edged.toml").write_text(_CONFIG)
    for arguments in ((*_EDGED, "init", "-c", "edged.toml"), ("-c", _STATE)):
        command = [sys.executable, *arguments]
        subprocess.run(command, cwd=directory, stdout=subprocess.DEVNULL, check=True)


def _cpu_seconds(directory: Path, arguments: tuple[str, ...], environment: Mapping[str, str]) -> float:
    """Return user and system time of one run of Python."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=directory,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in {0, 1}:  # click ends a completion with 1
        raise RuntimeError(f"{arguments} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime
