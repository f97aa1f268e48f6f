"""Sealed readings: each count is accepted once, and only from the sensor and topic that it was sealed for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import (
    DecryptionError,
    EdgedError,
    FormatError,
    KeystoreError,
    OutputError,
    PermissionsError,
    ReplayError,
    UnknownKeyError,
)
from edged.board.state import State
from edged.formats.channel import MarkKey
from edged.formats.channel.reading import CLOCK_COUNTS, ReadingOpener, ReadingSealer, ReplayGuard, names_of
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt0 import parse
from edged.formats.cose.keys import ContentKey
from edged.keystore.records import read_sensor_key, write_sensor_key

TOPIC = "factory/press-07/vibration"
MARK = MarkKey(bytes(8), "press-07", "vibration", "c1")
DAY = 86_400 * 1_000_000


def now() -> int:
    return time.time_ns() // 1000


@pytest.mark.parametrize("aead", list(Aead))
def test_reading_opens_on_its_topic(aead: Aead) -> None:
    key = ContentKey.generate(aead)
    opened = ReadingOpener(key, TOPIC, "c1").open(ReadingSealer(key, TOPIC).seal(b"1 2 3"), 1024)
    assert (opened.payload, opened.key) == (b"1 2 3", MarkKey(key.kid, "press-07", "vibration", "c1"))
    assert abs(opened.count - now()) < DAY


def test_reading_moved_to_another_topic() -> None:
    key = ContentKey.generate(Aead.A256GCM)
    message = ReadingSealer(key, TOPIC).seal(b"1")
    for topic in ("factory/press-08/vibration", "factory/press-07/current", "vibration"):
        with pytest.raises(DecryptionError):
            ReadingOpener(key, topic, "c1").open(message, 1024)
    ReadingOpener(key, "elsewhere/press-07/vibration", "c1").open(
        message, 1024
    )  # the last two levels are what is bound


def test_reading_of_another_sensor() -> None:
    message = ReadingSealer(ContentKey.generate(Aead.A256GCM), TOPIC).seal(b"1")
    with pytest.raises(UnknownKeyError):
        ReadingOpener(ContentKey.generate(Aead.A256GCM), TOPIC, "c1").open(message, 1024)


def test_reading_plain_where_sealed_is_configured() -> None:
    with pytest.raises(FormatError):
        ReadingOpener(ContentKey.generate(Aead.A256GCM), TOPIC, "c1").open(b'{"a1": 1}', 1024)


def test_reading_flipped_at_every_bit() -> None:
    key = ContentKey.generate(Aead.A256GCM)
    opener, message = ReadingOpener(key, TOPIC, "c1"), ReadingSealer(key, TOPIC).seal(b"1")
    for at in range(8 * len(message)):
        altered = bytearray(message)
        altered[at // 8] ^= 1 << at % 8
        with pytest.raises(EdgedError):
            opener.open(bytes(altered), 1024)


def test_reading_beyond_the_limit() -> None:
    key = ContentKey.generate(Aead.A256GCM)
    with pytest.raises(FormatError):
        ReadingOpener(key, TOPIC, "c1").open(ReadingSealer(key, TOPIC).seal(bytes(2000)), 1024)


def test_sealer_counts_grow_and_salts_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even while the clock stands still or goes back: under one key no nonce may come twice."""
    sealer = ReadingSealer(ContentKey.generate(Aead.A256GCM), TOPIC)
    clock = iter([10**18, 10**18, 10**17, 2 * 10**18])
    monkeypatch.setattr("edged.formats.channel.reading.time.time_ns", lambda: next(clock))
    ivs = [parse(sealer.seal(b""), 1024).iv for _ in range(4)]
    counts = [int.from_bytes(iv[:8], "big") for iv in ivs]
    assert counts == [10**15, 10**15 + 1, 10**15 + 2, 2 * 10**15]
    assert len({iv[8:] for iv in ivs}) == 4


@pytest.mark.parametrize(
    ("topic", "names"), [("a/b/c", ("b", "c")), ("b/c", ("b", "c")), ("c", ("c", "c")), ("/c", ("", "c"))]
)
def test_names_of_topic(topic: str, names: tuple[str, str]) -> None:
    assert names_of(topic) == names


