"""A whole site in a temporary directory: publisher, operator, hub and board, made with the commands that users type."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edged.broker import BrokerOptions
from support.broker import Client, spin
from support.commands import Done, edged, run_edged
from support.process import DaemonProcess, Listener

GEARBOX = """
name = "gearbox"
version = {version}
summary = "Gearbox fault from four accelerometers"

[input]
channels = ["a1", "a2", "a3", "a4"]
missing = "refuse"
nan = "refuse"

[window]
size = 300

[features]
use = ["sum_abs", {{ name = "std", ddof = 1 }}, "max", {{ name = "kurtosis", bias = false }}]

[output]
kind = "classifier"
labels = ["healthy", "broken"]

[publish]
when = "window"

[self_test]
file = "selftest.npz"
tolerance = 0.02
"""


@cache
def _people() -> tempfile.TemporaryDirectory[str]:
    """Make the keys of everybody at a site but its board, once for all sites of this process."""
    folder = tempfile.TemporaryDirectory(prefix="edged-people-")
    for role, owner in (("publisher", "acme"), ("operator", "fleet"), ("hub", "home")):
        edged("keygen", role, "--id", owner, "--no-passphrase", cwd=Path(folder.name))
    edged("keygen", "sensor", "--id", "sensor", cwd=Path(folder.name))
    return folder


@cache
def _self_test(weights: Path, golden: Path) -> bytes:
    """Record what a gearbox model answers, once for all sites of this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "manifest.toml").write_text(GEARBOX.format(version=1))
        known = ("-i", golden, "--array", "raw_windows", "--labels", "raw_y")
        edged("try", weights, "-m", "manifest.toml", *known, "--record-self-test", "selftest.npz", cwd=path)
        return (path / "selftest.npz").read_bytes()


def board_name(test: str) -> str:
    """Return a name for the board of a test, by its id: tests share brokers, and no two of them a topic."""
    return f"press-{zlib.crc32(test.encode()):08x}"


