"""The tests run against the installed wheel: what they import is what users get, data files included."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import edged
from support.broker import PrivateBroker
from support.site import Site

settings.register_profile("edged", deadline=None)  # how long an example takes is the machine's business
settings.load_profile("edged")


def pytest_configure() -> None:
    """Refuse the source tree, which an environment variable allows to those who want to see a change at once."""
    origin = Path(edged.__file__)
    if "site-packages" not in origin.parts and "EDGED_TEST_SOURCE" not in os.environ:
        pytest.exit(f"edged comes from {origin.parent}, not from the wheel: use `make test`", returncode=4)


@pytest.fixture(scope="session")
def models() -> Path:
    """Real models with known answers: a folder beside the project, or the one that an environment variable names."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "models"
    folder = Path(os.environ.get("EDGED_MODELS", beside))
    if not folder.is_dir():
        pytest.skip(f"no real models at {folder}: name their folder in EDGED_MODELS")
    return folder


@pytest.fixture(scope="session")
def tls_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A Mosquitto that takes TLS with client certificates only."""
    with PrivateBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def site(tmp_path: Path, models: Path, tls_broker: PrivateBroker, request: pytest.FixtureRequest) -> Site:
    """A site with keys on a broker with TLS; each test has a board name of its own, because they share the broker."""
    name = f"press-{abs(hash(request.node.nodeid)) % 10**8:08d}"
    tls = tls_broker.client(name)
    tmp_path.chmod(0o700)
    return Site(tmp_path, models, tls_broker.url, {"ca": tls.ca, "cert": tls.cert, "key": tls.key}, name=name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in RAM, of 8 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file system")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)
