"""A broker that answers as it likes: whatever it says to results and readings, none is lost and none answered twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edged.base.nothing import nothing
from edged.broker import Delivery
from support.faults import Board, status, stored
from support.hub import Hub
from support.process import DaemonProcess
from support.promises import NOTHING_LOST
from support.scripted_broker import MAXIMUM_PACKET_SIZE, Connack, Packet, ScriptedBroker
from support.site import Site
from support.stage import WINDOWS
from support.waiting import wait_until

pytestmark = [NOTHING_LOST, pytest.mark.timeout(400)]


class Play:
    """A board at a scripted broker that brings readings and takes results, and a hub that hears what it has taken.

    :ivar answer: returns the code for a result, None for no answer.
    """

    def __init__(self, site: Site, windows: np.ndarray, broker: ScriptedBroker) -> None:
        self.site = site
        self.broker = broker
        self.board = Board(site.path)
        self.answer: Callable[[Packet], int | None] = lambda _packet: 0
        self.hub = Hub(site)
        self._taken: list[Packet] = []
        self._heard = 0
        self._windows = windows
        self._payloads: list[bytes] = []
        broker.puback = self._puback

    def _puback(self, packet: Packet) -> int | None:
        is_result = packet.topic.endswith("/c1")
        code = self.answer(packet) if is_result else 0
        if code == 0 and (is_result or packet.topic.endswith("/announce")):
            self._taken.append(packet)
        return code

    @property
    def daemon(self) -> DaemonProcess:
        """The board's process."""
        assert self.board.daemon is not None
        return self.board.daemon

    def hand_out(self, count: int = 1) -> None:
        """Hand out new readings."""
        for _ in range(count):
            number = len(self._payloads)
            window = self._windows[number % len(self._windows)].copy()
            window[0, 0] += 1e-3 * (1 + number)
            self._payloads.append(window.astype("<f4").tobytes())
            self.broker.hand_out(self.site.topic, self._payloads[-1], mid=number + 1)

    def hand_out_again(self, number: int) -> None:
        """Hand out a reading once more, with DUP."""
        self.broker.hand_out(self.site.topic, self._payloads[number], mid=number + 1, dup=True)

    @property
    def acknowledged(self) -> set[int]:
        """Numbers of the readings that the board has acknowledged."""
        return {packet.mid - 1 for packet in self.broker.packets("PUBACK")}

    @property
    def results(self) -> list[Packet]:
        """Results that the board has published."""
        return [packet for packet in self.broker.packets("PUBLISH") if packet.topic.endswith("/c1")]

    def answered(self) -> Counter[int]:
        """Let the hub hear what the broker has taken; return how often it has accepted an answer to each reading."""
        while self._heard < len(self._taken):
            packet = self._taken[self._heard]
            self._heard += 1
            self.hub._take(Delivery(packet.topic, packet.payload, 1, packet.retain, dup=False, ack=nothing))
        numbers = {hashlib.sha256(hashlib.sha256(one).digest()).digest(): at for at, one in enumerate(self._payloads)}
        return Counter(numbers[one.result.input.digest] for one in self.hub.results)  # type: ignore[union-attr]

    def wait_answered(self) -> None:
        """Wait until each reading is answered, and once."""
        wait_until(lambda: len(self.answered()) == len(self._payloads), told=lambda: self.daemon.said[-3000:])
        assert self.answered() == Counter(range(len(self._payloads)))

    def wait_degraded(self, about: str) -> None:
        """Wait until the board says of something that it does not work."""
        wait_until(
            lambda: any(about in one for one in status(self.site)["degraded"]),
            every=0.5,
            told=lambda: status(self.site),
        )

    def wait_recovered(self) -> None:
        """Wait until the board says that everything works."""
        wait_until(lambda: not status(self.site)["degraded"], every=0.5, told=lambda: status(self.site))


@pytest.fixture
def play(
    tmp_path: Path, models: Path, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch, connack: Connack
) -> Iterator[Play]:
    """The board runs, and has subscribed."""
    for name in ("site", "site/runtime"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "site" / "runtime"))
    with ScriptedBroker() as broker:
        broker.connack = lambda _packet: Connack(session=broker.connections > 1, properties=connack.properties)
        site = Site(tmp_path / "site", models, broker.url)
        site.configure(WINDOWS)
        site.init()
        site.install(site.pack())
        play = Play(site, windows, broker)
        with play.board.running():
            broker.wait_for("SUBSCRIBE")
            yield play


@pytest.fixture
def connack() -> Connack:
    """The broker's answer to CONNECT."""
    return Connack()


