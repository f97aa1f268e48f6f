"""What all tests of faults share: a broker that keeps what it has acknowledged, and a site on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.broker import DURABLE, PlainBroker
from support.site import Site
from support.stage import Setting


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PlainBroker]:
    """A Mosquitto that keeps what it has acknowledged, also when it is killed."""
    directory = tmp_path / "broker"
    directory.mkdir()
    with PlainBroker(directory, options=(*DURABLE, "max_queued_messages 0")) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, models: Path, broker: PlainBroker) -> Site:
    """A site on that broker."""
    path = tmp_path / "site"
    path.mkdir()
    return Site(path, models, broker.url)


@pytest.fixture(scope="session")
def windows(models: Path) -> np.ndarray:
    """Windows of the gearbox model, float32 [n, 300, 4]."""
    with np.load(models / "gearbox" / "golden.npz") as golden:
        return golden["raw_windows"].astype(np.float32)


@pytest.fixture
def quick_site(tmp_path: Path, models: Path) -> Iterator[Site]:
    """A site on a broker that stores nothing: one that stores each message cannot be flooded."""
    for name in ("quick", "quick-site"):
        (tmp_path / name).mkdir()
    with PlainBroker(tmp_path / "quick", options=("max_queued_messages 0", "max_inflight_messages 0")) as broker:
        yield Site(tmp_path / "quick-site", models, broker.url)


@pytest.fixture
def setting(tmp_path: Path, models: Path, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    """A site between two brokers; the daemon has a directory in RAM, as systemd gives it one."""
    made = Setting(tmp_path, models, windows)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(made.runtime))
    with made.near, made.far:
        yield made
