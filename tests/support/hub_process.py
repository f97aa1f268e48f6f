"""`edged hub` in a directory of its own, and what it says of itself."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edged.formats.identity import Record, Role
from edged.keystore.records import read_record
from support.commands import edged, run_edged
from support.ports import quiet_port
from support.process import Service
from support.waiting import PATIENCE, wait_until


class HubProcess:
    """A hub's directory and its processes, by instance. None is started yet.

    :param upstream: URLs of the brokers that boards' results come from.
    :param local: URL of the broker that gets them in plain.
    :param hub: further lines of [hub]; ``more_local``: of [local].
    :ivar boards: folder of enrolment records.
    :ivar state: its state.
    :ivar record: its public record.
    :ivar port: of its page.
    """

    def __init__(self, path: Path, *upstream: str, local: str, hub: str = "", more_local: str = "") -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        self.path = path
        self.boards = path / "boards"
        self.boards.mkdir(exist_ok=True)
        self.state = path / "state"
        self.processes: dict[str, Service] = {}
        self._last: Service | None = None
        self.port = quiet_port()
        self.configure(*upstream, local=local, hub=hub, more_local=more_local)
        if not (self.state / "hub.pub").exists():
            edged("hub", "-c", "hub.toml", "init", cwd=path)
        self.record = read_record(self.state / "hub.pub", Role.HUB)

    def configure(self, *upstream: str, local: str, hub: str = "", more_local: str = "") -> None:
        """Write hub.toml; the arguments are those of the constructor."""
        tables = "".join(f'\n[upstream.u{number}]\nurl = "{url}"\n' for number, url in enumerate(upstream))
        (self.path / "hub.toml").write_text(
            f'[hub]\nname = "{self.path.name}"\nstate = "state"\nboards = "boards"\n{hub}\n{tables}\n'
            f'[local]\nurl = "{local}"\n{more_local}\n[page]\naddress = "127.0.0.1:{self.port}"\n'
        )

    @property
    def log(self) -> str:
        """Everything that it logged."""
        path = self.path / "hub.log"
        return path.read_text() if path.exists() else ""

    @property
    def said(self) -> str:
        """Log of the process that was started last."""
        return self._last.said if self._last else ""

    def enrol(self, record: Record, encoded: bytes) -> Path:
        """Put a board's record into the folder; it is read within a second."""
        path = self.boards / f"{record.id}.enrol"
        path.write_bytes(encoded)
        return path

    def begin(
        self, instance: str = "", *, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Service:
        """Start a process."""
        if instance:  # one page is enough, and two would want one port
            text = (self.path / "hub.toml").read_text()
            (self.path / f"{instance}.toml").write_text(text[: text.index("[page]")])
        command = [*prefix, sys.executable, "-m", "edged", "hub", "-c", f"{instance or 'hub'}.toml"]
        named = ("--instance", instance) if instance else ()
        process = self._last = self.processes[instance] = Service([*command, *named], self.path, "hub", environment)
        return process

    def start(self, instance: str = "", **options: Any) -> Service:
        """Start a process, and wait until it is READY."""
        process = self.begin(instance, **options)
        process.wait_ready()
        return process

    def kill(self, instance: str = "") -> None:
        """End it as a power cut would."""
        self.processes.pop(instance).kill()

    def stop(self, instance: str = "") -> int:
        """End it as systemd does; return its exit code."""
        return self.processes.pop(instance).stop()

    def close(self) -> None:
        """End all that runs."""
        while self.processes:
            self.processes.popitem()[1].kill()

    @property
    def rss_anon(self) -> int:
        """Bytes of memory that are the process's own."""
        status = Path(f"/proc/{self.processes[''].pid}/status").read_text()
        return 1024 * int(re.findall(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)[0])

    def command(self, name: str) -> Any:  # noqa: ANN401  JSON
        """Return what `edged hub NAME --json` prints: a few seconds old."""
        return json.loads(run_edged("hub", "-c", "hub.toml", name, "--json", cwd=self.path).stdout)

    def status(self) -> dict[str, Any]:
        """Return what `edged hub status --json` would tell, from the page: a second or two old."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/data.json", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)["hub"]
        return found

    def wait(self, holds: Callable[[dict[str, Any]], object], timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait until its status is as wanted, and return it."""
        status: dict[str, Any] = {}

        def look() -> dict[str, Any]:
            nonlocal status
            status = self.status()
            return status if holds(status) else {}

        return wait_until(look, timeout, every=0.05, told=lambda: f"{json.dumps(status, indent=1)}\n{self.log[-3000:]}")

    def board(self, device: str) -> dict[str, Any]:
        """Return what it says of a board."""
        return board_of(self.status(), device)


def board_of(status: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return what a status says of a board; empty if it does not know that."""
    return next((one for one in status["boards"] if one["device"] == device), {})
