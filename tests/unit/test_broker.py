from __future__ import annotations

import socket

import pytest

from edged.base.errors import ConfigError
from edged.base.topics import topic_matches
from edged.broker import Address
from edged.broker.dial import Backoff
from edged.broker.lean_paho import Wire


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker.local", ("broker.local", 1883, "", False)),
        ("mqtts://broker.local/", ("broker.local", 8883, "", True)),
        ("mqtts://[::1]:1", ("::1", 1, "", True)),
        ("unix:///run/mosquitto.sock", ("", 0, "/run/mosquitto.sock", False)),
    ],
)
def test_url_is_parsed(url: str, expected: tuple[str, int, str, bool]) -> None:
    address = Address.parse(url)
    assert (address.host, address.port, address.path, address.tls) == expected


@pytest.mark.parametrize(
    "url",
    ["", "broker.local", "http://broker", "mqtt://", "mqtt://b:0x1", "mqtt://b:99999", "mqtt://b/path", "mqtt://b?q",
     "unix://", "unix://host/path", "mqtt://[::1"],
)  # fmt: skip
def test_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="broker url"):
        Address.parse(url)


def test_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse("mqtt://user:hunter2@broker")
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    ("wanted", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("+/+", "/a", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "b/a", False),
        ("#", "a/b", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
    ],
)
def test_topic_filter_takes_what_mqtt_says(wanted: str, topic: str, *, expected: bool) -> None:
    assert topic_matches(wanted, topic) is expected


def test_delay_doubles_up_to_a_quarter_of_a_minute_and_starts_again_after_a_connection_that_held() -> None:
    backoff = Backoff()
    for longest in (1, 2, 4, 8, 15, 15):
        assert longest / 2 <= backoff.delay() <= longest
    backoff.note_loss(0.0, held=1.0, code=0)
    assert backoff.delay() >= 7.5
    backoff.note_loss(0.0, held=10.0, code=0)
    assert backoff.delay() <= 1


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([(0, 100, 142), (10, 100, 142), (20, 100, 142)], True),
        ([(0, 1, 0), (10, 1, 0), (20, 1, 0)], True),
        ([(0, 1, 0), (10, 1, 0)], False),
        ([(0, 100, 0), (10, 100, 0), (20, 100, 0)], False),  # a bad network
        ([(0, 1, 139), (10, 1, 139), (20, 1, 139)], False),  # a broker that restarts, and says so
        ([(0, 1, 0), (40, 1, 0), (80, 1, 0)], False),
    ],
)
def test_three_takeovers_within_a_minute_are_a_contest(
    losses: list[tuple[float, float, int]], *, expected: bool
) -> None:
    backoff = Backoff()
    for now, held, code in losses:
        backoff.note_loss(now, held, code)
    assert backoff.contested(losses[-1][0]) is expected


def test_wire_takes_packets_while_the_kernel_takes_nothing_and_pushes_back_beyond_that() -> None:
    near, far = socket.socketpair()
    with near, far:
        wire = Wire(near)
        sent = sum(wire.send(bytes(65536)) for _ in range(5))
        with pytest.raises(BlockingIOError):
            wire.send(b"x")
        received = 0
        while received < sent:
            wire.flush()
            received += len(far.recv(1 << 20))
        assert not wire.unsent


def test_wire_still_reads_what_the_other_side_said_before_it_went() -> None:
    near, far = socket.socketpair()
    with near:
        wire = Wire(near)
        far.sendall(b"reason")
        far.close()
        wire.send(b"x")
        wire.flush()
        assert wire.error is not None
        wire.fill()
        assert (wire.recv(3), wire.recv(100)) == (b"rea", b"son")
        wire.fill()
        assert wire.recv(1) == b""
