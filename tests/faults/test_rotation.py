"""Keys that change while readings flow: of the sensor, of the channel, of the hubs. Nothing is lost or unreadable."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edged.formats.channel.reading import ReadingSealer
from edged.keystore.records import read_sensor_key
from support.faults import Board, Sensor, World, often
from support.site import Site

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(600)]

RATE = 200.0
ROUNDS = often(2, 20)


def _edit(site: Site, pattern: str, text: str) -> None:
    config = site.path / "edged.toml"
    changed, count = re.subn(pattern, text, config.read_text(), flags=re.MULTILINE)
    assert count == 1
    config.write_text(changed)


def test_keys_of_sensor_channel_and_hubs_change_at_200_readings_a_second(quick_site: Site, windows: np.ndarray) -> None:
    site = quick_site
    site.configure('format = "f32le"\neach = "window"\nsensor = "sensor.key"\n')
    _edit(site, r"^hubs = .*$", 'hubs = ["home.pub"]\nrotate = "2 s"')
    site.init()
    site.install(site.pack())
    site.edged("keygen", "hub", "--id", "other", "--no-passphrase")
    sensor = Sensor(site, windows, rows=False, sealed=True, rate=RATE)
    board = Board(site.path)
    hubs = [["home.pub"], ["home.pub", "other.pub"]]
    with board.running(), World(site, sensor) as world:
        assert board.daemon is not None
        for number in range(ROUNDS):
            world.wait_sent(int(RATE))
            old, new = f"sensor-{number - 1}.key" if number else "sensor.key", f"sensor-{number}.key"
            site.edged("keygen", "sensor", "--id", f"sensor-{number}")
            _edit(site, r"^sensor = .*$", f'sensor = ["{old}", "{new}"]')
            board.daemon.reload()
            sensor.sealer = ReadingSealer(read_sensor_key(site.path / new), site.topic)
            world.wait_sent(int(RATE))
            _edit(site, r"^sensor = .*$", f'sensor = "{new}"')
            _edit(site, r"^hubs = .*$", f"hubs = {hubs[(number + 1) % 2]}".replace("'", '"'))
            board.daemon.reload()
        world.finish(60)
        epochs = len({one.kid for one in world.hub.results})
    assert epochs > ROUNDS
    print(
        f"\n{len(sensor.sent)} readings at {RATE:.0f} a second under {ROUNDS + 1} sensor keys and {epochs} channel keys"
    )
