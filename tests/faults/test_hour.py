"""An hour of random faults, world after world: nothing is lost, nothing is answered twice, and the board says what is true."""

from __future__ import annotations

import datetime as dt
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edged.keystore.certificates import Authority
from support.broker import DURABLE, PlainBroker
from support.faults import PER_WINDOW, Board, Sensor, World, often
from support.hub import Hub
from support.link import Link
from support.mishaps import Mishaps, Side, anonymous
from support.observer import Observer
from support.promises import NOTHING_LOST
from support.site import Site

SECONDS = often(40, 3600)
WORLD_SECONDS = often(20, 240)
MOST_GROWTH = 32 << 20
"""Bytes by which the daemon's own memory may grow in a world: room for queues that were full for a while."""
_KINDS = {
    "whole windows": ("window", False, False),
    "equal windows": ("window", False, False),
    "sealed windows": ("window", False, True),
    "journalled rows": ("rows", True, False),
    "sealed journalled rows": ("rows", True, True),
}

_EXACT = ("equal windows", "journalled rows")
"""Kinds of readings of which a sensor may repeat none: nothing tells a repeated one from another."""

pytestmark = [pytest.mark.broker, pytest.mark.slow, NOTHING_LOST, pytest.mark.timeout(often(900, 7200))]


class EqualSensor(Sensor):
    """Sends the same window all the time."""

    def _reading(self, number: int) -> bytes:
        del number
        return self._windows[0].astype("<f4").tobytes()


@dataclass(frozen=True)
class Plan:
    """One world.

    :ivar rate: readings a second.
    :ivar stores: brokers store each message before they acknowledge it: those lose nothing when they are killed.
    :ivar rotate: seconds for which a channel key seals.
    :ivar small_disk: the state lies on a file system of its own, which may be full.
    """

    kind: str
    rate: float
    tls: bool
    stores: bool
    rotate: float
    small_disk: bool

    @classmethod
    def draw(cls, draw: random.Random) -> Plan:
        stores = draw.random() < 0.3
        return cls(
            kind=draw.choice(list(_KINDS)),
            rate=draw.uniform(20, 40 if stores else 300),
            tls=draw.random() < 0.5,
            stores=stores,
            rotate=draw.choice([1.0, 5.0, 3600.0]),
            small_disk=os.geteuid() == 0 and draw.random() < 0.5,
        )


@contextmanager
def disk(path: Path) -> Iterator[Path]:
    """A file system of its own, in RAM."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_random_faults_cost_no_reading(
    tmp_path: Path, models: Path, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = os.environ.get("EDGED_SEED") or str(random.getrandbits(32))
    print(f"\nEDGED_SEED={seed}")
    until, number = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        number += 1
        plan = Plan.draw(random.Random(f"{seed}/{number}"))
        print(f"world {number}: {plan}")
        path = tmp_path / f"world-{number}"
        for folder in ("", "near", "far", "site", "runtime"):
            (path / folder).mkdir()
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(path / "runtime"))
        with ExitStack() as stack:
            _live(stack, path, models, windows, plan, f"{seed}/{number}/mishaps")


def _live(stack: ExitStack, path: Path, models: Path, windows: np.ndarray, plan: Plan, seed: str) -> None:
    """Let a world live, and judge it."""
    each, rows, sealed = _KINDS[plan.kind]
    tls = None
    if plan.tls:
        authority = Authority("links", path / "ca.crt", dt.timedelta(days=1))
        tls = authority.issue_server(path / "link.crt", path / "link.key")
    site = Site(path / "site", models, "", {} if tls is None else {"ca": tls.ca})
    observer = Observer(site, sealed=sealed, per_window=PER_WINDOW if rows else 1)
    options = ("persistence true", "max_queued_messages 0", *(DURABLE[1:] if plan.stores else ()))
    sides = []
    for name in ("near", "far"):
        broker = stack.enter_context(PlainBroker(path / name, options=options))
        sides.append(Side(name, broker, stack.enter_context(Link(broker.url, observer, tls=tls))))
    near, far = sides
    small = stack.enter_context(disk(path / "disk")) if plan.small_disk else None
    site.state = (small or path / "site") / "state"
    _configure(site, near.link.url, far.link.url, each, plan, sealed=sealed)
    kind = EqualSensor if plan.kind == "equal windows" else Sensor
    sensor = kind(site, windows, rows=rows, sealed=sealed, rate=plan.rate)
    hub = Hub(site, url=far.link.url, client_id="hub", session_expiry=3600)
    board = stack.enter_context(Board(site.path).running())
    world = stack.enter_context(World(site, sensor, hub=hub, observer=observer))
    mishaps = Mishaps(
        world,
        board,
        (near, far),
        runtime=path / "runtime",
        disk=small,
        spares_near=plan.kind in _EXACT,
        seed=seed,
        tell=print,
    )
    mishaps.wait_well()
    until = time.monotonic() + WORLD_SECONDS
    while time.monotonic() < until:
        mishaps.happen()
    world.finish(240)
    assert world.verdict is not None
    assert board.daemon is not None
    growth = anonymous(board.daemon.pid) - mishaps.before
    print(f"  {len(sensor.sent)} readings: {world.verdict}; memory grew by {growth / 1e6:.1f} MB")
    assert mishaps.kills or not world.verdict.lost_by_broker
    assert growth < MOST_GROWTH


def _configure(site: Site, near: str, far: str, each: str, plan: Plan, *, sealed: bool) -> None:
    ca = f'ca = "{site.tls["ca"]}"\n' if plan.tls else ""
    site.url = near
    table = f'format = "f32le"\neach = "{each}"\ntrial = {{ windows = 10 }}\n'
    table += 'sensor = "sensor.key"\n' * sealed + "journal = true\n" * (each == "rows")
    config = site.configure(table, extra=f'[uplink]\nurl = "{far}"\n{ca}')
    results = f'hubs = ["home.pub"]\nrotate = "{plan.rotate} s"\nheartbeat = "5 s"'
    config.write_text(config.read_text().replace('hubs = ["home.pub"]', results))
    site.init()
    site.install(site.pack())