class Site:
    """Keys, records, configuration and packages under ``path``.

    :param name: the board's.
    :param url: the broker's URL; ``tls`` holds ca, cert and key files where it speaks TLS.
    """

    publisher_key = "acme.key"
    hub_key = "home.key"

    def __init__(
        self, path: Path, models: Path, url: str, tls: dict[str, Path] | None = None, *, name: str = "press-07"
    ) -> None:
        self.name = name
        self.topic = f"factory/{name}/vibration"
        self.path = path
        self.models = models
        self.url = url
        self.tls = tls or {}
        self.state = path / "state"
        for file in Path(_people().name).iterdir():
            shutil.copy(file, path)

    def edged(self, *arguments: object, check: bool = True) -> Done:
        """Run a command in the site's directory and this process: to make something, or to look at it."""
        return edged(*arguments, cwd=self.path, check=check)

    def run(self, *arguments: object, **options: Any) -> Done:
        """Run a command in the site's directory as users do: it is under test."""
        return run_edged(*arguments, cwd=self.path, **options)

    def configure(
        self, model: str = "", *, extra: str = "", engine: str = "auto", name: str = "gearbox", more: str = ""
    ) -> Path:
        """Write the board's configuration; ``model`` goes into its [[model]] table behind name, channel and topic.

        :param more: further [[model]] tables.
        """
        tls = "".join(f'{key} = "{path}"\n' for key, path in self.tls.items())
        topic = "" if re.search(r"^topics? ?=|^\[model.topics\]", model, re.MULTILINE) else f'topic = "{self.topic}"'
        config = self.path / "edged.toml"
        config.write_text(
            f"""
[device]
name = "{self.name}"
state = "{self.state}"

[broker]
url = "{self.url}"
{tls}
[publishers.acme]
key = "acme.pub"
models = [{", ".join(f'"{one}"' for one in dict.fromkeys((name, *re.findall(r'^name = "(.*)"', more, re.MULTILINE))))}]

[results]
hubs = ["home.pub"]

[runtime]
engine = "{engine}"

{extra}

[[model]]
name = "{name}"
channel = "c1"
{topic}
{model}
{more}
"""
        )
        return config

    def init(self) -> Path:
        """Make the board's keys; return its record."""
        self.edged("init", "-c", "edged.toml", "-o", "board.enrol")
        return self.path / "board.enrol"

    def pack(
        self, *, version: int = 1, weights: Path | None = None, manifest: str = GEARBOX, output: str | None = None
    ) -> Path:
        """Pack the gearbox model for the board and the operator."""
        (self.path / "manifest.toml").write_text(manifest.format(version=version))
        model = weights or self.models / "gearbox" / "dnn.tflite"
        if not (self.path / "selftest.npz").exists():
            vectors = _self_test(model, self.models / "gearbox" / "golden.npz")
            (self.path / "selftest.npz").write_bytes(vectors)
        output = output or f"gearbox-{version}.edged"
        self.edged(
            "pack", model, "--manifest", "manifest.toml", "--sign", self.publisher_key, "--to", "board.enrol",
            "--operator", "fleet.pub", "-o", output,
        )  # fmt: skip
        return self.path / output

    def pack_example(self, manifest: str, weights: str, samples: dict[str, Any]) -> Path:
        """Record self-test vectors from ``samples`` and pack a model with its manifest.

        :param manifest: TOML without [self_test].
        :param weights: of a model, below the folder of real models.
        :param samples: arrays, of which ``x`` holds rows or windows.
        """
        name = re.search(r'^name = "(.*)"', manifest, re.MULTILINE)[1]  # type: ignore[index]
        file, model = self.path / f"{name}.toml", self.models / weights
        file.write_text(manifest)
        np.savez(self.path / f"{name}.npz", **samples)
        vectors = self.path / f"{name}-vectors.npz"
        self.edged("try", model, "-m", file, "-i", f"{name}.npz", "--array", "x", "--record-self-test", vectors)
        file.write_text(f'{manifest}\n[self_test]\nfile = "{vectors.name}"\ntolerance = 0.05\n')
        package = self.path / f"{name}-1.edged"
        self.edged("pack", model, "-m", file, "--sign", "acme.key", "--to", "board.enrol", "-o", package)
        return package

    def install(self, package: Path, *, check: bool = True) -> Done:
        """Install a package on the board."""
        return self.edged("install", package, "-c", "edged.toml", check=check)

    @contextmanager
    def daemon(self, **options: Any) -> Iterator[DaemonProcess]:
        """Run the daemon until the block ends; it is READY at the start of the block."""
        process = DaemonProcess(self.path, **options)
        try:
            process.wait_ready()
            yield process
        finally:
            process.stop()

    def connection(self) -> list[str]:
        """Return the connection options of `edged listen` and `edged send`."""
        names = {"ca": "--cafile", "cert": "--cert", "key": "--key"}
        return ["-L", self.url, *(str(part) for key, path in self.tls.items() for part in (names[key], path))]

    def options(self, **change: Any) -> BrokerOptions:
        """Return how a test itself connects to the broker."""
        return BrokerOptions(**{"url": self.url, **self.tls, "session_expiry": 0, **change})

    def retained(self, topic: str) -> bytes:
        """Return what the broker retains on ``topic``; empty for nothing."""
        client = Client(self.options())
        client.subscribe(topic, 1)
        client.subscribe(f"{topic}/fence", 1)
        client.connect()
        try:
            spin(client, until=lambda: client.hears)
            client.publish(f"{topic}/fence", b"", qos=1)  # what is retained comes before it
            spin(client, until=lambda: any(not delivery.retain for delivery in client.deliveries))
            return next((one.payload for one in client.deliveries if one.retain), b"")
        finally:
            client.close()

    @contextmanager
    def listener(
        self, count: int, timeout: float = 60, *, boards: Sequence[str] = ("board.enrol",)
    ) -> Iterator[Listener]:
        """Run `edged listen`, believing the records ``boards``, until it has ``count`` results."""
        command = [sys.executable, "-m", "edged", "listen", *self.listening(boards), "-C", count, "-W", timeout, "-d"]
        with Listener(command, self.path) as listener:
            yield listener

    def listening(self, boards: Sequence[str]) -> list[str]:
        """Return the options with which a listener opens the results of ``boards``."""
        believed = (part for board in boards for part in ("--board", board))
        return [*self.connection(), "--hub-key", self.hub_key, *believed]


def run_loop(site: Site) -> None:
    """Install the gearbox's model, send every window, and check every answer."""
    site.install(site.pack())
    with np.load(site.models / "gearbox" / "golden.npz") as golden:
        right = golden["raw_y"]
    with site.daemon() as daemon, site.listener(len(right)) as listener:
        listener.wait_connected()
        source = site.models / "gearbox" / "golden.npz"
        rows = ("--array", "raw_windows", "--names", "a1,a2,a3,a4", "-t", site.topic)
        site.edged("send", source, *rows, *site.connection())
        results = listener.results()
        assert daemon.stop() == 0
    assert [result["label"] for result in results] == [("healthy", "broken")[y] for y in right]
    assert "Traceback" not in daemon.log
