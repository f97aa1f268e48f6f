"""A key store of another distribution: installed beside edged, found by its scheme, used by a whole board."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.site import Site, run_loop

DISTRIBUTION = Path(__file__).with_name("derived")
TOOLS = Path(os.environ.get("EDGED_BUILD", Path(__file__).resolve().parents[2] / ".venv" / "build" / "bin"))
URI = "derived:press-07"

pytestmark = pytest.mark.skipif(not (TOOLS / "uv").exists(), reason=f"{TOOLS} has no uv to install with")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Build the distribution and install it into a folder that every process of the test imports from."""
    source, wheels, folder = tmp_path / "source", tmp_path / "wheels", tmp_path / "site-packages"
    shutil.copytree(DISTRIBUTION, source)
    subprocess.run([TOOLS / "python", "-m", "hatchling", "build", "-t", "wheel", "-d", wheels], cwd=source, check=True)
    (wheel,) = wheels.glob("*.whl")
    options = ["--quiet", "--offline", "--no-deps", "--python", sys.executable, "--target", folder]
    subprocess.run([TOOLS / "uv", "pip", "install", *options, wheel], check=True)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def board(site: Site, tmp_path: Path) -> Site:
    pin = tmp_path / "pin"
    pin.touch(mode=0o600)
    pin.write_text(os.urandom(32).hex())
    site.configure('format = "json"\neach = "row"', extra=f'[keystore]\nuri = "{URI}"\npin = "{pin}"')
    return site


@pytest.mark.usefixtures("installed")
def test_a_board_lives_with_keys_of_another_distribution(board: Site) -> None:
    board.init()
    run_loop(board)
    assert "derived from keystore.pin" in board.edged("keystore", "check", "-c", "edged.toml").stdout
    assert not list(board.state.rglob("*.key"))


def test_a_scheme_is_unknown_without_its_distribution(board: Site) -> None:
    refused = board.edged("init", "-c", "edged.toml", check=False)
    assert refused.returncode == 78
    assert f"keystore.uri: '{URI}' has no scheme that edged knows" in refused.stderr
    assert "no installed distribution has 'derived'" in refused.stderr


def test_a_built_in_scheme_is_never_looked_up_elsewhere(board: Site, installed: Path) -> None:
    """An installed package that names ``file`` takes no keys over."""
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    points.write_text(points.read_text() + "file = edged_derived:DerivedKeystore\n")
    board.configure('format = "json"\neach = "row"')
    board.init()
    assert list(board.state.rglob("*.key"))


def test_two_distributions_of_one_scheme_are_refused(board: Site, installed: Path) -> None:
    (info,) = installed.glob("*.dist-info")
    another = installed / "another-1.dist-info"
    shutil.copytree(info, another)
    metadata = another / "METADATA"
    metadata.write_text(metadata.read_text().replace("Name: edged-derived", "Name: another"))
    refused = board.edged("init", "-c", "edged.toml", check=False)
    assert refused.returncode == 78
    assert "another, edged-derived" in refused.stderr
