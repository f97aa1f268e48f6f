"""The observer's own verdicts: a reading that is lost, answered twice, or lost by a broker, is told as what it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edged.formats.channel.reading import ReadingSealer
from edged.formats.channel.result import Input, Plain, Sealed
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt0 import parse
from edged.formats.cose.keys import ContentKey
from support.link import Link
from support.observer import Conversation, Observer, Verdict
from support.scripted_broker import ScriptedBroker
from support.site import Site
from support.stage import WINDOWS
from support.waiting import wait_until

TOPIC = "factory/press-07/vibration"


class Scene:
    """A sensor and a board at one broker, and the results that a hub accepts."""

    def __init__(self, version: int = 5, *, sealed: bool = False, per_window: int = 1) -> None:
        self.observer = Observer(sealed=sealed, per_window=per_window)
        self.modern = version == 5
        self.sensor, self.board = (self._client(name, version) for name in ("sensor", "edged-press-07"))
        self.accepted: list[Any] = []
        self._mid = 0

    def _client(self, name: str, version: int) -> Conversation:
        conversation = Conversation(self.observer)
        will = b"" if version < 5 else b"\5\x11\0\0\0\1"
        hear(conversation, 0x10, b"\0\4MQTT" + bytes([version, 2, 0, 30]) + will + text(name), up=True)
        assert conversation.client == name
        return conversation

    def publish(self, client: Conversation, payload: bytes, *, up: bool, dup: bool = False) -> int:
        self._mid += 1
        body = text(TOPIC) + self._mid.to_bytes(2, "big") + (b"\0" if self.modern else b"") + payload
        hear(client, 0x32 | dup << 3, body, up=up)
        return self._mid

    def send(self, payload: bytes) -> None:
        acknowledge(self.sensor, self.publish(self.sensor, payload, up=True), up=False)

    def hand_out(self, payload: bytes, *, dup: bool = False, settle: bool = True) -> None:
        mid = self.publish(self.board, payload, up=False, dup=dup)
        if settle:
            acknowledge(self.board, mid, up=True)

    def ping(self) -> None:
        hear(self.board, 0xC0, b"", up=True)
        hear(self.board, 0xD0, b"", up=False)

    def carry(self, payload: bytes) -> None:
        self.send(payload)
        self.hand_out(payload)

    def answer(self, of: Input) -> None:
        self.accepted.append(SimpleNamespace(result=SimpleNamespace(input=of)))

    def judge(self) -> Verdict:
        return self.observer.judge(self.accepted)


def text(words: str) -> bytes:
    return len(words).to_bytes(2, "big") + words.encode()


def hear(conversation: Conversation, first: int, body: bytes, *, up: bool) -> None:
    """Let a packet pass byte by byte: TCP keeps no bounds."""
    size = bytes([len(body) % 128 | 128, len(body) // 128]) if len(body) > 127 else bytes([len(body)])
    packets = [one for byte in bytes([first]) + size + body for one in conversation.cut(bytes([byte]), up=up)]
    assert len(packets) == 1
    conversation.note(packets[0], up=up)


def acknowledge(conversation: Conversation, mid: int, *, up: bool) -> None:
    hear(conversation, 0x40, mid.to_bytes(2, "big"), up=up)


def named(*readings: bytes) -> Plain:
    """Return the name that a result gives plain readings."""
    return Plain(hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in readings)).digest())


@pytest.mark.parametrize("version", [4, 5])
def test_a_reading_that_is_acknowledged_and_not_answered_is_lost(version: int) -> None:
    scene = Scene(version)
    for payload in (b"a" * 300, b"b"):
        scene.carry(payload)
    scene.answer(named(b"a" * 300))
    verdict = scene.judge()
    assert [one.digest for one in verdict.lost] == [hashlib.sha256(b"b").digest()]
    assert (verdict.answered, verdict.twice, verdict.unsettled) == (1, [], [])


def test_a_reading_that_is_not_acknowledged_yet_is_not_lost_and_not_done() -> None:
    scene = Scene()
    scene.send(b"a")
    scene.hand_out(b"a", settle=False)
    verdict = scene.judge()
    assert (verdict.lost, len(verdict.unsettled), verdict.is_clean) == ([], 1, False)


def test_what_the_broker_never_hands_out_is_lost_by_the_broker() -> None:
    scene = Scene()
    scene.send(b"a")
    verdict = scene.judge()
    assert (verdict.lost_by_broker, verdict.is_clean) == (1, True)


def test_a_reading_that_is_answered_twice_is_told() -> None:
    scene = Scene()
    scene.carry(b"a")
    scene.hand_out(b"a", dup=True)
    for _ in range(2):
        scene.answer(named(b"a"))
    assert len(scene.judge().twice) == 1


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_reading_that_is_handed_out_again_is_the_broker_s_fault_if_it_had_read_the_acknowledgement(
    confirmed: bool,
) -> None:
    scene = Scene()
    scene.carry(b"a")
    if confirmed:
        scene.ping()
    scene.hand_out(b"a", dup=True)
    for _ in range(2):
        scene.answer(named(b"a"))
    verdict = scene.judge()
    assert (verdict.forgotten_by_broker, len(verdict.twice)) == ((1, 0) if confirmed else (0, 1))


def test_equal_plain_windows_are_counted() -> None:
    scene = Scene()
    for _ in range(3):
        scene.carry(b"a")
    for _ in range(2):
        scene.answer(named(b"a"))
    assert len(scene.judge().lost) == 1
    scene.answer(named(b"a"))
    assert scene.judge().is_clean
    scene.answer(named(b"a"))
    assert len(scene.judge().twice) == 1


def test_rows_are_answered_by_their_window_and_the_last_ones_wait_for_theirs() -> None:
    scene = Scene(per_window=2)
    rows = [bytes([number]) for number in range(7)]
    for row in rows:
        scene.carry(row)
    scene.answer(named(*rows[:2]))
    scene.answer(named(*rows[4:6]))
    assert [one.digest for one in scene.judge().lost] == [hashlib.sha256(row).digest() for row in rows[2:4]]
    scene.answer(named(*rows[2:4]))
    assert scene.judge().is_clean


def test_sealed_readings_are_told_by_their_counts() -> None:
    scene = Scene(sealed=True, per_window=2)
    sealer = ReadingSealer(ContentKey.generate(Aead.A256GCM), TOPIC)
    rows = [sealer.seal(b"row") for _ in range(4)]
    counts = [int.from_bytes(parse(row, len(row)).iv[:8], "big") for row in rows]
    for row in rows:
        scene.carry(row)
    scene.answer(Sealed(bytes(8), counts[2], counts[3]))
    assert len(scene.judge().lost) == 2
    scene.answer(Sealed(bytes(8), counts[0], counts[1]))
    assert scene.judge().is_clean
    scene.answer(Sealed(bytes(8), counts[1], counts[2]))
    assert len(scene.judge().twice) == 2


def test_an_answer_to_nothing_is_told() -> None:
    scene = Scene()
    scene.answer(named(b"a"))
    assert scene.judge().unasked == 1


def test_a_result_that_its_broker_has_acknowledged_and_lost_is_told_by_what_it_answers(
    tmp_path: Path, models: Path, windows: np.ndarray
) -> None:
    """The observer opens it with the hub's key: a board's own word is not needed."""
    site = Site(tmp_path, models, "")
    observer = Observer(site, sealed=False)
    with ScriptedBroker() as broker, Link(broker.url, observer) as link:
        site.url = link.url
        site.configure(WINDOWS)
        site.init()
        site.install(site.pack())
        with site.daemon():
            broker.wait_for("SUBSCRIBE")
            broker.hand_out(site.topic, windows[0].astype("<f4").tobytes())
            wait_until(lambda: broker.acknowledged)
    verdict = observer.judge([])
    assert (verdict.lost_by_broker, verdict.lost) == (1, [])
