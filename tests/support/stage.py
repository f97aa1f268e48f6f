"""A board between two brokers, with an observed link to each, a sensor and a hub: for faults one at a time."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Self

import numpy as np

from edged.formats.channel.reading import ReadingSealer
from edged.keystore.records import read_sensor_key
from support.broker import Client, PlainBroker, spin
from support.faults import Board
from support.hub import Hub
from support.link import Link
from support.observer import Observer, Verdict
from support.process import DaemonProcess
from support.site import Site
from support.waiting import PATIENCE

WINDOWS = 'format = "f32le"\neach = "window"\n'
SEALED_WINDOWS = f'{WINDOWS}sensor = "sensor.key"\n'


class Setting:
    """A site between two brokers, which are stopped and never killed: they need not write with each message."""

    def __init__(self, path: Path, models: Path, windows: np.ndarray) -> None:
        for name in ("near", "far", "site", "runtime"):
            (path / name).mkdir()
        options = ("persistence true", "max_queued_messages 0")
        self.near, self.far = (PlainBroker(path / name, options=options) for name in ("near", "far"))
        self.site = Site(path / "site", models, self.near.url)
        self.runtime = path / "runtime"
        self._windows = windows

    def stage(self, **options: str) -> Stage:
        """Return the stage."""
        return Stage(self.site, self._windows, self.near.url, self.far.url, **options)


class Stage:
    """All of it; it runs for as long as a block lasts.

    :param near: URL of the broker of readings; ``far``: of results.
    :param table: lines of the [[model]] table; ``results``: of [results].
    :ivar near: the link to the broker of readings; ``far``: to that of results.
    :ivar sent: the readings that were sent.
    """

    def __init__(
        self, site: Site, windows: np.ndarray, near: str, far: str, *, table: str = SEALED_WINDOWS, results: str = ""
    ) -> None:
        self.site = site
        self.table = table
        self.results = results
        self.observer = Observer(site, sealed="sensor =" in table)
        self.near, self.far = Link(near, self.observer), Link(far, self.observer)
        self.board = Board(site.path)
        self.sent: list[bytes] = []
        self._windows = windows
        self._sealer = ReadingSealer(read_sensor_key(site.path / "sensor.key"), site.topic)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        site = self.site
        with ExitStack() as stack:
            for link in (self.near, self.far):
                stack.enter_context(link)
            site.url = self.near.url
            config = site.configure(self.table, extra=f'[uplink]\nurl = "{self.far.url}"\n')
            config.write_text(config.read_text().replace('["home.pub"]', f'["home.pub"]\n{self.results}'))
            site.init()
            site.install(site.pack())
            self.hub = Hub(site, url=self.far.url, client_id="hub", session_expiry=3600)
            self.sensor = stack.enter_context(closing(Client(site.options(client_id="sensor"))))
            self.sensor.connect()
            stack.enter_context(self.board.running())
            stack.enter_context(self.hub)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def daemon(self) -> DaemonProcess:
        """The board's process."""
        assert self.board.daemon is not None
        return self.board.daemon

    def reading(self) -> bytes:
        """Return the next reading, which differs from all others."""
        window = self._windows[len(self.sent) % len(self._windows)].copy()
        window[0, 0] += 1e-3 * (1 + len(self.sent))
        payload = window.astype("<f4").tobytes()
        return self._sealer.seal(payload) if "sensor =" in self.table else payload

    @property
    def settled(self) -> int:
        """How many readings the board has acknowledged."""
        return sum(1 for one in self.observer.readings if one.settled)

    def send(self, count: int = 1, payload: bytes | None = None) -> None:
        """Send readings, and wait until their broker has them.

        :param payload: all of them; each another if it is None.
        """
        for _ in range(count):
            self.sent.append(payload or self.reading())
            self.sensor.publish(self.site.topic, self.sent[-1], qos=1)
        spin(self.sensor, until=lambda: not self.sensor.pending, timeout=PATIENCE)

    def ask(self, count: int = 1) -> None:
        """Send readings, and wait until the hub has an answer to each that was sent."""
        self.send(count)
        self.hear(len(self.sent))

    def hear(self, count: int) -> None:
        """Wait until the hub has accepted so many results."""
        spin(self.hub.client, until=lambda: len(self.hub.results) >= count, timeout=PATIENCE)

    def cut_uplink(self) -> None:
        """Take the broker of results away, and wait until the board knows."""
        self.far.cut(refuse=True)
        self.daemon.wait_logged("connection lost")

    def end(self) -> Verdict:
        """Wait until each reading is answered, and once; what would come twice comes before the answer to a last one."""
        for _ in range(2):
            self.send()
            with suppress(AssertionError):  # what is missing is told below
                spin(self.hub.client, until=self._is_decided, timeout=PATIENCE)
            verdict = self.judge()
            assert verdict.is_clean, f"{verdict}; {self.hub.refused}\n{self.daemon.said[-3000:]}"
        return verdict

    def _is_decided(self) -> bool:
        """Return True once each reading is answered, up to the last one, or something can never be right again.

        A result that the hub has not got yet looks like one that its broker has lost: that is waited for.
        """
        verdict, last = self.judge(), self.observer.track(self.site.topic, self.sent[-1])
        is_answered = last.handed_out and verdict.is_clean and not verdict.lost_by_broker
        return bool(verdict.twice or verdict.unasked or is_answered)

    def judge(self) -> Verdict:
        """Return the fate of all readings until now."""
        return self.observer.judge(self.hub.results)
