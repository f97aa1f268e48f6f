"""What a board says of itself: to its hubs over the broker, and on the board."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edged import __version__
from support.broker import Client, spin
from support.site import Site

pytestmark = pytest.mark.broker

TABLE = 'format = "f32le"\neach = "window"'
VERSIONS = {"serving": None, "on_trial": False, "newest": None, "good": None, "rejected": []}


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
        said = site.run(*listen, check=False).stdout
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
    assert "daemon runs" in " ".join(running.split())
    assert (stopped["running"], stopped["outbox"], stopped["set_aside"]) == (False, {"results": 0, "bytes": 0}, [])


def test_status_tells_a_machine_what_serves_is_good_and_was_rejected(site: Site, tmp_path: Path) -> None:
    _site(site)
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    environment = {**os.environ, **runtime}

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(site.run("status", "--json", "-c", "edged.toml", env=environment).stdout)
        return found

    fresh = status()
    assert fresh["models"] == [{"channel": "c1", "name": "gearbox", **VERSIONS, "newest": 1}]
    with site.daemon(environment=runtime) as daemon:
        on_trial = status()["models"][0]
        source = site.models / "gearbox" / "golden.npz"
        site.edged(
            "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "-t", site.topic,
            *site.connection(),
        )  # fmt: skip
        daemon.wait_for("100 messages, 100 results")
        good = status()
        site.install(site.pack(version=2))
        daemon.wait_ready()
        newer = status()["models"][0]
        site.edged("rollback", "gearbox", "--why", "no good", "-c", "edged.toml")
        daemon.wait_ready()
        back = status()["models"][0]
        shown = site.run("status", "-c", "edged.toml", env=environment).stdout
    stopped = status()

    assert on_trial.items() >= {"serving": 1, "on_trial": True, "newest": 1, "good": None}.items()
    assert good["models"][0].items() >= {"serving": 1, "on_trial": False, "good": 1}.items()
    assert good["version"] == good["reported"]["version"] == __version__
    assert (good["running"], good["degraded"]) == (True, [])
    assert 0 <= good["reported"]["time"] - good["reported"]["last_result"] < 60
    assert newer.items() >= {"serving": 2, "on_trial": True, "newest": 2, "good": 1, "rejected": []}.items()
    rejected = [{"version": 2, "why": "no good"}]
    assert back.items() >= {"serving": 1, "on_trial": False, "newest": 2, "good": 1, "rejected": rejected}.items()
    assert "2: no good" in shown
    assert "100, the newest" in shown
    assert stopped["models"][0].items() >= {"serving": None, "good": 1}.items()
    assert stopped["reported"]["uptime"] > 0, "what it last said is kept"


def test_status_finds_a_daemon_that_systemd_did_not_start(site: Site) -> None:
    """It says so in a directory of its user alone, on a file system in RAM, and of this state directory."""
    _site(site)
    environment = {name: value for name, value in os.environ.items() if name != "RUNTIME_DIRECTORY"}

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(site.run("status", "--json", "-c", "edged.toml", env=environment).stdout)
        return found

    with site.daemon() as daemon:
        running = status()
        (site.state / "lock").unlink()
        without_lock = status()
        daemon.kill()
    killed = status()
    with site.daemon() as again:
        assert again.stop() == 0
    stopped = status()
    assert (running["running"], running["reported"]["pid"]) == (True, daemon.pid)
    assert running["models"][0].items() >= {"serving": 1, "on_trial": True}.items()
    assert without_lock["running"]
    assert (killed["running"], killed["models"][0]["serving"]) == (False, None)
    assert (stopped["running"], stopped["reported"]) == (False, None)
