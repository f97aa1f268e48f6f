"""Readings that cannot be used: counted, logged once per kind, topic and minute without their content, and nothing else."""

from __future__ import annotations

import base64
import json
import re
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cbor2
import numpy as np
import pytest

from edged.board.state import State
from edged.broker import Delivery
from edged.formats.channel.reading import ReadingSealer
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt0 import parse
from edged.formats.cose.keys import ContentKey
from edged.keystore.records import read_sensor_key
from edged.model.reading import encode_reading
from support.bench import GOOD, Bench, live_bench
from support.broker import PrivateBroker
from support.hub import Hub
from support.process import DaemonProcess
from support.promises import BAD_READINGS, NO_REPLAY
from support.waiting import wait_until

pytestmark = BAD_READINGS

FORMATS = ("json", "text", "csv", "cbor", "f32le")
DAY = 86_400
HUGE = 10_000_000
CANARY = b"canary-4711"
LANE = """
[[model]]
name = "gearbox"
channel = "{channel}"
topic = "{topic}"
format = "{format}"
each = "window"
"""


@dataclass
class Live:
    """A daemon with a lane for each format, and one for sealed readings; and the hub that it answers."""

    bench: Bench
    daemon: DaemonProcess
    hub: Hub
    good: int = 0

    def topic(self, channel: str) -> str:
        return f"factory/{self.bench.name}/{channel}"

    def sealer(self, channel: str = "sealed") -> ReadingSealer:
        return ReadingSealer(read_sensor_key(self.bench.path / "sensor.key"), self.topic(channel))

    def encoded(self, channel: str) -> bytes:
        """Return a good reading that was not sent before."""
        self.good += 1
        reading = encode_reading(GOOD + np.float32(self.good / 1000), "f32le" if channel == "sealed" else channel, None)
        return self.sealer().seal(reading) if channel == "sealed" else reading

    def is_served(self, channel: str) -> None:
        """Ask a good one: what came before it has been dealt with, and has stopped nothing."""
        answer = self.hub.ask(self.encoded(channel), topic=self.topic(channel))
        assert answer.channel == channel

    def refuses(self, channel: str, *bad: bytes) -> None:
        """Send bad readings between two good ones."""
        self.is_served(channel)
        self.passes_over(channel, *bad)

    def passes_over(self, channel: str, *bad: bytes) -> None:
        """Send bad readings ahead of a good one: what is sealed already has no later count before it that refuses it."""
        self.hub.send(*bad, topic=self.topic(channel))
        self.is_served(channel)
        assert self.daemon.process.poll() is None


def configure(bench: Bench) -> None:
    folder = bench.path / "edged.toml.d"
    folder.mkdir()
    topic = f"factory/{bench.name}"
    tables = [LANE.format(channel=name, topic=f"{topic}/{name}", format=name) for name in FORMATS]
    sealed = LANE.format(channel="sealed", topic=f"{topic}/sealed", format="f32le") + 'sensor = "sensor.key"\n'
    (folder / "lanes.toml").write_text("".join([*tables, sealed]))


def start(path: Path, models: Path, broker: PrivateBroker, name: str) -> Iterator[Live]:
    bench = live_bench(path, models, broker, name)
    configure(bench)
    with bench.daemon() as daemon, Hub(bench) as hub:
        yield Live(bench, daemon, hub)


@pytest.fixture(scope="module")
def live(models: Path, tmp_path_factory: pytest.TempPathFactory, tls_broker: PrivateBroker) -> Iterator[Live]:
    """One daemon for all bad readings: none of them may do it harm."""
    yield from start(tmp_path_factory.mktemp("readings") / "bench", models, tls_broker, "press-readings")


@pytest.fixture
def fresh(models: Path, tmp_path: Path, tls_broker: PrivateBroker) -> Iterator[Live]:
    """A daemon of one's own, whose counts and log begin with the test."""
    yield from start(tmp_path / "bench", models, tls_broker, "press-fresh")


