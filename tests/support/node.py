"""Node.js for tests: examples/ laid out as npm lays them out, on packages that `make` installed; and a Node-RED."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.ports import quiet_port
from support.process import Listener, Server
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
    return f"no npm package {', '.join(missing)} in {packages()}: `make test-hub` installs them" if missing else None


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


class NodeRed(Server):
    """A headless Node-RED with a folder of its own, on a free port of the loopback; it asks nobody for updates.

    :param folder: its userDir; made if absent.
    :param nodes: a folder with a package of nodes, linked as `npm install` does it.
    """

    def __init__(self, folder: Path, nodes: Path) -> None:
        modules = folder / "node_modules"
        modules.mkdir(parents=True)
        (modules / json.loads((nodes / "package.json").read_text())["name"]).symlink_to(nodes)
        self._port = quiet_port()
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
        command = (
            "node",
            packages() / "node-red" / "red.js",
            "--userDir",
            folder,
            "--settings",
            folder / "settings.js",
        )
        super().__init__(command, {"HOME": str(folder)}, self._is_ready, folder / "node-red.log")

    def _is_ready(self) -> bool:
        """Return True once its flows run and its port is open: it may say the first before the second."""
        return "Started flows" in self.log and bool(self.nodes())

    def wait_for(self, wanted: str, *, times: int = 1) -> None:
        """Wait until it has said something so many times."""
        self.wait(lambda: self.log.count(wanted) >= times)

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


def listening(examples: Path, site: Site, *more: str, boards: Sequence[str] = ("board.enrol",)) -> Listener:
    """Return listen.mjs; it runs in a block."""
    program = ("node", examples / "javascript" / "listen.mjs")
    return Listener((*program, *site.listening(boards), "--debug", *more), site.path)
