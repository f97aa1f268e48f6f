from __future__ import annotations

import socket

import pytest

from edged.base.errors import ConfigError
from edged.base.topics import topic_matches
from edged.broker import Address
from edged.broker.dial import Backoff
from edged.broker.wire import Wire


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


RESTART = None
SHORT = (1, 0)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([(100, 142)] * 3, True),
        ([(100, 142), RESTART, (1, 142), (1, 142)], True),
        ([(100, 142)] * 2, False),
        ([SHORT] * 5, True),
        ([(15, 0)] * 5, True),  # as the other's longest delay
        ([SHORT] * 4, False),
        ([SHORT, SHORT, RESTART, SHORT, SHORT, SHORT], False),  # a broker that restarts
        ([SHORT, SHORT, (100, 0), SHORT, SHORT, SHORT], False),  # not in a row
        ([(1, 139)] * 5, False),  # a broker that restarts, and says so
        ([(100, 0)] * 5, False),  # a bad network
    ],
)
def test_another_client_is_told_from_a_broker_that_restarts(
    losses: list[tuple[float, int] | None], *, expected: bool
) -> None:
    backoff = Backoff()
    for now, loss in enumerate(losses):
        if loss is None:
            backoff.note_restart()
        else:
            backoff.note_loss(now, *loss)
    assert backoff.contested(len(losses)) is expected


def test_takeovers_over_many_minutes_are_no_contest() -> None:
    backoff = Backoff()
    for now in (0, 40, 80):
        backoff.note_loss(now, 100, 142)
    assert not backoff.contested(80)


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
