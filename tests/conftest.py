"""The tests run against the installed wheel: what they import is what users get, data files included."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import edged
from edged.model.runtime import Engine, choose
from support.broker import PrivateBroker
from support.engines import ENGINES
from support.site import Site, board_name

pytest_plugins = ["support.promises"]

_TESTS = Path(__file__).parent
_REAL_MODELS = _TESTS.parents[1] / "shared" / "models"

hypothesis.settings.register_profile("edged", deadline=None)  # how long an example takes is the machine's business
hypothesis.settings.load_profile("edged")


def pytest_configure() -> None:
    """Refuse the source tree, which an environment variable allows to those who want to see a change at once."""
    origin = Path(edged.__file__)
    if "site-packages" not in origin.parts and "EDGED_TEST_SOURCE" not in os.environ:
        pytest.exit(f"edged comes from {origin.parent}, not from the wheel: use `make test`", returncode=4)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Draw hypothesis's examples from the seed that pytest-randomly prints, too: --randomly-seed=N repeats a run."""
    hypothesis.core.global_force_seed = session.config.getoption("randomly_seed", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` selects by: units, and those of them that need real models."""
    for item in items:
        if item.path.is_relative_to(_TESTS / "unit"):
            item.add_marker("unit")
            if "models" in getattr(item, "fixturenames", ()):
                item.add_marker("real_models")


@pytest.fixture(scope="session")
def models() -> Path:
    """Real models with known answers: a folder beside the project, or the one that EDGED_MODELS names.

    Where there is neither, and for `make test`, the project's own stand-in for the gearbox: see models/make.py.
    """
    folder = Path(os.environ.get("EDGED_MODELS", _REAL_MODELS))
    return folder if folder.is_dir() else _TESTS / "models"


@pytest.fixture(autouse=True)
def _real_models(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("real_models") and request.getfixturevalue("models") == _TESTS / "models":
        pytest.skip(f"no real models at {_REAL_MODELS}: name their folder in EDGED_MODELS")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each runtime of this Python."""
    return choose(request.param)


@pytest.fixture(scope="session")
def tls_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A Mosquitto that takes TLS with client certificates only."""
    with PrivateBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def site(tmp_path: Path, models: Path, tls_broker: PrivateBroker, request: pytest.FixtureRequest) -> Site:
    """A site with keys on a broker with TLS; each test has a board name of its own, because they share the broker."""
    name = board_name(request.node.nodeid)
    tls = tls_broker.client(name)
    tmp_path.chmod(0o700)
    return Site(tmp_path, models, tls_broker.url, {"ca": tls.ca, "cert": tls.cert, "key": tls.key}, name=name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in RAM, of 8 MB. Needs root."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)
