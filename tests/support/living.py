"""A board that serves on while its files are broken and mended under it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edged.base.files import write_atomically
from edged.formats.channel.reading import ReadingSealer
from edged.formats.cose.keys import ContentKey
from edged.keystore.records import read_sensor_key
from edged.model.reading import encode_reading
from support.bench import GOOD, Bench, make_bench
from support.broker import PlainBroker, spin
from support.commands import Done
from support.hub import Hub
from support.process import DaemonProcess
from support.waiting import PATIENCE, wait_until

DROP_IN = """
[broker]
username = "board"
password = "password.txt"

[results]
heartbeat = "1 s"
hubs = ["home.pub"]

[[model]]
name = "gearbox"
channel = "c1"
topic = "{topic}"
format = "f32le"
each = "window"
sensor = "sensor.key"
trial = {{ windows = 1 }}

[model.collect]
at_most_every = "1 us"
label = "operator"
"""


@dataclass
class Living:
    """A daemon, and the hub that it answers. Its site has a file of every kind.

    :ivar runtime: the directory in RAM that systemd would give.
    :ivar asked: how many readings were made, ``last``: the count of the newest.
    """

    bench: Bench
    daemon: DaemonProcess
    hub: Hub
    runtime: Path
    key: ContentKey
    asked: int = 0
    last: int = 0
    _heard: int = 0

    def ask(self) -> None:
        """Have the process that was there from the beginning answer a reading that was not sent before."""
        self.hub.ask(self.reading(), timeout=PATIENCE)
        assert self.daemon.process.poll() is None

    def reading(self) -> bytes:
        """Return a sealed reading that was not sent before."""
        self.asked += 1
        reading = encode_reading(GOOD + np.float32(self.asked / 1000), "f32le", None)
        sealer = ReadingSealer(self.key, self.bench.topic)
        sealed = sealer.seal(reading)
        self.last = sealer._last
        return sealed

    def forget_log(self) -> None:
        """Pass over what was logged up to now."""
        self._heard = len(self.daemon.said)

    @property
    def logged(self) -> str:
        """The log since :meth:`forget_log`."""
        return self.daemon.said[self._heard :]

    def wait_logged(self, *wanted: str) -> None:
        """Wait until the log since :meth:`forget_log` has a line with all that is wanted."""

        def found() -> bool:
            assert self.daemon.process.poll() is None, self.logged
            return any(all(one in line for one in wanted) for line in self.logged.splitlines())

        wait_until(found, told=lambda: f"{wanted} in\n{self.logged}")

    def wait_whole(self) -> None:
        """Wait until a report says that nothing is degraded."""
        reports = self.hub.reports
        reports.clear()
        try:
            spin(self.hub.client, until=lambda: reports and not reports[-1].degraded, timeout=PATIENCE)
        except AssertionError:
            raise AssertionError(f"still degraded: {reports[-1:]}\n{self.logged}") from None

    def status(self, *options: str) -> Done:
        """Run `edged status`."""
        environment = {**os.environ, "RUNTIME_DIRECTORY": str(self.runtime)}
        return self.bench.run("status", "-c", "edged.toml", *options, check=False, env=environment)

    @property
    def drop_in(self) -> Path:
        """What is merged over the configuration: it says, among others, that readings are sealed."""
        return self.bench.path / "edged.toml.d" / "10-site.toml"

    def told(self) -> dict[str, Any]:
        """Return what `edged status` tells a machine."""
        done = self.status("--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@contextmanager
def living(path: Path, models: Path, *, prefix: Sequence[str] = (), state: Path | None = None) -> Iterator[Living]:
    """Run a board under ``path``, with its broker and its hub, until the block ends.

    Nothing synchronises its clock.

    :param prefix: what stands before the daemon's command.
    :param state: where its state lies, if not below ``path``.
    """
    for name in ("broker", "run"):
        (path / name).mkdir(parents=True, mode=0o700)
    if state is not None:
        (path / "site").mkdir(mode=0o700)
        (path / "site" / "state").symlink_to(state)
    with PlainBroker(path / "broker") as broker:
        bench = make_bench(path / "site", models, broker.url, name="press-living")
        config = bench.path / "edged.toml"
        config.write_text(config.read_text().replace('clock = "trusted"\n', ""))
        write_atomically(bench.path / "password.txt", [b"of a broker that asks for none"], mode=0o600, replace=False)
        folder = bench.path / "edged.toml.d"
        folder.mkdir()
        (folder / "10-site.toml").write_text(DROP_IN.format(topic=bench.topic))
        second = bench.path / "second.edged"
        second.write_bytes(bench.pack_fast(version=2))
        bench.install(second)
        environment = {"RUNTIME_DIRECTORY": str(path / "run")}
        with bench.daemon(environment=environment, prefix=prefix) as daemon, Hub(bench) as hub:
            found = Living(bench, daemon, hub, path / "run", read_sensor_key(bench.path / "sensor.key"))
            found.ask()
            yield found
