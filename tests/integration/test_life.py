"""The life of a model: going back, trials that fail, and the record of what ran when."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.promises import SWAPS
from support.site import GEARBOX, Site

LAYOUT = 'format = "f32le"\neach = "window"'
TRIAL = "[model.trial]\nwindows = 50\n"


def send(site: Site, *more: object) -> None:
    source = site.models / "gearbox" / "golden.npz"
    site.edged(
        "send", source, "--array", "raw_windows", "--each", "window", "--format", "f32le", "-t", site.topic, *more,
        *site.connection(),
    )  # fmt: skip


def audit(site: Site) -> list[dict[str, Any]]:
    shown = site.edged("audit", "--json", "-n", 1000, "-c", "edged.toml").stdout
    entries: list[dict[str, Any]] = json.loads(shown)
    return entries


def test_going_back_is_the_old_weights_under_a_higher_version(site: Site) -> None:
    site.configure(LAYOUT)
    site.init()
    first = site.pack(version=1)
    site.install(first)
    site.install(site.pack(version=2))
    assert site.install(first, check=False).returncode == 77

    site.edged(
        "pack", "--from", first, "--version", 3, "--operator-key", "fleet.key", "--sign", "acme.key", "--to", "board.enrol",
        "-o", "back.edged",
    )  # fmt: skip
    site.install(site.path / "back.edged")

    facts = {
        name: json.loads(site.edged("inspect", name, "--json").stdout) for name in ("gearbox-1.edged", "back.edged")
    }
    assert facts["back.edged"]["weights"] == facts["gearbox-1.edged"]["weights"]
    assert facts["back.edged"]["version"] == 3
    assert "is not above 1" in site.run(
        "pack", "--from", first, "--version", 1, "--operator-key", "fleet.key", "--sign", "acme.key", "--to", "board.enrol",
        check=False,
    ).stderr  # fmt: skip


@SWAPS
def test_a_version_that_is_too_slow_in_its_trial_gives_way_and_no_window_is_lost(site: Site) -> None:
    """Its self-test is fine; in use it leaves the stated bound. After a restart it is not tried again."""
    site.configure(f"{LAYOUT}\n{TRIAL}")
    site.init()
    site.install(site.pack(version=1))
    with site.daemon() as daemon, site.listener(200) as listener:
        listener.wait_connected()
        send(site)
        site.configure(f'{LAYOUT}\n{TRIAL}latency = "1 us"')  # no version can do that
        daemon.reload()
        site.install(site.pack(version=2))
        daemon.wait_ready()
        send(site)
        results = listener.results()
        assert daemon.stop() == 0
    versions = [result["version"] for result in results]
    assert versions[:100] == [1] * 100
    assert versions[100:102] == [2, 2]
    assert versions[102:] == [1] * 98
    assert "3 windows of its trial took over" in daemon.log
    kinds = [(entry["kind"], entry.get("version")) for entry in audit(site)]
    assert ("install", 2) in kinds
    assert ("swap", 2) in kinds
    assert ("roll-back", 1) in kinds

    site.configure(f"{LAYOUT}\n{TRIAL}")
    with site.daemon() as daemon, site.listener(100) as listener:
        listener.wait_connected()
        send(site)
        assert {result["version"] for result in listener.results()} == {1}
    assert "failed on this board before" in daemon.log


def test_the_audit_log_tells_what_ran_when_and_holds(site: Site) -> None:
    site.configure(LAYOUT)
    site.init()
    site.install(site.pack(version=2))
    site.install(site.pack(version=1), check=False)
    with site.daemon() as daemon, site.listener(100) as listener:
        listener.wait_connected()
        send(site)
        listener.results()
        assert daemon.stop() == 0

    entries = audit(site)
    kinds = [entry["kind"] for entry in entries]
    assert kinds == ["install", "refuse", "start", "epoch", "hubs", "swap", "stop"]
    assert (entries[1]["why"], entries[-1]["results"]) == ("RollbackError", 100)
    assert site.edged("audit", "--verify", "-c", "edged.toml").stdout == "whole: 7 entries, signed up to 7 of 7\n"
    site.edged("audit", "--export", "log.cbor", "-c", "edged.toml")
    site.edged("audit", "--file", "log.cbor", "--board", "board.enrol", "--verify")
    changed = bytearray((site.path / "log.cbor").read_bytes())
    changed[changed.index(b"RollbackError")] ^= 1
    (site.path / "log.cbor").write_bytes(changed)
    done = site.run("audit", "--file", "log.cbor", "--board", "board.enrol", "--verify", check=False)
    assert (done.returncode, "was changed" in done.stderr) == (77, True)


@SWAPS
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_newest_package_that_is_damaged_gives_way_to_the_last_good_one(site: Site, damage: str) -> None:
    """At a restart, when no version is in memory."""
    site.configure(f"{LAYOUT}\n{TRIAL}")
    site.init()
    site.install(site.pack(version=1))
    with site.daemon(), site.listener(100) as listener:
        listener.wait_connected()
        send(site)  # version 1 gets through its trial
        listener.results()
    site.install(site.pack(version=2, manifest=GEARBOX))
    package = site.state / "keystore" / "packages" / "gearbox-2.edged"
    data = bytearray(package.read_bytes())
    if damage == "cut":
        del data[-1000:]
    else:
        data[-1000] ^= 1
    package.write_bytes(data)

    with site.daemon() as daemon, site.listener(100) as listener:
        listener.wait_connected()
        send(site)
        assert {result["version"] for result in listener.results()} == {1}
        assert daemon.stop() == 0
    assert "gearbox-2.edged" in daemon.log