def with_value(value: float) -> np.ndarray:
    """Return the good window with one value changed."""
    changed = GOOD.copy()
    changed[3, 1] = value
    return changed


ROWS = GOOD.tolist()
BAD_JSON = {
    "text": CANARY,
    "nothing": b"",
    "not UTF-8": b'["\xff\xfe"]',
    "null": b"null",
    "a number": b"17",
    "an object": b"{}",
    "no rows": b"[]",
    "empty rows": b"[[],[],[],[],[],[],[],[]]",
    "a row too few": json.dumps(ROWS[:-1]).encode(),
    "a row too many": json.dumps([*ROWS, ROWS[0]]).encode(),
    "a channel too few": json.dumps([row[:-1] for row in ROWS]).encode(),
    "rows of different lengths": json.dumps([*ROWS[:-1], ROWS[0][:-1]]).encode(),
    "a third dimension": json.dumps([[[value] for value in row] for row in ROWS]).encode(),
    "text for a number": json.dumps([*ROWS[:-1], ["1", "2", "3", "4"]]).encode(),
    "null for a number": json.dumps([*ROWS[:-1], [1, 2, 3, None]]).encode(),
    "true for a number": json.dumps([*ROWS[:-1], [1, 2, 3, True]]).encode(),
    "NaN": json.dumps([*ROWS[:-1], [1, 2, 3, float("nan")]]).encode(),
    "beyond float32": json.dumps([*ROWS[:-1], [1, 2, 3, 1e300]]).encode(),
    "beyond float64": json.dumps([*ROWS[:-1], [1, 2, 3, 10**400]]).encode(),
    "cut short": json.dumps(ROWS).encode()[:-1],
    "two of them": json.dumps(ROWS).encode() * 2,
    "an object without channels": json.dumps([{"b": 1} for _ in ROWS]).encode(),
    "an object of arrays of different lengths": b'{"a1":[1],"a2":[1,2],"a3":[],"a4":[3]}',
    "nested beyond all stacks": b"[" * 900_000,
    "nested objects": b'{"a1":' * 150_000,
    "nested and closed": b"[" * 400_000 + b"]" * 400_000,
}
BAD_CBOR = {
    "text": CANARY,
    "nothing": b"",
    "cut short": cbor2.dumps(ROWS)[:-1],
    "bytes behind": cbor2.dumps(ROWS) + b"\0",
    "indefinite length": b"\x9f\xff",
    "deep": b"\x81" * 900_000,
    "an array of 2^64 items": b"\x9b" + b"\xff" * 8,
    "a typed array of 2^63 bytes": b"\xd8\x55\x5b\x7f" + b"\xff" * 7,
    "typed array, odd length": cbor2.dumps(cbor2.CBORTag(85, bytes(127))),
    "typed array, a row too many": cbor2.dumps(cbor2.CBORTag(85, bytes(9 * 16))),
    "typed array of NaN": cbor2.dumps(cbor2.CBORTag(85, with_value(float("nan")).tobytes())),
    "doubles beyond float32": cbor2.dumps(cbor2.CBORTag(86, struct.pack("<32d", *[1e300] * 32))),
    "integers": cbor2.dumps(cbor2.CBORTag(70, bytes(128))),
    "other dimensions": cbor2.dumps(cbor2.CBORTag(40, [[4, 8], cbor2.CBORTag(85, bytes(128))])),
    "negative dimensions": cbor2.dumps(cbor2.CBORTag(40, [[-1, -1], cbor2.CBORTag(85, bytes(128))])),
    "huge dimensions": cbor2.dumps(cbor2.CBORTag(40, [[1 << 40, 1 << 40], cbor2.CBORTag(85, b"")])),
    "dimensions in dimensions": b"\xd8\x28\x82\x81\x08" * 3 + b"\xd8\x55\x40",
    "a date": cbor2.dumps(cbor2.CBORTag(0, "2026-01-01T00:00:00Z")),
    "shared references": b"\xd8\x1c\x81\xd8\x1d\x00",
    "a big number": cbor2.dumps([[10**30] * 4] * 8),
    "text in rows": cbor2.dumps([["a"] * 4] * 8),
    "duplicate keys": b"\xa2\x61a\x01\x61a\x02",
    "a sealed message": cbor2.dumps(cbor2.CBORTag(16, [b"\xa1\x01\x03", {4: b"12345678", 5: bytes(12)}, bytes(40)])),
}
BAD_TEXT = {
    "text": CANARY,
    "nothing": b"",
    "spaces": b" " * 1000,
    "NUL": b"\0" * 100,
    "NaN": encode_reading(with_value(float("nan")), "text", None),
    "infinity": encode_reading(with_value(float("-inf")), "text", None),
    "beyond float32": b"1e300 " * 32,
    "a value too few": encode_reading(GOOD, "text", None).rpartition(b",")[0],
    "a value too many": encode_reading(GOOD, "text", None) + b",1",
    "other digits": "١٢٣ ".encode() * 32,
    "hexadecimal": b"0x10 " * 32,
    "half a million values": b"0 " * 450_000,
}
BAD_F32LE = {
    "text": CANARY,
    "nothing": b"",
    "a byte too few": GOOD.tobytes()[:-1],
    "a row too few": GOOD[:-1].tobytes(),
    "a row too many": GOOD.tobytes() + GOOD[:1].tobytes(),
    "NaN": with_value(float("nan")).tobytes(),
    "infinity": with_value(float("inf")).tobytes(),
    "minus infinity": with_value(float("-inf")).tobytes(),
    "both infinities": np.where(np.arange(32).reshape(8, 4) % 2, np.inf, -np.inf).astype("<f4").tobytes(),
    "just below the limit": bytes(999_996),
}
BAD = [
    (channel, name, payload)
    for channel, kinds in (
        ("json", BAD_JSON), ("cbor", BAD_CBOR), ("text", BAD_TEXT), ("csv", BAD_TEXT), ("f32le", BAD_F32LE)
    )
    for name, payload in kinds.items()
]  # fmt: skip