# --- the guard -------------------------------------------------------------------------------


def test_guard_accepts_each_count_once() -> None:
    guard = ReplayGuard({})
    for count in (0, 1, 5, 100):
        guard.check(MARK, count, clock_synchronised=True)
        guard.accept(MARK, count)
        for old in range(count + 1):
            with pytest.raises(ReplayError):
                guard.check(MARK, old, clock_synchronised=True)


def test_guard_check_alone_accepts_nothing() -> None:
    """A reading that turns out to be unusable may come again, put right."""
    guard = ReplayGuard({})
    guard.check(MARK, 7, clock_synchronised=True)
    guard.check(MARK, 7, clock_synchronised=True)


def test_guard_keeps_sensors_and_topics_apart() -> None:
    guard = ReplayGuard({})
    guard.accept(MARK, 9)
    for other in (MARK._replace(kid=b"8" * 8), MARK._replace(sensor="x"), MARK._replace(channel="x")):
        guard.check(other, 1, clock_synchronised=True)


def test_guard_refuses_a_clock_over_a_day_ahead() -> None:
    """Such a count would shut the sensor out until that day."""
    guard = ReplayGuard({})
    guard.check(MARK, now() + DAY - 60_000_000, clock_synchronised=True)
    with pytest.raises(ReplayError, match="day ahead"):
        guard.check(MARK, now() + DAY + 60_000_000, clock_synchronised=True)
    guard.check(MARK, now() + DAY + 60_000_000, clock_synchronised=False)


def test_guard_takes_counts_below_the_bound_for_counters() -> None:
    ReplayGuard({}).check(MARK, CLOCK_COUNTS - 1, clock_synchronised=True)


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=30))
def test_guard_accepts_a_rising_sequence_and_nothing_else(counts: list[int]) -> None:
    guard, last = ReplayGuard({}), -1
    for count in counts:
        try:
            guard.check(MARK, count, clock_synchronised=False)
        except ReplayError:
            assert count <= last
            continue
        assert count > last
        guard.accept(MARK, count)
        last = count


@pytest.mark.parametrize("count", [0, 7, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_guard_refuses_a_replay_after_a_restart(tmp_path: Path, count: int) -> None:
    state = State(tmp_path / "state")
    guard = ReplayGuard(state.marks())
    guard.accept(MARK, count)
    assert guard.take_settled() == {}, "not done yet: after a crash the broker hands it out again"
    guard.settle(MARK, count)
    state.save_marks(guard.take_settled().items())
    state.close()
    state = State(tmp_path / "state")
    with pytest.raises(ReplayError):
        ReplayGuard(state.marks()).check(MARK, count, clock_synchronised=False)
    state.close()


def test_guard_settles_no_count_above_one_that_still_waits_for_its_result() -> None:
    """After a crash that one is handed out again, and must not be refused then."""
    guard = ReplayGuard({})
    for count in (3, 5, 9):
        guard.accept(MARK, count)
    settled = []
    for count in (3, 9, 5):
        guard.settle(MARK, count)
        settled.append(guard.take_settled()[MARK])
    assert settled == [4, 4, 9]
    assert guard.take_settled() == {}
    assert guard.settled() == {MARK: 9}


# --- the key file ----------------------------------------------------------------------------


def test_key_file_is_private_and_comes_back(tmp_path: Path) -> None:
    key, path = ContentKey.generate(Aead.CHACHA20_POLY1305), tmp_path / "press-07.key"
    write_sensor_key(path, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_sensor_key(path) == key
    with pytest.raises(OutputError):
        write_sensor_key(path, key)


def test_key_file_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "press-07.key"
    write_sensor_key(path, ContentKey.generate(Aead.A256GCM))
    path.chmod(0o640)
    with pytest.raises(PermissionsError) as caught:
        read_sensor_key(path)
    assert caught.value.hint == f"chmod 0600 {path}"


def test_key_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "press-07.key"
    path.touch(0o600)
    for content in (b"", b"0" * 32, b"\xa0", bytes(200)):
        path.write_bytes(content)
        with pytest.raises(KeystoreError, match=r"press-07\.key"):
            read_sensor_key(path)
