"""Many versions, good and bad ones, while readings flow: each reading is answered once, by the version that was live."""

from __future__ import annotations

import json
import os
import threading
import time
from bisect import bisect_right
from pathlib import Path

import numpy as np
import pytest

from edged.base.errors import EdgedError
from edged.base.files import open_regular
from edged.board.installation import Board, mapped
from edged.board.state import State
from edged.broker import Broker
from edged.config.load import load_board
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Role
from edged.formats.package.pack import Contents, pack
from edged.formats.package.verify import Package
from edged.keystore.people import PersonalKeys
from edged.keystore.records import read_record
from edged.model.author import Author
from support.broker import spin
from support.process import DaemonProcess
from support.promises import SIGNED, SWAPS
from support.site import GEARBOX, Site
from support.waiting import wait_until

TIMES = int(os.environ.get("EDGED_SWAPS", "24"))
RATE = 200.0
_EDGE = 0.05
"""Seconds around a change of version in which a result may name either: the log and the result have their own clocks."""

OVERFLOWS = '\n[normalise]\nmethod = "zscore"\nmean = 0.0\nstd = 1e-44\n'
"""Finite for a window of zeros, which its self-test holds, and for no other."""


class Publisher:
    """Packs one version after the other, in this process: a command line would take a second each."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.signer = PersonalKeys.read(site.path / "acme.key", None).signer
        self.board = read_record(site.path / "board.enrol", Role.DEVICE).sealing_key
        self.weights = memoryview((site.models / "gearbox" / "dnn.tflite").read_bytes())
        np.savez(site.path / "zeros.npz", windows=np.zeros((1, 300, 4), "f"), scores=np.zeros((1, 2), "f"))

    def pack(self, version: int, *, self_test: str = "selftest.npz", more: str = "", tolerance: str = "0.02") -> bytes:
        text = GEARBOX.format(version=version).replace("selftest.npz", self_test).replace("0.02", tolerance) + more
        path = self.site.path / "swap.toml"
        path.write_text(text)
        author = Author.read(path)
        contents: Contents = [("model", self.weights), ("self_test", author.read_self_test(self.site.path).encode())]
        chunks = pack(
            author.fields(self.site.path), contents, signer=self.signer, to=[self.board], aead=Aead.A256GCM,
            created=int(time.time()),
        )  # fmt: skip
        return b"".join(chunks)


class Sensor(threading.Thread):
    """Sends whole windows at a steady rate, each different from all others."""

    def __init__(self, site: Site, windows: np.ndarray) -> None:
        super().__init__()
        self._site = site
        self._windows = windows
        self.sent = 0
        self.ended = threading.Event()

    def run(self) -> None:
        broker = Broker(self._site.options())
        broker.connect()
        start = time.monotonic()
        while not self.ended.is_set():
            window = self._windows[self.sent % len(self._windows)].copy()
            window[0, 0] += 1e-6 * (1 + self.sent)
            broker.publish(self._site.topic, window.astype("<f4").tobytes(), qos=1)
            self.sent += 1
            while (wait := start + self.sent / RATE - time.monotonic()) > 0:
                broker.run_once(wait)
        spin(broker, until=lambda: not broker.pending)
        broker.close()


def resident(pid: int) -> int:
    """Return a process's memory in kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def place(site: Site, version: int, data: bytes) -> None:
    """Put a package where installed ones stand, as who can write there would."""
    folder = site.state / "keystore" / "packages"
    board = read_record(site.path / "board.enrol", Role.DEVICE).sealing_key
    grant = Package.parse(memoryview(data)).recipients.only(board.thumbprint).encode()
    for suffix, content in ((".grant", grant), (".edged", data)):
        (folder / ".new").write_bytes(content)
        (folder / ".new").chmod(0o600)
        (folder / ".new").rename(folder / f"gearbox-{version}{suffix}")


