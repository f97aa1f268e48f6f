"""A daemon that is killed at the one moment that matters: no reading is lost, and none is answered twice.

The link between the board and the broker of its results fails on order: the moment is chosen, and not hit by chance.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edged.base.errors import RepeatedError, ReplayError
from edged.board.state import OutboxStore, State
from edged.formats.channel.reading import ReadingSealer
from edged.formats.cose import cbor
from edged.keystore.records import read_sensor_key
from support.broker import Client, PlainBroker, spin
from support.faults import Board, stored
from support.hub import Hub
from support.link import Link
from support.observer import Observer
from support.process import DaemonProcess
from support.promises import NOTHING_LOST
from support.site import Site
from support.waiting import wait_until

pytestmark = [pytest.mark.broker, NOTHING_LOST]

_PATIENCE = 30.0
"""Seconds within which the hub has heard of everything."""


class World:
    """A board whose results pass a link, a sensor, and a hub that hears the broker behind it."""

    def __init__(self, site: Site, windows: np.ndarray, uplink: PlainBroker, link: Link) -> None:
        site.configure(
            'format = "f32le"\neach = "window"\nsensor = "sensor.key"\n', extra=f'[uplink]\nurl = "{link.url}"\n'
        )
        site.init()
        site.install(site.pack())
        self.site = site
        self.link = link
        self.board = Board(site.path)
        self.hub = Hub(site, url=uplink.url)
        self.sensor = Client(site.options())
        self._windows = windows
        self._sealer = ReadingSealer(read_sensor_key(site.path / "sensor.key"), site.topic)
        self.counts: list[int] = []

    def send(self) -> None:
        """Send one reading, and wait until the sensor's broker has it."""
        window = self._windows[len(self.counts)].astype("<f4")
        self.sensor.publish(self.site.topic, self._sealer.seal(window.tobytes()), qos=1)
        self.counts.append(self._sealer._last)
        spin(self.sensor, until=lambda: not self.sensor.pending)

    def answered(self) -> Counter[int]:
        """Return how often the hub has accepted an answer to each reading, by its count."""
        return Counter(one.result.input.first for one in self.hub.results)  # type: ignore[union-attr]

    def hear(self) -> None:
        """Wait until the last reading is answered."""
        spin(self.hub.client, until=lambda: self.counts[-1] in self.answered(), timeout=_PATIENCE)

    def begin(self) -> None:
        """Send a reading that is answered, as all goes well."""
        self.send()
        self.hear()

    def end(self) -> None:
        """Send one more; it is answered, and all before it, once each."""
        self.send()
        spin(self.hub.client, until=lambda: set(self.counts) <= set(self.answered()), timeout=_PATIENCE)
        assert self.answered() == Counter(self.counts)

    @property
    def daemon(self) -> DaemonProcess:
        """The board's process."""
        assert self.board.daemon is not None
        return self.board.daemon

    def wait_stored(self, number: int) -> None:
        """Wait until so many results are stored beside the first, whose acknowledgement the cut may have lost."""
        first = self.hub.results[0].count
        with closing(State(self.site.state)) as state:
            outbox = OutboxStore(state)
            wait_until(lambda: sum(one.counter > first for one in outbox.after(0, 100)) == number)

    def cut(self) -> None:
        """Take the broker of the results away, and wait until the board knows."""
        self.link.cut(refuse=True)
        self.daemon.wait_logged("connection lost")

    def restore(self) -> None:
        """Let connections that come now through again; what was held is lost."""
        self.link.cut()
        self.link.restore()


@pytest.fixture
def uplink(tmp_path: Path) -> Iterator[PlainBroker]:
    """The broker that results go to."""
    (tmp_path / "uplink").mkdir()
    with PlainBroker(tmp_path / "uplink") as running:
        yield running


@pytest.fixture
def world(site: Site, windows: np.ndarray, uplink: PlainBroker) -> Iterator[World]:
    """All of it, running."""
    with Link(uplink.url, Observer(site, sealed=True)) as link:
        world = World(site, windows, uplink, link)
        world.sensor.connect()
        with world.board.running(), world.hub:
            yield world
        world.sensor.close()


def test_killed_before_the_broker_has_the_result(world: World) -> None:
    """The reading is acknowledged no sooner than its result: it is handed out again."""
    world.begin()
    world.link.hold(down=False)
    world.send()
    wait_until(lambda: len(world.link.observer.results) == 2)
    world.daemon.reload()  # its loop turns meanwhile: what it has to say is on its way
    world.board.kill()

    world.restore()
    world.board.start()

    world.end()
    # a result that waited for long was stored as well: the hub takes one of the two
    assert {type(error) for error in world.hub.refused} <= {RepeatedError}


def test_killed_before_it_hears_that_the_broker_has_the_result(world: World) -> None:
    """The reading is answered again, and the hub takes one of the two."""
    world.begin()
    world.link.hold(up=False)
    world.send()
    world.hear()
    world.board.kill()

    world.restore()
    world.board.start()

    spin(world.hub.client, until=lambda: world.hub.refused or len(world.hub.results) > 2, timeout=_PATIENCE)
    world.end()
    assert {type(error) for error in world.hub.refused} == {RepeatedError}


def test_killed_while_readings_come(world: World) -> None:
    """They wait at their broker."""
    world.begin()
    world.board.kill()
    for _ in range(5):
        world.send()

    world.board.start()

    world.end()


def test_killed_in_an_outage_before_the_result_is_stored(world: World) -> None:
    """Somebody else, a backup say, keeps the board from writing just then."""
    world.begin()
    world.cut()
    with closing(sqlite3.connect(world.site.state / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        world.send()
        world.daemon.wait_logged("outbox: ")  # it was to be stored, and could not be
        world.board.kill()
        other.execute("ROLLBACK")

    world.restore()
    world.board.start()

    world.end()


def test_killed_after_an_acknowledgement_and_a_new_announcement_before_the_result_is_removed(world: World) -> None:
    """The hub forgets what it accepted under an epoch that is announced no more: this one still is."""
    world.begin()
    world.cut()
    world.send()
    world.wait_stored(1)
    world.daemon.reload()  # as above
    world.board.kill()
    world.board.start()  # that result's epoch is closed now
    with closing(sqlite3.connect(world.site.state / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        world.restore()
        world.hear()
        world.daemon.wait_logged("outbox: ")  # the result was to be removed, and could not be
        heard = len(world.hub.announcements)
        question = cbor.encode([world.hub._hub.thumbprint, bytes(16)])
        world.hub.client.publish(f"edged/{world.site.name}/nonce", question, qos=1)  # which is answered by announcing
        spin(world.hub.client, until=lambda: len(world.hub.announcements) > heard, timeout=_PATIENCE)
        world.board.kill()
        other.execute("ROLLBACK")

    world.board.start()

    wait_until(lambda: stored(world.site) == 0)  # the same message has been sent once more
    world.end()
    # the first kill may also have kept the reading's acknowledgement from its broker: then it was answered again
    assert world.hub.refused
    assert {type(error) for error in world.hub.refused} <= {ReplayError, RepeatedError}


def test_killed_in_an_outage_after_the_result_is_stored(world: World) -> None:
    """The result itself waits on the disk."""
    world.begin()
    world.cut()
    for _ in range(5):
        world.send()
    world.wait_stored(5)
    world.daemon.reload()  # as above
    world.board.kill()

    world.restore()
    world.board.start()

    world.end()
