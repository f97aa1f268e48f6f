"""Two boards and a hub in namespaces of their own: packets that are lost, that are late, and no way at all for long."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from edged.broker import run_once
from support.broker import DURABLE, PlainBroker
from support.faults import Board, Sensor, World, often
from support.hub import Hub
from support.netns import entered, inside, network
from support.site import Site

pytestmark = [pytest.mark.broker, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

LOSS = 20
DELAY = 0.5
PARTITION = often(10, 60)
"""Seconds without any way: ten minutes, scaled."""
SECONDS = often(10, 120)
RATE = 4.0


class TwoBoards(World):
    """A hub that hears two boards, and a sensor beside each."""

    def __init__(self, hub: Hub, sites: list[Site], sensors: list[Sensor]) -> None:
        super().__init__(sites[0], sensors[0], hub)
        self.sensors = sensors

    def run(self) -> None:
        for sensor in self.sensors[1:]:
            sensor.client.connect()
        try:
            while not self._ended.is_set():
                run_once((self.hub.client, *(sensor.client for sensor in self.sensors)), 0.05)
                for sensor in self.sensors:
                    sensor.send_if_due()
        except BaseException as error:  # noqa: BLE001  shown by the test
            self.error = error


def test_lost_and_late_packets_and_a_partition_cost_no_result(
    tmp_path: Path, models: Path, windows: np.ndarray
) -> None:
    if os.geteuid() != 0 or shutil.which("nft") is None or shutil.which("ip") is None:
        pytest.skip("needs root, ip and nft, to make network namespaces")
    middle, around = "edged-hub", ["edged-b1", "edged-b2"]
    (tmp_path / "broker").mkdir()
    with network(middle, around) as net, entered(middle), PlainBroker(tmp_path / "broker", options=DURABLE) as broker:
        sites = [_site(tmp_path, models, broker, number) for number in (1, 2)]
        sensors = [
            Sensor(site, windows + number, rows=True, sealed=True, rate=RATE, name=f"sensor-{number}")
            for number, site in enumerate(sites)
        ]
        boards = [Board(site.path, prefix=inside(name)) for site, name in zip(sites, around, strict=True)]
        hub = Hub(*sites, client_id="hub", session_expiry=3600)
        with (
            net.proxies(tmp_path, broker.port, DELAY),
            boards[0].running(),
            boards[1].running(),
            TwoBoards(hub, sites, sensors) as world,
        ):
            net.lose(LOSS)
            time.sleep(SECONDS)
            net.lose(100)
            time.sleep(PARTITION)
            net.lose(LOSS)
            time.sleep(SECONDS)
            for sensor in sensors:
                sensor.paused = True
            world.finish(240, expected=lambda: [name for sensor in sensors for name in sensor.expected()])
    sent = sum(len(sensor.sent) for sensor in sensors)
    print(
        f"\n{LOSS} % loss, {DELAY} s delay, {PARTITION} s partition: {sent} readings of two boards,"
        f" {len(hub.results)} results, 0 lost, 0 twice"
    )


def _site(tmp_path: Path, models: Path, broker: PlainBroker, number: int) -> Site:
    """Return the site of one board: the hub is the first one's."""
    path = tmp_path / f"site-{number}"
    path.mkdir()
    site = Site(path, models, broker.url, name=f"press-0{number}")
    if number > 1:
        for name in ("home.key", "home.pub"):
            shutil.copy(tmp_path / "site-1" / name, path / name)
    site.configure('format = "f32le"\neach = "rows"\njournal = true\nsensor = "sensor.key"\n')
    config = path / "edged.toml"
    config.write_text(config.read_text().replace(broker.url, f"mqtt://10.77.{number}.1:{broker.port}"))
    site.init()
    site.install(site.pack())
    return site
