"""Real systemd hosts, or a reason why there are none."""

from __future__ import annotations

import os
import platform
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from support.hosts import host_release, host_root

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TOOLS = ("systemd-nspawn", "ip", "ssh-keygen", "nsenter")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests here: each needs root and takes its time. A story is told from its beginning."""
    here = Path(__file__).parent
    stories: defaultdict[Path, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(900))
            if item.get_closest_marker("story"):
                stories[item.path].append(place)
    for places in stories.values():
        in_order = sorted((items[place] for place in places), key=lambda item: item.location[1] or 0)
        for place, item in zip(places, in_order, strict=True):
            items[place] = item


@pytest.fixture(scope="session", autouse=True)
def _able() -> None:
    """Skip, saying why, where no hosts can be made."""
    if os.geteuid() != 0:
        pytest.skip("hosts need root")
    missing = [name for name in _TOOLS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"hosts need {', '.join(missing)}")
    if host_root() is None:
        pytest.skip("no root file system for hosts: `make hosts` makes it")


@pytest.fixture(scope="session")
def package() -> Path:
    """The newest .deb for the hosts' Debian release and this architecture, as `make deb` makes it."""
    return _newest("edged")


@pytest.fixture(scope="session")
def federated_package(package: Path) -> Path:
    """That of edged-federated; it stands on the same version of edged."""
    found = _newest("edged-federated")
    if found.name != package.name.replace("edged_", "edged-federated_"):
        pytest.skip(f"{found.name} does not go with {package.name}: `make deb` makes both")
    return found


def _newest(name: str) -> Path:
    folder = Path(os.environ.get("EDGED_DEB", Path(__file__).resolve().parents[2] / ".venv" / "deb"))
    architecture = _ARCHITECTURES.get(platform.machine(), "")
    pattern = f"{name}_*~deb{host_release()}_{architecture}.deb"
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.skip(f"no package of {name}: `make deb` makes it")
    return found[-1]
