"""Node.js for tests: examples/ laid out as npm lays them out, on packages that `make` installed; and a Node-RED."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.site import Site

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
_OLDEST = 20


def packages() -> Path:
    """Return the folder of npm packages: the one that EDGED_NODE names, or `make`'s."""
    return Path(os.environ.get("EDGED_NODE", REPOSITORY / ".venv" / "node" / "node_modules"))


def cannot_node(*wanted: str) -> str | None:
    """Return why tests that need the npm packages ``wanted`` cannot run; None if they can."""
    node = shutil.which("node")
    if node is None:
        return "node is not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < _OLDEST:
        return f"node is {version.strip()}, and the examples need {_OLDEST} or newer"
    missing = [name for name in wanted if not (packages() / name / "package.json").exists()]
    return f"no npm package {', '.join(missing)} in {packages()}: `make test` installs them" if missing else None


def lay_out(folder: Path) -> Path:
    """Copy the examples into ``folder`` and give them what `npm install` would; return the copy."""
    copy = folder / "examples"
    unwanted = shutil.ignore_patterns("node_modules", "package-lock.json")
    for name in ("javascript", "node-red"):
        shutil.copytree(EXAMPLES / name, copy / name, ignore=unwanted)
        (copy / name / "node_modules").mkdir()
    for name in ("cbor-x", "mqtt"):
        (copy / "javascript" / "node_modules" / name).symlink_to(packages() / name)
    (copy / "node-red" / "node_modules" / "edged-results").symlink_to(copy / "javascript")
    return copy


class NodeRed:
    """A headless Node-RED with a folder of its own, on a free port of the loopback; it asks nobody for updates.

    :param folder: its userDir; made if absent.
    :param nodes: a folder with a package of nodes, linked as `npm install` does it.
    """

    def __init__(self, folder: Path, nodes: Path) -> None:
        self._folder = folder
        modules = folder / "node_modules"
        modules.mkdir(parents=True)
        (modules / json.loads((nodes / "package.json").read_text())["name"]).symlink_to(nodes)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        settings = {
            "uiHost": "127.0.0.1",
            "uiPort": self._port,
            "flowFile": "flows.json",
            "credentialSecret": False,
            "telemetry": {"enabled": False, "updateNotification": False},
            "editorTheme": {"tours": False, "palette": {"catalogues": []}},
            "externalModules": {"autoInstall": False, "palette": {"allowInstall": False}},
            "logging": {"console": {"level": "info", "metrics": False, "audit": False}},
        }
        (folder / "settings.js").write_text(f"module.exports = {json.dumps(settings)}\n")
        self._log = folder / "node-red.log"

    @property
    def log(self) -> str:
        """Everything that it has said."""
        return self._log.read_text()

    def __enter__(self) -> Self:
        program = packages() / "node-red" / "red.js"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["node", program, "--userDir", self._folder, "--settings", self._folder / "settings.js"],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(self._folder)},
            )
        try:
            self.wait_for("Started flows", timeout=60)
        except AssertionError:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def wait_for(self, wanted: str, *, times: int = 1, timeout: float = 30) -> None:
        """Wait until it has said something so many times."""
        deadline = time.monotonic() + timeout
        while self.log.count(wanted) < times:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Node-RED does not say {wanted!r}:\n{self.log}")
            time.sleep(0.05)

    def nodes(self) -> list[dict[str, Any]]:
        """Return what it knows of each set of nodes."""
        found: list[dict[str, Any]] = self._ask("nodes")
        return found

    def deploy(self, flows: list[dict[str, Any]]) -> None:
        """Deploy flows through the admin API, and wait until they run."""
        started = self.log.count("Started flows")
        self._ask("flows", flows)
        self.wait_for("Started flows", times=started + 1)

    def _ask(self, what: str, body: object = None) -> Any:  # noqa: ANN401  JSON
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/{what}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Accept": "application/json", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"Node-RED refuses {what}: {error.read().decode()}") from error
        return json.loads(answer) if answer else None

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Listening:
    """examples/javascript/listen.mjs as a process: what it has printed, and said on standard error, so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.printed: list[dict[str, Any]] = []
        self.said: list[str] = []
        self._process = process
        self._threads = [
            threading.Thread(target=lambda: self.printed.extend(map(json.loads, process.stdout or ())), daemon=True),
            threading.Thread(target=lambda: self.said.extend(process.stderr or ()), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def wait_said(self, wanted: str, times: int = 1) -> None:
        """Wait until it says something, on standard error, for the so manieth time."""
        self._wait(lambda: sum(wanted in line for line in self.said) >= times, wanted)

    def wait_printed(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many results."""
        self._wait(lambda: len(self.printed) >= count, f"{count} results")
        return self.printed

    def wait_left(self) -> int:
        """Wait until it leaves by itself; return its exit code."""
        code = self._process.wait(30)
        for thread in self._threads:
            thread.join(10)
        return code

    def _wait(self, until: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not until():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"no {what}: printed {self.printed}, said {self.said}")
            time.sleep(0.02)


@contextmanager
def listening(examples: Path, site: Site, *more: str, boards: Sequence[str] = ("board.enrol",)) -> Iterator[Listening]:
    """Run listen.mjs until the block ends."""
    command = [
        "node", examples / "javascript" / "listen.mjs", *site.connection(), "--hub-key", site.hub_key,
        *(part for board in boards for part in ("--board", board)), "--debug", *more,
    ]  # fmt: skip
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=site.path, text=True, **pipes) as process:
        try:
            yield Listening(process)
        finally:
            process.kill()