@pytest.mark.parametrize(("channel", "payload"), [pytest.param(c, p, id=f"{c}: {n}") for c, n, p in BAD])
def test_a_reading_that_is_not_as_configured_is_passed_over(live: Live, channel: str, payload: bytes) -> None:
    live.refuses(channel, payload)


@pytest.mark.parametrize("channel", [*FORMATS, "sealed"])
def test_ten_megabytes_of_zeros_are_passed_over(live: Live, channel: str) -> None:
    live.refuses(channel, bytes(HUGE))


# --- sealed ----------------------------------------------------------------------------------


@NO_REPLAY
def test_a_replayed_message_is_passed_over(live: Live) -> None:
    message = live.encoded("sealed")
    live.hub.ask(message, topic=live.topic("sealed"))
    live.passes_over("sealed", message, message)


@NO_REPLAY
def test_an_older_message_that_was_held_back_is_passed_over(live: Live) -> None:
    held_back = live.encoded("sealed")
    live.is_served("sealed")
    live.refuses("sealed", held_back)


@NO_REPLAY
def test_a_message_moved_from_another_topic_is_passed_over(live: Live) -> None:
    live.passes_over("sealed", live.sealer("f32le").seal(GOOD.tobytes()))


@NO_REPLAY
def test_a_flipped_bit_anywhere_is_passed_over(live: Live) -> None:
    message = live.encoded("sealed")
    flipped = [message[:at] + bytes([message[at] ^ 1 << at % 8]) + message[at + 1 :] for at in range(len(message))]
    live.passes_over("sealed", *flipped)


