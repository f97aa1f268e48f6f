"""A board as its owner has it: a Debian host with the package, whose publisher and hub are elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from support.commands import Done
from support.hosts import Host
from support.site import Site

_CONFIG = "/etc/edged"
ON_BOARD = "/srv/edged.deb"
"""The package's place on a host that is to install it."""
_BROKER = "listener 1883\nallow_anonymous true\npersistence true\nmax_queued_messages 0\n"


class InstalledSite(Site):
    """A site whose board is ``host``, with a broker of its own on it.

    :param package: the .deb.
    """

    def __init__(self, path: Path, models: Path, host: Host, package: Path) -> None:
        super().__init__(path, models, f"mqtt://{host.address}:1883", name=host.name)
        self.host = host
        self.put(package, ON_BOARD)
        host.run("dpkg", "-i", ON_BOARD)
        (host.root / "etc/mosquitto/conf.d/edged.conf").write_text(_BROKER)
        host.run("systemctl", "enable", "--now", "mosquitto")

    def put(self, source: Path, target: str) -> None:
        """Copy a file onto the board."""
        where = self.host.root / target.lstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, where)

    def configure(self, *arguments: Any, **options: Any) -> Path:
        """As :meth:`Site.configure`, on the board."""
        config = super().configure(*arguments, **options)
        config.write_text(config.read_text().replace(f'state = "{self.state}"\n', ""))
        for name in ("edged.toml", "acme.pub", "home.pub", "sensor.key"):
            self.put(self.path / name, f"{_CONFIG}/{name}")
        self.host.run("chown", "edged:", f"{_CONFIG}/sensor.key")
        return config

    def init(self) -> Path:
        """Let the board make its keys, as its first boot does; return its record."""
        self.host.run("systemctl", "start", "edged-init")
        record = self.path / "board.enrol"
        shutil.copy(self.host.root / "var/lib/edged/keystore/device.enrol", record)
        return record

    def install(self, package: Path, **options: Any) -> Done:
        """Install a package on the board, as root."""
        there = f"/srv/{package.name}"
        self.put(package, there)
        return self.host.run("edged", "install", there, **options)

    def shows(self, *properties: str, unit: str = "edged") -> dict[str, str]:
        """Return what systemd says of a unit."""
        done = self.host.run("systemctl", "show", unit, f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def drop_in(self, text: str, *, unit: str = "edged.service", name: str = "test") -> None:
        """Change a unit as an administrator does."""
        folder = self.host.root / f"etc/systemd/system/{unit}.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.conf").write_text(text)
        self.host.run("systemctl", "daemon-reload")

    def journal(self, *arguments: str, unit: str = "edged") -> str:
        """Return what the journal has of a unit."""
        return self.host.run("journalctl", "--no-pager", f"--unit={unit}", *arguments).stdout
