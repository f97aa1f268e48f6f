"""The Debian package through its life: on a host without a network, with nothing but what Debian has on a small board."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.config.load import load_board, load_hub
from support.hosts import Fleet, Host, host_release
from support.installed import ON_BOARD, InstalledSite
from support.waiting import wait_until

UNITS = ("edged", "edged-hub", "edged-init", "edged-hub-init")
RECORD = "var/lib/edged/keystore/device.enrol"
PASSING = ("dev", "proc", "run", "sys", "tmp", "var/cache", "var/log", "var/tmp", "root", "srv")
"""These come and go with a running host, whatever is installed."""
DEBIAN_KEEPS = {
    "etc/.pwd.lock",  # users stay, so that their numbers do not come to belong to somebody else
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
}


@pytest.fixture
def host() -> Iterator[Host]:
    """A host that nobody has touched."""
    with Fleet(1, name="deb", net="10.75.0") as running:
        host = running.hosts[0]
        assert "default" not in host.run("ip", "route").stdout, "this is to be shown without a network"
        yield host


@pytest.fixture
def site(host: Host, package: Path, models: Path, tmp_path: Path) -> InstalledSite:
    """The package on it, with a configuration."""
    site = InstalledSite(tmp_path, models, host, package)
    site.configure()
    return site


@pytest.fixture
def board(site: InstalledSite) -> InstalledSite:
    """A board that serves."""
    site.init()
    site.install(site.pack())
    site.host.run("systemctl", "start", "edged")
    return site


def _put(host: Host, package: Path) -> str:
    (host.root / ON_BOARD.lstrip("/")).write_bytes(package.read_bytes())
    return ON_BOARD


def _files(host: Host) -> set[str]:
    host.run("sync")
    leave = [word for path in PASSING for word in ("-path", f"./{path}", "-prune", "-o")]
    found = subprocess.run(("find", ".", *leave, "-print"), cwd=host.root, capture_output=True, text=True, check=True)
    return {path.removeprefix("./") for path in found.stdout.splitlines()}


def _packages(host: Host) -> set[str]:
    return {path for path in _files(host) if "/dpkg/" not in path}


def _state(host: Host, unit: str) -> tuple[str, str]:
    shown = host.run("systemctl", "show", unit, "--property=ActiveState,ConditionResult").stdout
    values = dict(line.split("=") for line in shown.splitlines())
    return values["ActiveState"], values["ConditionResult"]


def _newer(package: Path, folder: Path) -> Path:
    """Make the same package with a higher Debian revision."""
    tree, newer = folder / "tree", folder / "newer.deb"
    subprocess.run(("dpkg-deb", "--raw-extract", package, tree), check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("-1~deb", "-2~deb", 1))
    subprocess.run(
        ("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, newer), capture_output=True, check=True
    )
    return newer


def test_a_package_alone_installs_without_a_network_and_starts_nothing(host: Host, package: Path) -> None:
    host.run("dpkg", "--install", _put(host, package))
    for unit in UNITS:
        assert host.run("systemctl", "is-enabled", unit).stdout == "enabled\n"
        assert _state(host, unit) == ("inactive", "no")
    assert host.run("systemctl", "is-system-running").stdout == "running\n"
    assert host.run("edged", "--version").stdout.startswith("edged ")
    assert not any((host.root / "var/lib/edged").iterdir()), "keys are made where they are used"
    assert host.run("dpkg", "--verify", "edged").stdout == ""
    examples = host.root / "usr/share/doc/edged/examples"
    assert load_board(examples / "edged.toml").model[0].name == "gearbox"
    assert load_hub(examples / "hub.toml").local.url == "mqtt://localhost:1883"


def test_what_it_brings_works_and_sees_nothing_of_debians_own_but_systemd(host: Host, package: Path) -> None:
    host.run("dpkg", "--install", _put(host, package))
    before = _packages(host)
    modules = "ai_edge_litert.interpreter, cryptography, PIL.Image, pkcs11, systemd.journal"
    if host_release() == "12":  # tflite-runtime ends with Python 3.11
        modules += ", tflite_runtime.interpreter"
    host.run("/usr/lib/edged/bin/python", "-c", f"import {modules}")
    path = host.run("/usr/lib/edged/bin/python", "-c", "import sys; print(*sys.path)").stdout
    assert "dist-packages" not in path
    (host.root / "srv/numpy.py").write_text("raise SystemExit('the directory of whoever calls decides nothing')")
    checked = host.run("sh", "-c", "cd /srv && edged check --offline", check=False)
    assert "edged.toml does not exist" in checked.stdout
    assert _packages(host) == before, "all was compiled when it was installed"


def test_a_package_works_without_debians_systemd_module(host: Host, package: Path) -> None:
    """A board without a network may lack what is recommended."""
    host.run("dpkg", "--purge", "python3-systemd")
    host.run("dpkg", "--install", _put(host, package))
    assert host.run("edged", "--version").stdout.startswith("edged ")
    missing = host.run("/usr/lib/edged/bin/python", "-c", "import systemd", check=False)
    assert "ModuleNotFoundError" in missing.stderr


def test_keys_are_made_at_the_first_boot_with_a_configuration(site: InstalledSite) -> None:
    """So that an image for many boards carries none."""
    record = site.host.root / RECORD
    assert not record.exists()
    site.host.power_off()
    site.host.start()
    assert record.exists()
    assert site.host.run("stat", "--format=%U %a", "/var/lib/edged", f"/{RECORD}").stdout.startswith(
        "edged 700\nedged "
    )
    assert _state(site.host, "edged") == ("inactive", "no"), "there is no package yet"
    site.path.joinpath("board.enrol").write_bytes(record.read_bytes())
    site.install(site.pack())
    site.host.run("systemctl", "start", "edged")
    assert _state(site.host, "edged") == ("active", "yes")


def test_an_upgrade_keeps_state_and_restarts_what_runs(board: InstalledSite, package: Path, tmp_path: Path) -> None:
    record, before = (board.host.root / RECORD).read_bytes(), board.shows("MainPID")
    assert ".toml" in board.host.run("sh", "-c", "ls /etc/edged").stdout
    board.host.run("systemctl", "disable", "edged-hub")
    board.host.run("dpkg", "--install", _put(board.host, _newer(package, tmp_path)))
    assert "-2~deb" in board.host.run("dpkg-query", "--show", "edged").stdout
    wait_until(lambda: _state(board.host, "edged")[0] == "active")
    assert board.shows("MainPID") != before
    assert (board.host.root / RECORD).read_bytes() == record
    assert board.host.run("edged", "models").stdout.count("gearbox") == 1
    is_enabled = board.host.run("systemctl", "is-enabled", "edged-hub", check=False).stdout
    assert is_enabled == "disabled\n", "what an administrator disabled stays so"


def test_an_upgrade_leaves_alone_what_was_stopped_by_hand(board: InstalledSite, package: Path, tmp_path: Path) -> None:
    board.host.run("systemctl", "stop", "edged")
    board.host.run("dpkg", "--install", _put(board.host, _newer(package, tmp_path)))
    assert _state(board.host, "edged")[0] == "inactive"


def test_a_removed_package_leaves_its_state_for_the_next(board: InstalledSite) -> None:
    record = (board.host.root / RECORD).read_bytes()
    board.host.run("dpkg", "--remove", "edged")
    assert board.host.run("systemctl", "is-active", "edged", check=False).stdout == "inactive\n"
    assert not (board.host.root / "usr/lib/edged").exists()
    assert (board.host.root / "etc/edged/edged.toml").exists()
    board.host.run("dpkg", "--install", ON_BOARD)
    wait_until(lambda: _state(board.host, "edged")[0] == "active")
    assert (board.host.root / RECORD).read_bytes() == record


def test_a_purged_package_leaves_what_debian_keeps(host: Host, package: Path, models: Path, tmp_path: Path) -> None:
    before = _packages(host)
    site = InstalledSite(tmp_path, models, host, package)
    site.configure()
    site.init()
    site.install(site.pack())
    host.run("systemctl", "start", "edged")
    host.run("dpkg", "--purge", "edged")
    (host.root / "etc/mosquitto/conf.d/edged.conf").unlink()
    host.run("systemctl", "disable", "--now", "mosquitto")
    left = {path for path in _packages(host) - before if not path.startswith("var/lib/mosquitto")}
    assert left <= DEBIAN_KEEPS
    assert before <= _packages(host)
    assert not any((host.root / "run").glob("edged*"))
    assert host.run("systemctl", "list-unit-files", "edged*", check=False).stdout.count("edged") == 0