def test_a_message_that_is_cut_short_is_passed_over(live: Live) -> None:
    message = live.encoded("sealed")
    live.passes_over("sealed", *(message[:length] for length in range(len(message))))


@NO_REPLAY
def test_a_message_under_another_key_is_passed_over(live: Live) -> None:
    stranger = ReadingSealer(ContentKey.generate(Aead.A256GCM), live.topic("sealed"))
    live.passes_over("sealed", stranger.seal(GOOD.tobytes()))


def test_a_plain_reading_is_passed_over_where_sealed_ones_are_configured(live: Live) -> None:
    live.refuses("sealed", GOOD.tobytes(), encode_reading(GOOD, "cbor", None), encode_reading(GOOD, "json", None))


def test_a_sealed_reading_is_passed_over_where_plain_ones_are_configured(live: Live) -> None:
    """It does not open by itself because the key happens to be there."""
    for channel in FORMATS:
        live.refuses(channel, live.sealer(channel).seal(GOOD.tobytes()))


def test_a_count_from_the_day_after_tomorrow_would_shut_the_sensor_out(live: Live) -> None:
    sealer = live.sealer()
    sealer._last = time.time_ns() // 1000 + 2 * DAY * 10**6
    live.refuses("sealed", sealer.seal(GOOD.tobytes()))


def test_a_sealed_reading_that_is_none_uses_up_its_own_count_only(live: Live) -> None:
    """Sealed by the right key, and wrong inside: the sensor's next one is answered."""
    live.refuses("sealed", live.sealer().seal(b"short"), live.sealer().seal(b""), live.sealer().seal(bytes(900_000)))


def test_objects_of_other_roles_are_no_readings(live: Live) -> None:
    """The board's own announcement and result, an enrolment record, a package."""
    results: list[bytes] = []
    take = live.hub.client.on_message

    def hear(delivery: Delivery) -> None:
        if delivery.topic == f"edged/{live.bench.name}/sealed":  # the board reports on itself, too
            results.append(delivery.payload)
        take(delivery)

    live.hub.client.on_message = hear
    live.is_served("sealed")
    live.hub.client.on_message = take
    (result,) = results
    record, package = ((live.bench.path / name).read_bytes() for name in ("board.enrol", "first.edged"))
    live.refuses("sealed", result, live.hub.announcements[-1], record, package)
    live.refuses("cbor", result, live.hub.announcements[-1], record, package)


def test_junk_on_the_boards_own_topics_is_passed_over(live: Live) -> None:
    base = f"edged/{live.bench.name}"
    for level in ("announce", "nonce"):
        live.hub.send(CANARY, b"", b"\x82\x40\x40", b"[" * 100_000, bytes(HUGE), topic=f"{base}/{level}")
        live.is_served("json")


def test_nothing_of_a_bad_reading_is_in_the_log(fresh: Live) -> None:
    """One line per kind, topic and minute, and no line with anybody's content."""
    live, stranger = fresh, ReadingSealer(ContentKey.generate(Aead.A256GCM), fresh.topic("sealed"))
    for channel, _, payload in BAD:
        live.hub.send(payload, topic=live.topic(channel))
    live.hub.send(bytes(HUGE), topic=live.topic("json"))
    message = live.encoded("sealed")
    flipped = message[:-1] + bytes([message[-1] ^ 1])
    live.hub.ask(message, topic=live.topic("sealed"))
    live.passes_over(
        "sealed", message, live.sealer().seal(CANARY), flipped, message[:-1], stranger.seal(CANARY), CANARY
    )
    live.is_served("json")
    log = live.daemon.log
    assert "Traceback" not in log
    assert CANARY.decode() not in log
    assert max(map(len, log.splitlines())) < 400
    secrets = [
        live.bench.board_key.scalar(),
        read_sensor_key(live.bench.path / "sensor.key").secret,
        live.bench.weights[-2000:],
    ]
    for secret in secrets:
        for shown in (secret[:12].hex(), base64.b64encode(secret[:12]).decode(), repr(secret[:12])[2:-1]):
            assert shown not in log
    minutes = 1 + (time.time() - live.daemon.log_path.stat().st_ctime) // 60
    logged = Counter(re.findall(r"WARNING (\S+): (\w+Error): ", log))
    kinds = {kind for _, kind in logged}
    assert kinds >= {"ReadingFormatError", "ReadingShapeError", "ReadingValueError", "ReadingSizeError"}
    assert kinds >= {"ReplayError", "UnknownKeyError", "DecryptionError", "FormatError"}
    assert max(logged.values()) <= minutes + 2


