"""A whole site in a temporary directory: publisher, operator, hub and board, made with the commands that users type."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edged.broker import Broker, BrokerOptions

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

_UNIT = Path(__file__).resolve().parents[2] / "systemd" / "edged.service"
UNIT_ENVIRONMENT = dict(
    pair.split("=", 1)
    for line in re.findall(r"^Environment=(.*)$", _UNIT.read_text(), re.MULTILINE)
    for pair in line.split()
)
"""What the unit gives the daemon."""


def run_edged(*arguments: object, cwd: Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command line of edged's."""
    command = [sys.executable, "-m", "edged", *map(str, arguments)]
    options.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **options)
    if check and done.returncode:
        raise AssertionError(f"edged {' '.join(map(str, arguments))} left with {done.returncode}:\n{done.stderr}")
    return done


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
        for role, owner in (("publisher", "acme"), ("operator", "fleet"), ("hub", "home")):
            self.edged("keygen", role, "--id", owner, "--no-passphrase")
        self.edged("keygen", "sensor", "--id", "sensor")

    def edged(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the site's directory."""
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
            golden = self.models / "gearbox" / "golden.npz"
            arguments = (
                "--manifest",
                "manifest.toml",
                "--input",
                golden,
                "--array",
                "raw_windows",
                "--labels",
                "raw_y",
            )
            self.edged("try", model, *arguments, "--record-self-test", "selftest.npz")
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

    def install(self, package: Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Install a package on the board."""
        return self.edged("install", package, "-c", "edged.toml", **options)

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
        broker = Broker(self.options())
        found: list[bytes] = []
        broker.on_message = lambda delivery: found.append(delivery.payload)
        broker.subscribe(topic, 0)
        broker.connect()
        deadline = time.monotonic() + 5
        while not found and time.monotonic() < deadline:
            broker.run_once(0.1)
        broker.close()
        return found[0] if found else b""

    @contextmanager
    def listener(
        self, count: int, timeout: float = 60, *, boards: Sequence[str] = ("board.enrol",)
    ) -> Iterator[ListenProcess]:
        """Run `edged listen`, believing the records ``boards``, until it has ``count`` results."""
        process = ListenProcess(self, count, timeout, boards)
        try:
            yield process
        finally:
            process.stop()


class DaemonProcess:
    """`edged run` as systemd starts it: with a notification socket, and standard error in a file."""

    def __init__(
        self,
        path: Path,
        *,
        environment: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        program: Sequence[str] = ("-m", "edged"),
    ) -> None:
        self.notify_path = path / f"notify-{time.monotonic_ns()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.notify_path))
        self.log_path = path / "daemon.log"
        self.states: list[str] = []
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, *program, "run", "-c", "edged.toml"],
                cwd=path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **UNIT_ENVIRONMENT, "NOTIFY_SOCKET": str(self.notify_path), **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything that it logged."""
        return self.log_path.read_text()

    def wait_for(self, wanted: str, timeout: float = 30) -> str:
        """Wait until a notification holds ``wanted``, and return it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            readable, _, _ = select.select([self._socket], [], [], 0.1)
            if readable:
                state = self._socket.recv(4096).decode()
                self.states.append(state)
                if wanted in state:
                    return state
            elif self.process.poll() is not None:
                raise AssertionError(f"the daemon left with {self.process.returncode}:\n{self.log}")
        raise AssertionError(f"no {wanted} within {timeout} s:\n{self.states}\n{self.log}")

    def wait_ready(self, timeout: float = 30) -> None:
        """Wait for READY=1."""
        self.wait_for("READY=1", timeout)

    def status(self, wanted: str, timeout: float = 30) -> str:
        """Wait for a status line that holds ``wanted``."""
        return self.wait_for(wanted, timeout)

    def reload(self) -> None:
        """Send SIGHUP and wait until it is done."""
        self.process.send_signal(signal.SIGHUP)
        self.wait_for("RELOADING=1")
        self.wait_ready()

    def stop(self) -> int:
        """End it with SIGTERM; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._socket.close()
        self.notify_path.unlink(missing_ok=True)
        return code


class ListenProcess:
    """`edged listen` in the background."""

    def __init__(self, site: Site, count: int, timeout: float, boards: Sequence[str]) -> None:
        command = [
            sys.executable, "-m", "edged", "listen", *site.connection(), "--hub-key", site.hub_key,
            *(part for board in boards for part in ("--board", board)), "-C", str(count), "-W", str(timeout), "-d",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=site.path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._timeout = timeout

    def wait_connected(self) -> None:
        """Wait until the board's announcement is believed: from then on no result is missed."""
        self.wait_said("announces epoch")

    def wait_said(self, wanted: str) -> str:
        """Wait until it logs ``wanted``, and return the line."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if wanted in line:
                return line
        raise AssertionError(f"edged listen left before it said {wanted!r}")

    def drain(self) -> None:
        """Read what it prints while it runs: a pipe holds 64 kB, and then it would stand still."""
        self._drained: list[str] = []
        stdout = self.process.stdout
        assert stdout is not None
        self._reader = threading.Thread(target=lambda: self._drained.extend(stdout), daemon=True)
        self._reader.start()

    def drained(self, count: int) -> list[dict[str, Any]]:
        """Wait for ``count`` results of a listener that is drained, end it, and return all that it printed."""
        deadline = time.monotonic() + self._timeout
        while len(self._drained) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # one too many would come now
        self.process.terminate()
        self._reader.join(10)
        self.process.wait(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return [json.loads(line) for line in self._drained]

    def results(self) -> list[dict[str, Any]]:
        """Wait until it leaves, and return what it printed."""
        out, self.errors = self.process.communicate(timeout=self._timeout + 20)
        return [json.loads(line) for line in out.splitlines()]

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
