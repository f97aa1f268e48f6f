"""A board, its publisher, its hub and its sensor in one directory, made with the commands that users type."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cbor2
import models
import numpy as np
import numpy.typing as npt
from load import LoadGenerator
from process import ProcessError

from edged.channel.reading import ReadingSealer, read_key

Floats = npt.NDArray[np.float32]
ROWS, CHANNELS, LABELS = 128, 6, 4
SMALL = [ROWS * CHANNELS, 16, LABELS]

_MANIFEST = """
name = "bench"
version = 1

[input]
channels = ["a1", "a2", "a3", "a4", "a5", "a6"]

[window]
size = 128

[output]
kind = "classifier"
labels = ["healthy", "worn", "cracked", "broken"]

[publish]
when = "window"

[self_test]
file = "selftest.npz"
tolerance = 0.5  # runtimes agree on random int8 weights to some counts only
"""

_CONFIG = """
[device]
name = "{name}"
state = "state"

[broker]
url = "mqtt://127.0.0.1:{port}"

[publishers.acme]
key = "acme.pub"
models = ["bench"]

[results]
hubs = ["home.pub"]

[log]
level = "warning"

[[model]]
name = "bench"
channel = "c1"
topic = "{topic}"
format = "{format}"
each = "window"
sensor = "sensor.key"
"""


class Board:
    """A board with one model.

    :param directory: made; everything of the board's stands in it, and it gives the board its name.
    :param port: the broker's.
    :param format_: how windows are written inside their seal: ``cbor`` or ``json``.
    :param layers: sizes of the model's dense layers.
    :param int8: quantise them.
    """

    def __init__(
        self, directory: Path, port: int, format_: str = "cbor", layers: Sequence[int] = SMALL, *, int8: bool = False
    ) -> None:
        self.directory = directory
        self.model = directory / "model.tflite"
        self.topic, self.results = f"site/{directory.name}/vibration", f"edged/{directory.name}/c1"
        self._port = port
        directory.mkdir()
        models.dense(self.model, layers, int8=int8)
        np.savez(directory / "windows.npz", windows=windows(8))
        (directory / "manifest.toml").write_text(_MANIFEST)
        config = _CONFIG.format(name=directory.name, port=port, topic=self.topic, format=format_)
        (directory / "edged.toml").write_text(config)
        for role, name in (("publisher", "acme"), ("operator", "fleet"), ("hub", "home")):
            self._edged("keygen", role, "--id", name, "--no-passphrase")
        self._edged("keygen", "sensor", "--id", "sensor")
        self._edged("init", "-c", "edged.toml", "-o", "board.enrol")
        self._edged(
            "try", "model.tflite", "-m", "manifest.toml", "-i", "windows.npz", "--record-self-test", "selftest.npz"
        )
        self._edged(
            "pack", "model.tflite", "--manifest", "manifest.toml", "--sign", "acme.key", "--to", "board.enrol",
            "--operator", "fleet.pub", "-o", "bench-1.edged",
        )  # fmt: skip
        self._edged("install", "bench-1.edged", "-c", "edged.toml")
        self._sealer = ReadingSealer(read_key(directory / "sensor.key"), self.topic)

    def _edged(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "edged", *arguments]
        done = subprocess.run(
            command, cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ProcessError(f"edged {' '.join(arguments)} left with {done.returncode}: {done.stderr}")

    def seal(self, reading: bytes) -> bytes:
        """Seal a reading as the board's sensor."""
        return self._sealer.seal(reading)

    def load(self) -> LoadGenerator:
        """Return a load generator that sends windows and counts the daemon's results."""
        return LoadGenerator(self._port, self.topic, self.results)


def windows(count: int) -> Floats:
    """Return ``count`` random windows, float32 [count, rows, channels], the same ones at each call."""
    return np.random.default_rng(2).standard_normal((count, ROWS, CHANNELS), dtype=np.float32)


def cbor(window: Floats) -> bytes:
    """Return the whole window as one typed array (RFC 8746, tag 85): rows one after the other."""
    return cbor2.dumps(cbor2.CBORTag(85, window.tobytes()))
