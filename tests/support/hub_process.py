"""`edged hub` as systemd starts it, in a directory of its own, and what it says of itself."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edged.cose.keys import PublicKey
from edged.identity import Record, Role
from support.nats import quiet_ports
from support.site import run_edged

_PATIENCE = 30.0


class HubProcess:
    """A hub's directory and its process. It is not started yet.

    :param upstream: URLs of the brokers that boards' results come from.
    :param local: URL of the broker that gets them in plain.
    :param hub: further lines of [hub]; ``more_local``: of [local].
    :ivar boards: folder of enrolment records.
    :ivar state: its state.
    :ivar record: its public record.
    """

    def __init__(self, path: Path, *upstream: str, local: str, hub: str = "", more_local: str = "") -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        self.path = path
        self.boards = path / "boards"
        self.boards.mkdir(exist_ok=True)
        self.state = path / "state"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (self._port,) = quiet_ports(1)  # no client's: it is listened on again after each kill
        self._log_from = 0
        self.configure(*upstream, local=local, hub=hub, more_local=more_local)
        if not (self.state / "hub.pub").exists():
            run_edged("hub", "-c", "hub.toml", "init", cwd=path)
        self.record = Record.read(self.state / "hub.pub", Role.HUB)

    def configure(self, *upstream: str, local: str, hub: str = "", more_local: str = "") -> None:
        """Write hub.toml; the arguments are those of the constructor."""
        tables = "".join(f'\n[upstream.u{number}]\nurl = "{url}"\n' for number, url in enumerate(upstream))
        (self.path / "hub.toml").write_text(
            f'[hub]\nname = "{self.path.name}"\nstate = "state"\nboards = "boards"\n{hub}\n{tables}\n'
            f'[local]\nurl = "{local}"\n{more_local}\n[page]\naddress = "127.0.0.1:{self._port}"\n'
        )

    @property
    def key(self) -> PublicKey:
        """The key to seal to."""
        return self.record.sealing_key

    @property
    def log(self) -> str:
        """Everything that it logged."""
        path = self.path / "hub.log"
        return path.read_text() if path.exists() else ""

    @property
    def said(self) -> str:
        """What has been logged since a process was started last."""
        return self.log[self._log_from :]

    def enrol(self, record: Record, encoded: bytes) -> Path:
        """Put a board's record into the folder; it is read within a second."""
        path = self.boards / f"{record.id}.enrol"
        path.write_bytes(encoded)
        return path

    def begin(
        self, instance: str = "", *, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> socket.socket:
        """Start a process; return the socket on which it says that it is ready."""
        self._log_from = len(self.log)
        told = self.path / f"notify{instance}-{time.monotonic_ns()}"
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(str(told))
        if instance:  # one page is enough, and two would want one port
            text = (self.path / "hub.toml").read_text()
            (self.path / f"{instance}.toml").write_text(text[: text.index("[page]")])
        command = [*prefix, sys.executable, "-m", "edged", "hub", "-c", f"{instance or 'hub'}.toml"]
        with (self.path / "hub.log").open("ab") as log:
            self.processes[instance] = subprocess.Popen(
                [*command, *(("--instance", instance) if instance else ())],
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(told), **(environment or {})},
            )
        return notify

    def start(self, instance: str = "", **options: Any) -> None:
        """Start a process, and wait until it is READY.

        :raises AssertionError: it leaves, or is not ready in time.
        """
        process_said = self.begin(instance, **options)
        deadline = time.monotonic() + _PATIENCE
        with process_said:
            while time.monotonic() < deadline:
                if select.select([process_said], [], [], 0.1)[0]:
                    if b"READY=1" in process_said.recv(4096):
                        return
                elif (code := self.processes[instance].poll()) is not None:
                    raise AssertionError(f"the hub left with {code}:\n{self.log}")
        raise AssertionError(f"the hub is not ready within {_PATIENCE} s:\n{self.log}")

    def wait_left(self, instance: str = "", timeout: float = _PATIENCE) -> int:
        """Wait until it has ended by itself; return its exit code."""
        return self.processes.pop(instance).wait(timeout)

    def kill(self, instance: str = "") -> None:
        """End it as a power cut would."""
        process = self.processes.pop(instance)
        process.kill()
        process.wait()

    def stop(self, instance: str = "") -> int:
        """End it as systemd does; return its exit code."""
        process = self.processes.pop(instance)
        process.terminate()
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def close(self) -> None:
        """End all that runs."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.processes.clear()

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
        with opener.open(f"http://127.0.0.1:{self._port}/data.json", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)["hub"]
        return found

    def wait(self, holds: Callable[[dict[str, Any]], object], timeout: float = _PATIENCE) -> dict[str, Any]:
        """Wait until its status is as wanted, and return it."""
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            if holds(status):
                return status
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not come: {json.dumps(status, indent=1)}\n{self.log[-3000:]}")
            time.sleep(0.05)

    def board(self, device: str) -> dict[str, Any]:
        """Return what it says of a board."""
        return board_of(self.status(), device)


def board_of(status: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return what a status says of a board; empty if it does not know that."""
    return next((one for one in status["boards"] if one["device"] == device), {})
