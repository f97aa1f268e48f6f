"""A fleet as its operator has it: an inventory with keys, records and vaulted secrets, and real Ansible to run it with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trustme

from support.commands import Done, edged
from support.hosts import Fleet, Host, call
from support.site import GEARBOX
from support.waiting import wait_until

_PROJECT = Path(__file__).resolve().parents[2]
COLLECTION = _PROJECT / "deploy" / "ansible" / "edged" / "fleet"
_SECRETS = {
    "vault_broker_secret": "0f6b2f0f9b3c4a51a7f4c3d2e1908776",
    "vault_sensor_password": "sensor password",
    "vault_passphrase": "operator passphrase",
}
_SETTINGS = """
[defaults]
collections_path = collections
inject_facts_as_vars = false
home = .ansible
vault_password_file = vault-password

[connection]
pipelining = true
"""
_PLAIN_BROKER = "listener 1884 127.0.0.1\nallow_anonymous true\nuser root\n"
_RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


def ansible_bin() -> Path | None:
    """Return the directory of Ansible's programs; None where it was not installed."""
    folder = Path(os.environ.get("EDGED_ANSIBLE", _PROJECT / ".venv" / "ansible" / "bin"))
    return folder if (folder / "ansible-playbook").exists() else None


def _ansible() -> Path:
    folder = ansible_bin()
    assert folder is not None
    return folder


@dataclass(frozen=True)
class Played:
    """The outcome of a playbook.

    :ivar changed: how many tasks changed something, by host; ``failed``: hosts that failed or could not be reached.
    """

    code: int
    output: str
    seconds: float
    changed: dict[str, int]
    failed: set[str]

    @classmethod
    def read(cls, done: Done, seconds: float) -> Played:
        """Read the recap."""
        rows = _RECAP.findall(done.stdout)
        failed = {name for name, _, unreachable, failed in rows if int(unreachable) + int(failed)}
        return cls(done.returncode, done.stdout + done.stderr, seconds, {row[0]: int(row[1]) for row in rows}, failed)