# --- counts, memory, restarts ----------------------------------------------------------------


def test_each_bad_reading_is_counted_and_each_kind_is_logged_once_a_topic(fresh: Live) -> None:
    for _ in range(3):
        fresh.hub.send(CANARY, b"[]", b"[[1e300,1,1,1]]", topic=fresh.topic("json"))
        fresh.hub.send(with_value(float("nan")).tobytes(), bytes(HUGE), topic=fresh.topic("f32le"))
        fresh.hub.send(GOOD.tobytes(), topic=fresh.topic("sealed"))
    for channel in ("json", "f32le", "sealed"):
        fresh.is_served(channel)
    assert fresh.daemon.stop() == 0
    log = fresh.daemon.log
    assert "stops: 21 messages, 3 results," in log
    assert ", 18 refused; last error: " in log
    logged = Counter(re.findall(r"WARNING (factory/\S+): (\w+): ", log))
    assert set(logged.values()) == {1}
    assert {(topic.rpartition("/")[2], kind) for topic, kind in logged} == {
        ("json", "ReadingFormatError"),
        ("json", "ReadingShapeError"),
        ("json", "ReadingValueError"),
        ("f32le", "ReadingValueError"),
        ("f32le", "ReadingSizeError"),
        ("sealed", "FormatError"),
    }
    assert CANARY.decode() not in log


def test_memory_does_not_grow_with_what_is_refused(fresh: Live) -> None:
    everything = [(channel, payload) for channel, _, payload in BAD]

    def play() -> int:
        for channel, payload in everything:
            fresh.hub.send(payload, topic=fresh.topic(channel))
        for channel in ("json", "f32le", "sealed"):
            fresh.hub.send(bytes(HUGE), topic=fresh.topic(channel))
            fresh.is_served(channel)
        return resident(fresh.daemon.pid)

    sizes = [play() for _ in range(8)]  # libc keeps the room of a huge message now and then, and gives it back later
    assert min(sizes[4:]) - min(sizes[:4]) < 6_000_000, sizes


def resident(pid: int) -> int:
    """Return the bytes of a process's own that are in RAM; of an undumpable one only this file says so to everybody."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.findall(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)[0])


@NO_REPLAY
@pytest.mark.parametrize("end", ["terminated", "killed"])
def test_a_sealed_reading_is_not_accepted_again_after_a_restart(fresh: Live, end: str) -> None:
    """What was settled more than two seconds before a crash stays settled, and everything before an orderly end."""
    messages = [fresh.encoded("sealed") for _ in range(3)]
    for message in messages:
        fresh.hub.ask(message, topic=fresh.topic("sealed"))
    if end == "killed":
        count = int.from_bytes(parse(messages[-1], len(messages[-1])).iv[:8], "big")
        with closing(State(fresh.bench.state)) as state:
            wait_until(lambda: count in state.marks().values())
        fresh.daemon.process.kill()
    fresh.daemon.stop()
    with fresh.bench.daemon() as daemon:
        again = Live(fresh.bench, daemon, fresh.hub, good=100)
        again.passes_over("sealed", *messages)
        daemon.stop()
        assert "4 messages, 1 results," in daemon.log
        assert "ReplayError: count" in daemon.log
