"""Debian hosts with real systemd, in containers on a bridge of their own that leads nowhere else; gone with their test.

What the kernel does is shared: one clock, one page cache. So killing a host proves nothing of fsync, and no test may set
the clock in one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from support.cgroups import Cgroups
from support.commands import Done
from support.process import children
from support.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[2] / ".venv" / "hosts" / "12" / "root"
_SSH = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LEAST = 10
"""The last number of the address of the host before the first."""


def host_root() -> Path | None:
    """Return the root file system that hosts are made of; None where `make hosts` has not made it."""
    root = Path(os.environ.get("EDGED_HOST_ROOT", _ROOT))
    return root if (root / "sbin" / "init").exists() else None


def host_release() -> str:
    """Return the Debian release of hosts: "12"; empty where there can be none."""
    root = host_root()
    lines = [] if root is None else (root / "etc/os-release").read_text().splitlines()
    return next((line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_ID=")), "")


class Host:
    """One host.

    :ivar name: its host name, too.
    :ivar root: its file system, seen from outside.
    """

    def __init__(self, directory: Path, name: str, address: str, known: Mapping[str, str], bridge: str) -> None:
        self.name = name
        self._network = f"{name}-{_tag(directory)}"
        self.address = address
        self.root = directory / "root"
        self._directory = directory
        self._known = known
        self._bridge = bridge
        self._cgroups = Cgroups(self._network)
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def make(self, lower: Path, public_key: Path) -> None:
        """Lay its file system over ``lower``, plug it into the bridge, and boot it."""
        upper, work = self._directory / "upper", self._directory / "work"
        for path in (upper, work, self.root):
            path.mkdir(parents=True)
        layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
        call("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        (self.root / "etc/hostname").write_text(f"{self.name}\n")
        names = [f"{address} {name}" for name, address in self._known.items()]
        (self.root / "etc/hosts").write_text("\n".join(("127.0.0.1 localhost", *names, "")))
        keys = self.root / "root/.ssh"
        keys.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(public_key, keys / "authorized_keys")
        cable = f"v{self.name}"
        call("ip", "netns", "add", self._network)
        here, there = ("eth0", "netns", self._network), (cable, "netns", self._bridge)
        call("ip", "link", "add", *here, "type", "veth", "peer", "name", *there)
        _ip(self._bridge, "link", "set", cable, "master", "br0", "up")
        _ip(self._network, "link", "set", "lo", "up")
        _ip(self._network, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip(self._network, "link", "set", "eth0", "up")
        self.boot()

    def boot(self) -> None:
        """Boot it; :meth:`wait` waits until that is done."""
        command = ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot", "--register=no", "--keep-unit"]
        command += [f"--machine={self.name}", f"--hostname={self.name}", "--resolv-conf=off", "--timezone=off"]
        command += [f"--network-namespace-path=/run/netns/{self._network}", "--link-journal=no", "--console=pipe"]
        # mlock(2), and what IPAddressDeny= is made of
        command += ["--capability=CAP_IPC_LOCK,CAP_BPF,CAP_PERFMON", "--system-call-filter=bpf"]
        with (self._directory / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                self._cgroups.entering(*command),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def start(self) -> None:
        """Boot it and wait until its services run."""
        self.boot()
        self.wait()

    def wait(self) -> None:
        """Wait until its boot is done, whether or not each of its services runs."""
        self._leader = 0
        wait_until(self._has_booted, every=0.1, told=self._console)
        if self._cgroups.hand_over(self._leader):
            self._inside("systemctl", "daemon-reexec")

    def _has_booted(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._console()
        self._leader = self._leader or _init_of(self._process.pid)
        return bool(self._leader) and self._state() in {"running", "degraded"}

    def _console(self) -> str:
        return (self._directory / "console.log").read_text(errors="replace")[-2000:]

    def _state(self) -> str:
        return self._inside("systemctl", "is-system-running").stdout.strip()

    def _enter(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self._leader), "-a", "--", *command]

    def _inside(self, *command: str) -> Done:
        return call(*self._enter(*command), check=False, timeout=60)

    def run(self, *command: str, check: bool = True, timeout: float = 120.0, **options: str) -> Done:
        """Run a command as root under its systemd, with its capabilities and limits.

        :param options: ``input``, as that of :func:`subprocess.run`.
        """
        # a bare nsenter would keep this machine's capabilities: `date --set` would set the one clock that all share
        as_service = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect")
        surroundings = (f"--setenv=PATH={_PATH}", "--setenv=HOME=/root", "--setenv=LANG=C.UTF-8")
        enter = self._enter(*as_service, *surroundings, "--", *command)
        return call(*enter, check=check, timeout=timeout, **options)

    def add_address(self, address: str) -> None:
        """Give it one more address."""
        _ip(self._network, "address", "replace", f"{address}/32", "dev", "lo")

    def kill(self) -> None:
        """End every process at once, as a power cut does; its disk stays."""
        if self._leader:  # 0, before it has booted, would be this process and all of its group
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, 9)
        elif self._process is not None:
            self._process.kill()
        self._end()

    def power_off(self) -> None:
        """Shut it down."""
        self._inside("systemctl", "poweroff")
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._cgroups.remove()

    def remove(self) -> None:
        """Take it away with all that it holds."""
        if self._process is not None:
            self.kill()
        call("ip", "netns", "del", self._network, check=False)
        call("umount", "--lazy", self.root, check=False)
        shutil.rmtree(self._directory, ignore_errors=True)


class Fleet:
    """Hosts that can reach each other, and a place for Ansible that can reach them.

    :param count: how many.
    :param name: what their names begin with; fleets that are up at the same time need names of their own.
    :param net: the first three numbers of their addresses.
    :ivar bridge: the network namespace of the bridge, where the Ansible controller sits, too.
    """

    def __init__(self, count: int, *, name: str = "board", net: str = "10.77.0") -> None:
        root = host_root()
        assert root is not None, "no root file system: `make hosts` makes it"
        self._lower = root
        self._address = f"{net}.1"
        self._directory = Path(tempfile.mkdtemp(prefix=f"edged-{name}-", dir="/var/tmp"))
        self.bridge = f"{name}lab-{_tag(self._directory / name)}"
        known = {f"{name}{number}": f"{net}.{_LEAST + number}" for number in range(1, count + 1)}
        self.hosts = [Host(self._directory / one, one, at, known, self.bridge) for one, at in known.items()]
        self.key = self._directory / "key"
        self.inventory = self._directory / "hosts.ini"

    def __enter__(self) -> Self:
        try:
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
            call("ip", "netns", "add", self.bridge)
            _ip(self.bridge, "link", "set", "lo", "up")
            _ip(self.bridge, "link", "add", "br0", "type", "bridge")
            _ip(self.bridge, "addr", "add", f"{self._address}/24", "dev", "br0")
            _ip(self.bridge, "link", "set", "br0", "up")
            for host in self.hosts:
                host.make(self._lower, self.key.with_suffix(".pub"))
            for host in self.hosts:
                host.wait()
            self.inventory.write_text("\n".join((*self._lines(), "")))
        except BaseException:
            self.__exit__()
            raise
        return self

    def _lines(self) -> Iterator[str]:
        yield "[all]"
        yield from (f"{host.name} ansible_host={host.address}" for host in self.hosts)
        yield "[all:vars]"
        yield "ansible_user=root"
        yield "ansible_python_interpreter=/usr/bin/python3"
        yield f"ansible_ssh_private_key_file={self.key}"
        yield f"ansible_ssh_common_args='{_SSH}'"

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.remove()
        call("ip", "netns", "del", self.bridge, check=False)
        shutil.rmtree(self._directory, ignore_errors=True)

    def controller(self, *command: str, timeout: float = 600.0, **options: Any) -> Done:
        """Run a command where it can reach the hosts: on this machine, in the bridge's network."""
        return call("ip", "netns", "exec", self.bridge, *command, timeout=timeout, **options)


def call(*command: object, check: bool = True, env: Mapping[str, str] | None = None, **options: Any) -> Done:
    """Run a program of this machine; where it fails, all that it said is shown.

    :param env: beside this process's environment.
    """
    options = {"timeout": 120, **options}
    options |= {} if "input" in options else {"stdin": subprocess.DEVNULL}
    words = [*map(str, command)]
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, **options)
    assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def _tag(directory: Path) -> str:
    """Tell the networks of two runs apart: also from those that a killed run left behind."""
    return directory.parent.name.rpartition("-")[2]


def _init_of(pid: int) -> int:
    """Return the first process of the container that ``pid`` runs; 0 while there is none.

    It is not always systemd-nspawn's first child: an earlier one lays out the file system, and ends.
    """
    with contextlib.suppress(OSError):
        for child in children(pid):
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return child
    return 0


def _ip(namespace: str, *words: str) -> None:
    call("ip", "-n", namespace, *words)