def install_and_reload(site: Site, daemon: DaemonProcess, publisher: Publisher, version: int) -> None:
    kind = ("good", "fails its self-test", "corrupted", "fails its trial")[version % 4]
    if kind == "good":
        data = publisher.pack(version)
    elif kind == "fails its trial":
        data = publisher.pack(version, self_test="zeros.npz", more=OVERFLOWS, tolerance="1.0")
    else:
        data = publisher.pack(version, self_test="wrong.npz" if kind == "fails its self-test" else "selftest.npz")
    if kind == "corrupted":
        data = data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:]
    if kind in {"good", "fails its trial"}:
        board = Board(load_board(site.path / "edged.toml"))
        (site.path / "new.edged").write_bytes(data)
        state = State(board.directory)
        with open_regular(site.path / "new.edged") as file:
            board.install(file, site.path / "new.edged", state)
        state.close()
    else:
        place(site, version, data)
    daemon.reload()


@SWAPS
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_readings_are_answered_once_by_the_version_that_was_live(site: Site) -> None:
    site.configure('format = "f32le"\neach = "window"\n[model.trial]\nwindows = 10')
    site.init()
    site.install(site.pack(version=1))
    with np.load(site.path / "selftest.npz") as vectors:
        np.savez(site.path / "wrong.npz", windows=vectors["windows"], scores=1 - vectors["scores"])
    with np.load(site.models / "gearbox" / "golden.npz") as golden:
        windows = golden["raw_windows"]
    publisher = Publisher(site)
    with site.daemon() as daemon, site.listener(10**6, timeout=60) as listener:
        listener.wait_connected()
        sensor = Sensor(site, windows)
        sensor.start()
        try:
            memory = []
            for version in range(2, TIMES + 2):
                install_and_reload(site, daemon, publisher, version)
                trial_ends = sensor.sent + 30
                wait_until(lambda trial_ends=trial_ends: sensor.sent >= trial_ends)
                memory.append(resident(daemon.pid))
        finally:
            sensor.ended.set()
            sensor.join()
        daemon.wait_for(f"{sensor.sent} messages, {sensor.sent} results")
        assert daemon.stop() == 0
        results = listener.wait_printed(sensor.sent)

    assert len(results) == sensor.sent
    assert len({result["input"] for result in results}) == sensor.sent
    assert all(result["version"] == 1 or result["version"] % 4 in {0, 3} for result in results)
    grown = max(memory[len(memory) // 2 :]) - max(memory[: len(memory) // 2])
    assert grown < 5 * 1024, memory
    check_against_audit(site, results)


def check_against_audit(site: Site, results: list[dict[str, float]]) -> None:
    entries = json.loads(site.edged("audit", "--json", "-n", 100_000, "-c", "edged.toml").stdout)
    live = [(entry["time"], entry["version"]) for entry in entries if entry["kind"] in {"swap", "roll-back"}]
    times = [at for at, _ in live]
    for result in results:
        at = result["time"]
        may = {live[max(0, bisect_right(times, at + edge) - 1)][1] for edge in (-_EDGE, 0.0, _EDGE)}
        between = {version for when, version in live if at - _EDGE <= when <= at + _EDGE}
        assert result["version"] in may | between, result
    assert sum(entry["kind"] == "roll-back" for entry in entries) == sum(v % 4 == 3 for v in range(2, TIMES + 2))
    site.edged("audit", "--verify", "-c", "edged.toml")


@SIGNED
def test_a_package_that_somebody_else_signed_is_not_served_from_the_store(site: Site) -> None:
    """Who can write into the directory of packages cannot sign."""
    site.configure('format = "f32le"\neach = "window"')
    site.init()
    site.install(site.pack(version=1))
    publisher = Publisher(site)
    publisher.signer = PrivateKey.generate()
    with site.daemon() as daemon:
        place(site, 2, publisher.pack(2))
        daemon.reload()
        assert daemon.stop() == 0
    assert "gearbox-2.edged" in daemon.log
    with pytest.raises(EdgedError):
        Board(load_board(site.path / "edged.toml")).verify(
            mapped(site.state / "keystore" / "packages" / "gearbox-2.edged"), Path("gearbox-2.edged")
        )
