"""What a board says of itself: to its hubs over the broker, and on the board."""

from __future__ import annotations

import json

import pytest

from support.broker import Client, spin
from support.site import Site

pytestmark = pytest.mark.broker

TABLE = 'format = "f32le"\neach = "window"'


def _site(site: Site) -> None:
    site.configure(TABLE)
    config = site.path / "edged.toml"
    config.write_text(config.read_text().replace("[results]", '[results]\nheartbeat = "1 s"'))
    site.init()
    site.install(site.pack())


def test_a_board_says_how_it_is_to_its_hubs_and_the_broker_cannot_read_it(site: Site) -> None:
    _site(site)
    listen = ("listen", "--hub-key", "home.key", "--board", "board.enrol", "--health", "-W", "4", *site.connection())
    eavesdropper = Client(site.options())
    eavesdropper.subscribe(f"edged/{site.name}/health", 0)
    with site.daemon():
        said = site.edged(*listen, check=False).stdout
        eavesdropper.connect()
        spin(eavesdropper, until=lambda: len(eavesdropper.payloads) > 1)
    reports = [json.loads(line)["health"] for line in said.splitlines()]
    assert len(reports) >= 2
    assert reports[-1]["models"] == {"c1": ["gearbox", 1]}
    assert reports[-1]["degraded"] == []
    assert b"gearbox" not in b"".join(eavesdropper.payloads)
    assert len({len(payload) for payload in eavesdropper.payloads}) == 1
    eavesdropper.close()


def test_status_says_on_the_board_whether_the_daemon_runs_and_what_waits(site: Site) -> None:
    _site(site)
    with site.daemon():
        running = site.edged("status", "-c", "edged.toml").stdout
    stopped = json.loads(site.edged("status", "--json", "-c", "edged.toml").stdout)
    assert "daemon  runs" in running.replace("   ", "  ")
    assert (stopped["running"], stopped["outbox"], stopped["set_aside"]) == (False, {"results": 0, "bytes": 0}, [])
