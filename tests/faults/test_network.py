"""Two boards and a hub in namespaces of their own: packets that are lost, that are late, and no way at all for long."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from support.broker import DURABLE, PlainBroker
from support.faults import Board, Sensor, World, often
from support.hub import Hub
from support.link import Link
from support.netns import entered, inside, network
from support.observer import Observer
from support.site import Site
from support.waiting import PATIENCE

pytestmark = [pytest.mark.broker, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

LOSS = 20
DELAY = 0.5
PARTITION = often(10, 60)
"""Seconds without any way: ten minutes, scaled."""
SECONDS = often(10, 120)
RATE = 4.0


def test_lost_and_late_packets_and_a_partition_cost_no_result(
    tmp_path: Path, models: Path, windows: np.ndarray
) -> None:
    middle, around = "edged-hub", ["edged-b1", "edged-b2"]
    (tmp_path / "broker").mkdir()
    with (
        network(middle, around) as net,
        entered(middle),
        PlainBroker(tmp_path / "broker", options=DURABLE) as broker,
        Link(broker.url, Observer(sealed=True), host="0.0.0.0") as link,
    ):
        link.delay = DELAY
        sites = [_site(tmp_path, models, broker, link, number) for number in (1, 2)]
        sensors = [
            Sensor(site, windows + number, rows=True, sealed=True, rate=RATE, name=f"sensor-{number}")
            for number, site in enumerate(sites)
        ]
        boards = [Board(site.path, prefix=inside(name)) for site, name in zip(sites, around, strict=True)]
        hub = Hub(*sites, client_id="hub", session_expiry=3600)
        with (
            boards[0].running(),
            boards[1].running(),
            World(sites[0], *sensors, hub=hub) as world,
        ):
            for loss, seconds in ((LOSS, SECONDS), (100, PARTITION), (LOSS, SECONDS)):
                net.lose(loss)
                world.wait_sent(int(seconds * RATE), 2 * seconds + PATIENCE)
            world.finish(240)
    sent = sum(len(sensor.sent) for sensor in sensors)
    print(
        f"\n{LOSS} % loss, {DELAY} s delay, {PARTITION} s partition: {sent} readings of two boards,"
        f" {len(hub.results)} results, 0 lost, 0 twice"
    )


def _site(tmp_path: Path, models: Path, broker: PlainBroker, link: Link, number: int) -> Site:
    """Return the site of one board: the hub is the first one's."""
    path = tmp_path / f"site-{number}"
    path.mkdir()
    site = Site(path, models, broker.url, name=f"press-0{number}")
    if number > 1:
        for name in ("home.key", "home.pub"):
            shutil.copy(tmp_path / "site-1" / name, path / name)
    site.configure('format = "f32le"\neach = "rows"\njournal = true\nsensor = "sensor.key"\n')
    config = path / "edged.toml"
    config.write_text(config.read_text().replace(broker.url, link.url.replace("127.0.0.1", f"10.77.{number}.1")))
    site.init()
    site.install(site.pack())
    return site