class Operator:
    """Who runs the fleet: boards, and behind them one host with hub and broker.

    :param path: a new directory for the inventory, in a folder of its own, and all that belongs to it.
    :param package: the .deb.
    :cvar soak: seconds in which a wave has to prove itself.
    """

    soak = 8

    def __init__(self, path: Path, fleet: Fleet, package: Path) -> None:
        self.path = path
        self.inventory = path / "inventory"
        self.fleet = fleet
        *self.boards, self.home = fleet.hosts
        self.records = path / "records"
        self.version = package.name.split("_")[1].partition("~")[0]
        (path / "packages").mkdir(parents=True)
        (path / "ansible.cfg").write_text(_SETTINGS)
        shutil.copy(package, path / "packages")
        self._make_people()
        self._make_certificates()
        self._write_inventory()
        self._install_collection()
        self._start_local_broker()

    def _make_people(self) -> None:
        (self.path / "passphrase").write_text(_SECRETS["vault_passphrase"])
        (self.path / "sensor-password").write_text(_SECRETS["vault_sensor_password"])
        (self.path / "vault-password").write_text("vault password")
        for name in ("passphrase", "sensor-password", "vault-password"):
            (self.path / name).chmod(0o600)
        (self.path / "publishers").mkdir()
        self.edged("keygen", "publisher", "--id", "acme", "--no-passphrase")
        self.edged("keygen", "operator", "--id", "operator", "--passphrase-file", "passphrase")
        shutil.copy(self.path / "acme.pub", self.path / "publishers")

    def _make_certificates(self) -> None:
        authority = trustme.CA()
        server = authority.issue_cert(self.home.address)
        authority.cert_pem.write_to_path(self.path / "ca.crt")
        server.private_key_pem.write_to_path(self.path / "broker.key")
        server.cert_chain_pems[0].write_to_path(self.path / "broker.crt")

    def _write_inventory(self) -> None:
        groups = {"boards": self.boards, "hubs": [self.home], "brokers": [self.home]}
        text = self.fleet.inventory.read_text()
        for group, hosts in groups.items():
            text += "\n".join((f"[{group}]", *(host.name for host in hosts), ""))
        self.inventory.mkdir()
        (self.inventory / "hosts.ini").write_text(text)
        url = f"mqtts://{self.home.address}:8883"
        group_vars = self.inventory / "group_vars"
        (group_vars / "all").mkdir(parents=True)
        self._write_variables(
            group_vars / "all" / "main.yml",
            edged_version=self.version,
            edged_ca_file=f"{self.path}/ca.crt",
            edged_broker_url=url,
            edged_broker_secret="{{ vault_broker_secret }}",
            edged_operator_passphrase="{{ vault_passphrase }}",
            edged_command=[sys.executable, "-m", "edged"],
            edged_publishers={"acme": ["gearbox"]},
            edged_config={"device": {"clock": "trusted"}, "model": [self.model()]},
            edged_rollout_soak=self.soak,
            edged_least_free="50 MB",
        )
        self._write_variables(group_vars / "all" / "vault.yml", **_SECRETS)
        self._write_variables(
            group_vars / "brokers.yml",
            edged_broker_certificate_file=f"{self.path}/broker.crt",
            edged_broker_key_file=f"{self.path}/broker.key",
            edged_broker_users=[
                {"device": "sensor", "password": "{{ vault_sensor_password }}", "acl": ["write factory/#"]}
            ],
        )
        self._write_variables(
            group_vars / "hubs.yml",
            edged_hub_upstream_url=url,
            edged_hub_local_url="mqtt://127.0.0.1:1884",
            edged_hub_config={"home_assistant": {"discovery": False}},
        )
        for secret in (group_vars / "all" / "vault.yml", self.path / "broker.key"):
            self.run("ansible-vault", "encrypt", str(secret))

    def _write_variables(self, path: Path, **variables: Any) -> None:
        path.write_text(json.dumps(variables, indent=2))  # JSON is YAML

    def write_host_variables(self, host: Host, **variables: Any) -> None:
        """Say what holds for one host alone."""
        path = self.inventory / "host_vars" / f"{host.name}.yml"
        path.parent.mkdir(exist_ok=True)
        self._write_variables(path, **variables)

    def model(self, **change: Any) -> dict[str, Any]:
        """Return the boards' [[model]]; every board has a topic of its own."""
        table = {
            "name": "gearbox",
            "channel": "c1",
            "topic": "factory/{{ inventory_hostname }}/vibration",
            "format": "f32le",
            "each": "window",
        }
        return {**table, **change}

    def repackage(self, version: str, *, broken: bool = False) -> str:
        """Make packages of edged with another version, and return that; a broken one does not start."""
        for source in (self.path / "packages").glob(f"*_{self.version}~*.deb"):
            tree = self.path / "tree"
            call("dpkg-deb", "--raw-extract", source, tree)
            control = tree / "DEBIAN" / "control"
            control.write_text(control.read_text().replace(self.version, version))
            for code in tree.glob("usr/lib/edged/lib/python3*/site-packages/edged"):
                (code / "__init__.py").write_text(f'__version__ = "{version.partition("-")[0]}"\n')
                if broken:
                    (code / "board" / "daemon" / "process.py").write_text("raise SystemExit(70)\n")
            (tree / "DEBIAN" / "md5sums").unlink(missing_ok=True)
            target = source.with_name(source.name.replace(self.version, version))
            call("dpkg-deb", "-Zgzip", "-z1", "--build", tree, target)
            shutil.rmtree(tree)
        return version

    def _install_collection(self) -> None:
        self.run("ansible-galaxy", "collection", "install", str(COLLECTION), "-p", str(self.path / "collections"))

    def _start_local_broker(self) -> None:
        """Start the broker at home that gets results in plain; it must be another one than the boards'."""
        (self.home.root / "etc" / "local-broker.conf").write_text(_PLAIN_BROKER)
        self.home.run("systemd-run", "--unit=local-broker", "mosquitto", "-c", "/etc/local-broker.conf")

    def edged(self, *arguments: object) -> Done:
        """Run edged where Ansible runs, in this process: to make something."""
        return edged(*arguments, cwd=self.path)

    def run(self, program: str, *arguments: str, check: bool = True, days: int = 0) -> Done:
        """Run one of Ansible's programs where it can reach the hosts."""
        folder = _ansible()
        environment = {
            "ANSIBLE_CONFIG": str(self.path / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "LANG": "C.UTF-8",
            "PATH": f"{folder}:{os.environ['PATH']}",
        }
        clock = ("faketime", "-f", f"{days:+}d") if days else ()
        return self.fleet.controller(*clock, str(folder / program), *arguments, env=environment, check=check)

    def play(self, playbook: str, *arguments: str, check: bool = True, days: int = 0, **variables: Any) -> Played:
        """Run one of the collection's playbooks.

        :param days: how far the clock is off where Ansible runs.
        """
        extra = ("-e", json.dumps(variables)) if variables else ()
        started = time.monotonic()
        command = ("-i", str(self.inventory / "hosts.ini"), f"edged.fleet.{playbook}", *extra, *arguments)
        done = self.run("ansible-playbook", *command, check=False, days=days)
        played = Played.read(done, time.monotonic() - started)
        assert not check or played.code == 0, played.output
        return played

    @property
    def secrets(self) -> list[str]:
        """The words in the vault."""
        return list(_SECRETS.values())

    def broker_password(self, board: Host) -> str:
        """Return a board's password at the broker."""
        code = (
            "from ansible_collections.edged.fleet.plugins.filter.passwords import broker_password as p; print(p(*{!r}))"
        )
        words = (_SECRETS["vault_broker_secret"], board.name)
        environment = {"PYTHONPATH": str(self.path / "collections")}
        return call(_ansible() / "python", "-c", code.format(words), env=environment).stdout.strip()

    def record_self_test(self, weights: Path, windows: Path, vectors: Path, *, only: int | None = None) -> None:
        """Record self-test vectors as the publisher does; ``only``: one window, with the model's answer to it."""
        (self.path / "model.toml").write_text(GEARBOX.format(version=1))
        source = ("--input", windows, "--array", "raw_windows", "--labels", "raw_y")
        said = self.edged("try", weights, "-m", "model.toml", *source, "--record-self-test", vectors).stdout
        if only is not None:
            scores = json.loads(said.splitlines()[only])["scores"]
            with np.load(windows) as golden:
                np.savez(vectors, windows=golden["raw_windows"][only : only + 1], scores=np.array([scores], "f"))

    def check(self, board: Host) -> str:
        """Return what `edged check` finds, as the daemon's user with its credentials."""
        credential = "mqtt-password:/etc/edged/credentials/mqtt-password"
        properties = ("-p", "User=edged", "-p", f"LoadCredentialEncrypted={credential}")
        command = ("systemd-run", "--quiet", "--pipe", "--wait", *properties, "edged", "check", "--json")
        return board.run(*command, check=False).stdout

    def pack(
        self,
        weights: Path,
        version: int,
        self_test: Path,
        *,
        tolerance: float = 0.02,
        more: str = "",
        key: str = "acme.key",
    ) -> Path:
        """Return a package that the publisher signed, sealed to the operator and to one board."""
        shutil.copy(self_test, self.path / "vectors.npz")
        manifest = GEARBOX.format(version=version).replace("selftest.npz", "vectors.npz")
        (self.path / "model.toml").write_text(manifest.replace("0.02", str(tolerance)) + more)
        package = self.path / f"gearbox-{version}.edged"
        record = self.records / f"{self.boards[0].name}.enrol"
        self.edged(
            "pack", weights, "-m", "model.toml", "--sign", key, "--to", record, "--operator", "operator.pub",
            "-o", package,
        )  # fmt: skip
        return package

    @contextmanager
    def readings(self, windows: Path, boards: Sequence[Host], rate: float = 10) -> Iterator[None]:
        """Play windows to boards for as long as the block lasts, over and over."""
        names = " ".join(board.name for board in boards)
        program = f"{sys.executable} -m edged"
        connection = f"-L mqtts://{self.home.address}:8883 --cafile ca.crt -u sensor -P sensor-password"
        source = f"{windows} --array raw_windows --each window --format f32le --rate {rate}"
        loop = f"while :; do for b in {names}; do {program} send {source} -t factory/$b/vibration {connection} & done; wait; done"
        enter = ["ip", "netns", "exec", self.fleet.bridge, "bash", "-c", loop]
        process = subprocess.Popen(
            enter,
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def status(self, board: Host) -> dict[str, Any]:
        """Return what a board says of itself."""
        return json.loads(board.run("edged", "status", "--json").stdout)  # type: ignore[no-any-return]

    def believed(self) -> dict[str, dict[str, Any]]:
        """Return what the hub says of the boards, by name."""
        said = self.home.run("runuser", "-u", "edged-hub", "--", "edged", "hub", "devices", "--json").stdout
        return {one["device"]: one for one in json.loads(said)}

    def wait_forgotten(self, board: Host) -> None:
        """Wait until the hub says that it does not believe a board; it says how it is every few seconds."""
        wait_until(lambda: board.name not in self.believed(), every=0.5, told=lambda: f"it still believes {board.name}")

    def opened(self, board: Host) -> int:
        """Return how many results of a board the hub has opened."""
        return int(self.believed().get(board.name, {}).get("opened", 0))

    def wait_opened(self, board: Host, count: int) -> None:
        """Wait until the hub has opened so many results of a board."""
        told = lambda: f"{count} results of {board.name}: {self.believed()}"  # noqa: E731
        wait_until(lambda: self.opened(board) >= count, every=0.5, told=told)