def test_no_reading_is_acknowledged_whose_result_is_neither_taken_nor_stored(play: Play) -> None:
    """3,500 at once, more than may wait in any queue, to a broker that takes no result."""
    play.answer = lambda _packet: None
    play.hand_out(3500)

    def is_done() -> bool:
        acknowledged = len(play.acknowledged)
        assert acknowledged <= stored(play.site)
        return acknowledged == 3500

    wait_until(is_done, told=lambda: f"{len(play.acknowledged)} acknowledged, {stored(play.site)} stored")
    play.answer = lambda _packet: 0
    play.broker.cut()
    play.wait_answered()


def test_a_reading_that_comes_again_behind_five_thousand_others_is_answered_once(play: Play) -> None:
    """The broker has lost its acknowledgement, and hands it out on the next connection, before any sign of life."""
    play.broker.pings = False
    for _ in range(11):
        play.hand_out(500)
        wait_until(lambda: len(play.acknowledged) == len(play._payloads))
    play.wait_answered()
    play.broker.on_connected = lambda _broker: play.hand_out_again(0)
    play.broker.cut()
    play.broker.wait_for("CONNECT", 2)
    wait_until(lambda: 0 in {packet.mid - 1 for packet in play.broker.packets("PUBACK", 2)})
    play.hand_out()
    play.wait_answered()


@pytest.mark.parametrize("code", [0x80, 0x83, 0x91, 0x97])
def test_a_result_that_the_broker_cannot_take_now_is_sent_again_later(play: Play, code: int) -> None:
    play.answer = lambda _packet: code
    play.hand_out(3)
    wait_until(lambda: len(play.acknowledged) == 3)
    assert stored(play.site) == 3
    play.answer = lambda _packet: 0
    play.wait_answered()
    assert play.broker.connections == 1


def test_a_result_that_the_broker_will_never_take_is_counted_by_the_reason(play: Play) -> None:
    """And the board is degraded for as long as that goes on."""
    codes = iter((0x87, 0x90, 0x99))
    play.answer = lambda _packet: next(codes)
    play.hand_out(3)
    wait_until(lambda: len(play.acknowledged) == 3)
    play.wait_degraded("")
    dropped = status(play.site)["books"]["dropped"]
    assert list(dropped.values()) == [1, 1, 1]
    play.answer = lambda _packet: 0
    play.hand_out()
    wait_until(lambda: play.answered() == Counter([3]))
    play.wait_recovered()
    assert play.broker.connections == 1


def test_any_answer_to_a_result_is_survived(play: Play) -> None:
    """Also those that no version of MQTT has."""
    codes = iter((0x95, 0x9B, 0x8B, 0xFF))
    play.answer = lambda _packet: next(codes, 0)
    play.hand_out(5)
    wait_until(lambda: 4 in play.answered())
    assert set(play.answered().values()) == {1}
    assert play.broker.connections == 1


@pytest.mark.parametrize("way", ["reconnect", "reload"])
def test_a_subscription_that_is_refused_is_told_until_it_is_granted(play: Play, way: str) -> None:
    play.broker.suback = lambda topic, qos: 0x87 if topic == play.site.topic else qos
    play.broker.cut()
    play.wait_degraded(play.site.topic)
    play.broker.suback = lambda _topic, qos: qos
    if way == "reload":
        play.daemon.reload()
    else:
        play.broker.cut()
    play.wait_recovered()


WIDE = """
name = "wide"
version = 1
[input]
channels = ["a1", "a2", "a3", "a4"]
[window]
size = 50
[output]
kind = "regressor"
"""


@pytest.mark.parametrize("connack", [Connack(properties={MAXIMUM_PACKET_SIZE: 1500})], ids=[""])
def test_what_is_larger_than_the_broker_takes_is_not_sent_and_is_counted(play: Play) -> None:
    """A broker ends the connection over such a packet, each time anew; smaller ones still come through."""
    site, window = play.site, np.zeros((1, 50, 4), np.float32)
    wide = f'[[model]]\nname = "wide"\nchannel = "c2"\ntopic = "{site.topic}/wide"\n{WINDOWS}'
    site.configure(WINDOWS, more=wide)
    site.models = Path(__file__).parents[1] / "models"
    site.install(site.pack_example(WIDE, "wide.tflite", {"x": window}))
    play.daemon.reload()
    wait_until(lambda: f"{site.topic}/wide" in str(play.broker.packets("SUBSCRIBE")))
    play.broker.hand_out(f"{site.topic}/wide", window.tobytes(), mid=1000)
    wait_until(lambda: 999 in play.acknowledged)
    play.hand_out(3)
    play.wait_answered()
    play.wait_degraded("")
    assert list(status(play.site)["books"]["dropped"].values()) == [1]
    assert max(len(packet.raw) for packet in play.broker.heard) <= 1500
    assert play.broker.connections == 1
