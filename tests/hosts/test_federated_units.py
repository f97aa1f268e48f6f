"""The units of edged-federated on a real host: what they keep away from Flower, and what training may take of the machine."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.hosts import Fleet, Host
from support.installed import InstalledSite
from support.netns import entered
from support.vibration import CONDITIONS, MANIFEST, WEIGHTS, Machine
from support.waiting import wait_until

pytestmark = pytest.mark.story

UNITS = ("edged-federated", "edged-aggregator")
MOST_EXPOSED = 1.0
AGGREGATOR = "/var/lib/edged-aggregator"
FEDERATED = """
[federated]
aggregator = "localhost:9092"
record = "aggregator.pub"
ca = "aggregator-ca.pem"
models = ["vibration"]
secure = false
"""
"""The SuperLink of the same host, without the proxy: that is no part of these units. A board alone has nobody to mask with."""

COLLECTS = """
format = "f32le"
each = "window"
trial = { windows = 0 }
[model.collect]
label = "operator"
at_most_every = "1 us"
"""
WINDOWS = 64

SPIN = """
import glob, os, sys, time
for file in glob.glob(f"/sys/fs/cgroup/**{sys.argv[1]}/cgroup.procs", recursive=True):
    with open(file, "w") as group:
        group.write(str(os.getpid()))
until, before = time.monotonic() + 4, time.process_time()
while time.monotonic() < until:
    pass
