"""Brokers and daemons that are killed with -9: no reading is lost, and none is answered twice at the hub."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import numpy as np
import pytest

from support.broker import PlainBroker
from support.faults import LONG, PER_WINDOW, Board, Sensor, World, often
from support.link import Link
from support.observer import Observer
from support.promises import NOTHING_LOST
from support.site import Site

KILLS = often(3, 50)
CHAOS = often(8, 600)
"""Seconds in which both are killed at random."""
_KINDS = {
    "whole windows": ('format = "f32le"\neach = "window"\n', False, False),
    "sealed whole windows": ('format = "f32le"\neach = "window"\nsensor = "sensor.key"\n', False, True),
    "journalled rows": ('format = "f32le"\neach = "rows"\njournal = true\n', True, False),
    "sealed journalled rows": ('format = "f32le"\neach = "rows"\njournal = true\nsensor = "sensor.key"\n', True, True),
}

_SEALED = [kind for kind in _KINDS if kind.startswith("sealed")]
_DAEMON = list(_KINDS) if LONG else _SEALED
_BROKER = ["whole windows", *_SEALED] if LONG else _SEALED
"""Rows that are not sealed are left out: a sensor that did not hear whether the broker had one sends it once more, and
nothing tells the two apart."""

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def world(request: pytest.FixtureRequest, site: Site, windows: np.ndarray) -> Iterator[World]:
    """A sensor of one kind, and a hub, at a site whose board is ready to run; all that they say passes an observer."""
    table, rows, sealed = _KINDS[request.param]
    observer = Observer(site, sealed=sealed, per_window=PER_WINDOW if rows else 1)
    with Link(site.url, observer) as link:
        site.url = link.url
        site.configure(table)
        site.init()
        site.install(site.pack())
        yield World(site, Sensor(site, windows, rows=rows, sealed=sealed), observer=observer)


def _report(what: str, world: World, board: Board) -> None:
    print(
        f"\n{what}: {len(world.sensor.sent)} readings, {len(world.hub.results)} results at the hub: {world.verdict};"
        f" {len(world.hub.refused)} refused there as answered before; slowest start {board.slowest_start:.1f} s"
    )


@NOTHING_LOST
@pytest.mark.parametrize("world", _BROKER, indirect=True)
def test_a_broker_that_is_killed_costs_no_reading(world: World, broker: PlainBroker) -> None:
    board = Board(world.site.path)
    with board.running(), world:
        for _ in range(KILLS):
            time.sleep(random.uniform(0.5, 2.0))  # the moment is the attack, here and below
            broker.kill()
            broker.start()
        world.finish(120)
    _report(f"broker killed {KILLS} times", world, board)


@NOTHING_LOST
@pytest.mark.parametrize("world", _DAEMON, indirect=True)
def test_a_daemon_that_is_killed_costs_no_reading(world: World) -> None:
    board = Board(world.site.path)
    with board.running(), world:
        for _ in range(KILLS):
            time.sleep(random.uniform(0.2, 1.5))
            board.kill()
            board.start()
        world.finish(120)
    _report(f"daemon killed {KILLS} times", world, board)


@pytest.mark.parametrize("world", _BROKER, indirect=True)
def test_broker_and_daemon_killed_at_random_cost_no_reading(world: World, broker: PlainBroker) -> None:
    board = Board(world.site.path)
    kills = [0, 0]
    with board.running(), world:
        until = time.monotonic() + CHAOS
        while time.monotonic() < until:
            time.sleep(random.uniform(0.1, 3.0))
            if random.random() < 0.5:
                kills[0] += 1
                broker.kill()
                broker.start()
            else:
                kills[1] += 1
                board.kill()
                board.start()
        world.finish(120)
    _report(f"broker killed {kills[0]} times and daemon {kills[1]} times in {CHAOS} s", world, board)
