"""A board, its publisher, its hub and its sensor in one directory, made with the commands that users type."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from load import LoadGenerator
from process import ProcessError
from subjects import Subject

from edged.formats.channel.reading import ReadingSealer
from edged.keystore.records import read_sensor_key

_MANIFEST = """
name = "{name}"
version = {version}
{manifest}
[publish]
when = "window"

[self_test]
file = "{name}-selftest.npz"
tolerance = 0.05  # of the spread: runtimes agree on random int8 weights to some counts only
"""

_CONFIG = """
[device]
name = "{name}"
state = "state"

[broker]
url = "mqtt://127.0.0.1:{port}"

[publishers.acme]
key = "acme.pub"
models = {models}

[results]
hubs = ["home.pub"]

[runtime]
slow = "{slow}"

[log]
level = "{log}"
"""

_MODEL = """
[[model]]
name = "{name}"
channel = "{name}"
topic = "{topic}"
{layout}
each = "window"
sensor = "sensor.key"
"""


class Place:
    """One model's place on a board: where its readings go in and its results come out.

    :param directory: the board's, which gives the board its name.
    :param port: the broker's.
    :ivar model: the model's file, in plain.
    """

    def __init__(self, directory: Path, port: int, subject: Subject) -> None:
        self.subject = subject
        self.model = directory / f"{subject.name}.tflite"
        self.topic = f"site/{directory.name}/{subject.name}"
        self.results = f"edged/{directory.name}/{subject.name}"
        self._port = port
        self._sealer = ReadingSealer(read_sensor_key(directory / "sensor.key"), self.topic)
        self._readings = cycle([subject.encode(window) for window in subject.windows])

    def seal(self, reading: bytes) -> bytes:
        """Seal a reading as the board's sensor."""
        return self._sealer.seal(reading)

    def sealed(self, count: int) -> list[bytes]:
        """Return as many windows, each sealed anew."""
        return [self.seal(reading) for reading in islice(self._readings, count)]

    def load(self) -> LoadGenerator:
        """Return a load generator that sends windows and counts the daemon's results."""
        return LoadGenerator(self._port, self.topic, self.results)


class Board:
    """A board with its models.

    :param directory: made; everything of the board's stands in it, and it gives the board its name.
    :param port: the broker's.
    :param slow: above how long a window a model has a thread of its own.
    :param log: how much the daemon says.
    :ivar places: of its models, in their order.
    """

    def __init__(
        self, directory: Path, port: int, *subjects: Subject, slow: str = "5 ms", log: str = "warning"
    ) -> None:
        self.directory = directory
        directory.mkdir()
        for role, name in (("publisher", "acme"), ("operator", "fleet"), ("hub", "home")):
            self._edged("keygen", role, "--id", name, "--no-passphrase")
        self._edged("keygen", "sensor", "--id", "sensor")
        self.places = [Place(directory, port, subject) for subject in subjects]
        models = json.dumps([subject.name for subject in subjects])
        config = _CONFIG.format(name=directory.name, port=port, models=models, slow=slow, log=log)
        for place in self.places:
            name, layout = place.subject.name, place.subject.layout
            config += _MODEL.format(name=name, topic=place.topic, layout=layout)
        (directory / "edged.toml").write_text(config)
        self._edged("init", "-c", "edged.toml", "-o", "board.enrol")
        for place in self.places:
            place.subject.write(place.model)
            self.install(place, 1)

    def install(self, place: Place, version: int) -> None:
        """Install the model under a version; a daemon takes it at the next SIGHUP."""
        subject, name = place.subject, place.subject.name
        np.savez(self.directory / f"{name}-windows.npz", windows=subject.windows)
        manifest = _MANIFEST.format(name=name, version=version, manifest=subject.manifest)
        (self.directory / f"{name}.toml").write_text(manifest)
        self._edged(
            "try", place.model, "-m", f"{name}.toml", "-i", f"{name}-windows.npz",
            "--record-self-test", f"{name}-selftest.npz",
        )  # fmt: skip
        self._edged(
            "pack", place.model, "--manifest", f"{name}.toml", "--sign", "acme.key", "--to", "board.enrol",
            "--operator", "fleet.pub", "-o", f"{name}-{version}.edged",
        )  # fmt: skip
        self._edged("install", f"{name}-{version}.edged", "-c", "edged.toml")

    def _edged(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "edged", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ProcessError(f"edged {' '.join(command[3:])} left with {done.returncode}: {done.stderr}")