print((time.process_time() - before) / 4)
"""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """One host."""
    with Fleet(1, name="fed", net="10.79.0") as running:
        yield running


@pytest.fixture(scope="module")
def board(
    fleet: Fleet, package: Path, federated_package: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> InstalledSite:
    """A board that serves a model which can learn, with edged-federated installed and no keys of that."""
    site = InstalledSite(tmp_path_factory.mktemp("site"), models, fleet.hosts[0], package)
    site.put(federated_package, "/srv/federated.deb")
    site.host.run("dpkg", "--install", "/srv/federated.deb")
    site.configure(COLLECTS, extra=FEDERATED, name="vibration")
    site.init()
    site.edged("pack", WEIGHTS, "-m", MANIFEST, "--sign", "acme.key", "--to", "board.enrol", "-o", "vibration-1.edged")
    site.install(site.path / "vibration-1.edged")
    site.put(WEIGHTS, "/srv/vibration.tflite")
    site.host.run("systemctl", "start", "edged")
    return site


@pytest.fixture(scope="module")
def aggregator(board: InstalledSite) -> Host:
    """The same host as an aggregator that serves."""
    (board.host.root / "etc/edged/aggregator.toml").write_text('[aggregator]\nname = "leader"\n')
    board.host.run("edged", "aggregator", "init")
    board.host.run("systemctl", "start", "edged-aggregator")
    return board.host


@pytest.fixture(scope="module")
def learner(board: InstalledSite, aggregator: Host) -> InstalledSite:
    """The board, that takes part."""
    state = aggregator.root / AGGREGATOR.lstrip("/")
    board.put(state / "aggregator.pub", "/etc/edged/aggregator.pub")
    board.put(state / "tls/ca.pem", "/etc/edged/aggregator-ca.pem")
    board.host.run("edged", "federate", "init", "-o", "/srv/board.node")
    aggregator.run("edged", "aggregator", "allow", "/srv/board.node")
    board.host.run("systemctl", "start", "edged-federated")
    return board


def processes(board: InstalledSite, unit: str) -> list[str]:
    """Return the processes of a unit."""
    group = board.shows("ControlGroup", unit=unit)["ControlGroup"]
    script = f"cat $(find /sys/fs/cgroup -path '*{group}/cgroup.procs') | sort -u"
    return board.host.run("sh", "-c", script).stdout.split()


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_exposed_as_little_as_promised(board: InstalledSite, unit: str) -> None:
    said = board.host.run("systemd-analyze", "security", "--no-pager", f"{unit}.service", check=False).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) <= MOST_EXPOSED
    print(f"\n{unit}.service: {exposure[1]}")


def test_nothing_starts_before_it_is_configured(board: InstalledSite) -> None:
    for unit in UNITS:
        assert board.host.run("systemctl", "is-enabled", unit).stdout == "enabled\n"
        board.host.run("systemctl", "start", unit)
        shown = board.shows("ActiveState", "ConditionResult", unit=unit)
        assert shown == {"ActiveState": "inactive", "ConditionResult": "no"}
    assert not (board.host.root / AGGREGATOR.lstrip("/") / "keys").exists()
    assert board.host.run("dpkg", "--verify", "edged-federated").stdout == ""


def test_both_find_one_numpy_and_their_own_protobuf(board: InstalledSite) -> None:
    code = "import google.protobuf, numpy, cryptography, flwr; print(*(one.__file__ for one in (numpy, cryptography, flwr)))"
    said = board.host.run("/usr/lib/edged-federated/bin/python", "-c", code).stdout.split()
    assert [path.split("/")[3] for path in said] == ["edged", "edged", "edged-federated"]
    version = "import google.protobuf; print(google.protobuf.__version__)"
    newer = board.host.run("/usr/lib/edged/bin/python", "-c", version).stdout
    older = board.host.run("/usr/lib/edged-federated/bin/python", "-c", version).stdout
    assert int(older.split(".")[0]) < 7 <= int(newer.split(".")[0])


def test_the_superlink_serves_on_loopback_alone(aggregator: Host, board: InstalledSite) -> None:
    assert board.shows("ActiveState", unit="edged-aggregator")["ActiveState"] == "active"
    listening = aggregator.run("ss", "--listening", "--tcp", "--numeric", "--no-header").stdout
    assert "127.0.0.1:9092" in listening
    assert listening.count(":9092") == 1


def test_a_board_takes_part(learner: InstalledSite) -> None:
    """Under all that the unit takes away: no memory both written and executed, few calls, no other users, no devices."""
    began = time.monotonic()
    wait_until(lambda: state(learner) == "online")
    assert not complaints(learner)
    print(f"\nonline {time.monotonic() - began:.0f} s after the start was asked for")


def complaints(board: InstalledSite) -> list[str]:
    """Return what both units say of calls that they were refused."""
    said = (board.journal(unit="edged-federated") + board.journal(unit="edged-aggregator")).splitlines()
    return [line for line in said if re.search(r"Traceback|[Pp]ermission|not permitted|denied", line)]


def state(board: InstalledSite) -> str:
    said = json.loads(board.host.run("edged", "aggregator", "status", "--json").stdout)
    found: str = said["boards"][board.name]["state"]
    return found


def test_it_trains_on_windows_that_stay_there(learner: InstalledSite, fleet: Fleet) -> None:
    machine = Machine.number(1)
    rng = np.random.default_rng(1)
    np.savez(learner.path / "windows.npz", x=machine.windows(rng, machine.labels(rng, WINDOWS)))
    what = ("windows.npz", "--array", "x", "--each", "window", "--format", "f32le", "-t", learner.topic)
    with entered(fleet.bridge):
        learner.edged("send", *what, *learner.connection())
    wait_until(lambda: kept(learner) == WINDOWS)
    learner.host.run("edged", "federate", "data", "label", "--model", "vibration", "--from", "10 min", CONDITIONS[1])
    led = learner.host.run(
        *("edged", "aggregator", "train", "vibration", "--model", "/srv/vibration.tflite", "--json"),
        *("--rounds", "2", "--not-secure", "--least", "1"),
        timeout=300,
    )
    said = json.loads(led.stdout)
    assert len(said["rounds"]) == 2
    assert said["outcome"]
    assert not complaints(learner)


def kept(board: InstalledSite) -> int:
    listed = board.host.run("edged", "federate", "data", "list", "--json").stdout
    return sum(int(one["windows"]) for one in json.loads(listed))


def test_training_gets_what_nobody_else_wants_of_the_cpus_and_half_of_one_at_most(learner: InstalledSite) -> None:
    shown = learner.shows("CPUQuotaPerSecUSec", "CPUSchedulingPolicy", "OOMScoreAdjust", unit="edged-federated")
    assert shown == {"CPUQuotaPerSecUSec": "500ms", "CPUSchedulingPolicy": "5", "OOMScoreAdjust": "500"}
    found = processes(learner, "edged-federated")
    assert len(found) > 1, "edged, and Flower's SuperNode"
    for pid in found:
        status = learner.host.run("cat", f"/proc/{pid}/stat").stdout.rpartition(")")[2].split()
        assert int(status[38]) == os.SCHED_IDLE
        assert int(status[16]) == 19, "its nice value"
    daemon = learner.shows("MainPID")["MainPID"]
    status = learner.host.run("cat", f"/proc/{daemon}/stat").stdout.rpartition(")")[2].split()
    assert int(status[38]) == os.SCHED_OTHER, "the daemon is not touched"


def test_the_quota_holds(learner: InstalledSite) -> None:
    """Whatever a process of the unit does: one that only turns gets half of each second."""
    group = learner.shows("ControlGroup", unit="edged-federated")["ControlGroup"]
    used = float(learner.host.run("python3", "-c", SPIN, group).stdout)
    print(f"\na process that wants all of a CPU gets {used:.0%} of it")
    assert 0 < used <= 0.55


def test_it_ends_with_all_that_it_started(learner: InstalledSite) -> None:
    for unit in UNITS:
        learner.host.run("systemctl", "stop", unit)
        shown = learner.shows("ActiveState", "Result", unit=unit)
        assert shown == {"ActiveState": "inactive", "Result": "success"}
    assert "flower" not in learner.host.run("ps", "-eo", "args").stdout


def test_a_purged_package_leaves_edged_as_it_was(learner: InstalledSite) -> None:
    host = learner.host
    host.run("dpkg", "--purge", "edged-federated")
    assert not (host.root / AGGREGATOR.lstrip("/")).exists()
    assert not (host.root / "usr/lib/edged-federated").exists()
    assert not (host.root / "etc/edged/aggregator.toml").exists()
    assert (host.root / "etc/edged/edged.toml").exists()
    assert (
        host.run("systemctl", "list-unit-files", "edged-federated*", "edged-aggregator*", check=False).stdout.count(
            "edged"
        )
        == 0
    )
    assert learner.shows("ActiveState")["ActiveState"] == "active"
