"""One identity on two boards, and announcements in the wrong hands: noticed by the hub, by the boards, or by both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edged.board.state import State
from support.bench import GOOD, Bench, live_bench
from support.broker import Client, PrivateBroker, spin
from support.hub import Hub
from support.process import DaemonProcess, Listener
from support.waiting import PATIENCE, wait_until


@pytest.fixture
def bench(models: Path, tmp_path: Path, tls_broker: PrivateBroker, request: pytest.FixtureRequest) -> Bench:
    """A board; each test has a name of its own, because they share the broker."""
    name = f"press-{request.node.name.replace('_', '-')}"[:64]
    return live_bench(tmp_path / "bench", models, tls_broker, name)


@contextmanager
def intruder(bench: Bench) -> Iterator[Client]:
    """Connect somebody who may publish anywhere."""
    client = Client(bench.options())
    client.connect()
    spin(client, until=lambda: client.is_up)
    yield client
    client.close()


def put(client: Client, topic: str, payload: bytes) -> None:
    """Have the broker retain something."""
    token = client.publish(topic, payload, qos=1, retain=True)
    spin(client, until=lambda: token in dict(client.delivered))


def listen_asks(bench: Bench, listener: Listener) -> list[dict[str, object]]:
    """Have one reading answered, which ends ``listener``."""
    with intruder(bench) as sensor:
        put(sensor, bench.topic, GOOD.tobytes())
    return listener.results()


def announce_topic(bench: Bench) -> str:
    return f"edged/{bench.name}/announce"


def wait_for_log(daemons: list[DaemonProcess], *words: str) -> None:
    """Wait until one of ``words`` stands in the log of each daemon."""
    wait_until(
        lambda: all(any(one in daemon.log for one in words) for daemon in daemons),
        PATIENCE,
        told=lambda: "\n\n".join(daemon.log for daemon in daemons),
    )


# --- announcements in the wrong hands --------------------------------------------------------


def test_a_replayed_announcement_is_refused_and_the_boards_own_comes_back(bench: Bench) -> None:
    """Of an earlier epoch: the hub keeps to the newer one, and a hub that comes later finds the newer one too."""
    topic = announce_topic(bench)
    with bench.daemon():
        old = bench.retained(topic)
    with bench.daemon() as daemon, bench.listener(1) as listener, intruder(bench) as replayer:
        listener.wait_connected()
        put(replayer, topic, old)
        said = listener.wait_said("ReplayError")
        assert f"{topic}: ReplayError: {bench.name} announced epoch" in said
        assert "before, and now epoch" in said
        (result,) = listen_asks(bench, listener)
        assert result["device"] == bench.name
        with Hub(bench) as late:
            assert late.ask(GOOD[::-1].tobytes()).device == bench.name
        assert bench.retained(topic) != old
        assert daemon.process.poll() is None


def test_an_announcement_copied_to_another_boards_topic_is_refused(bench: Bench, tmp_path: Path) -> None:
    """Both boards are enrolled; each is believed on its own topic only."""
    other = bench.copy(tmp_path / "other")
    other.name = "press-other"
    config = other.path / "edged.toml"
    config.write_text(config.read_text().replace(bench.name, other.name))
    (other.path / "board.enrol").unlink()
    for path in (other.state / "keystore" / "keys").iterdir():
        path.unlink()
    record = other.init()
    topic = announce_topic(other)
    with bench.daemon(), bench.listener(1, boards=["board.enrol", str(record)]) as listener:
        listener.wait_connected()
        copied = bench.retained(announce_topic(bench))
        with intruder(bench) as copier:
            put(copier, topic, copied)
            said = listener.wait_said("UnknownSignerError")
            put(copier, topic, b"")
        assert f"{topic}: UnknownSignerError: signed by key" in said
        (result,) = listen_asks(bench, listener)
        assert result["device"] == bench.name


def test_junk_in_the_place_of_an_announcement_is_refused_and_replaced(bench: Bench) -> None:
    topic = announce_topic(bench)
    with bench.daemon(), bench.listener(1) as listener, intruder(bench) as vandal:
        listener.wait_connected()
        put(vandal, topic, b"junk")
        assert f"{topic}: FormatError: " in listener.wait_said("FormatError")
        with Hub(bench) as late:
            assert late.ask(GOOD.tobytes()).device == bench.name


def test_a_board_that_is_not_enrolled_is_not_believed(bench: Bench, tmp_path: Path) -> None:
    """It has the name and the topics, and other keys."""
    other = bench.copy(tmp_path / "other")
    for path in (other.state / "keystore" / "keys").iterdir():
        path.unlink()
    other.edged("init", "-c", "edged.toml", "-o", "other.enrol")
    first = other.path / "first.edged"
    first.write_bytes(other.workshop.pack(other.weights, [other.board_key.public], version=2))
    other.install(first)
    with other.daemon(), bench.listener(1, timeout=3) as listener:
        assert "UnknownSignerError: signed by key" in listener.wait_said("UnknownSignerError")
        assert not listen_asks(bench, listener)


# --- a second board with one identity --------------------------------------------------------


def test_two_boards_with_one_identity_say_so(bench: Bench, tmp_path: Path) -> None:
    """A copied card: each takes the connection from the other, and both logs say what may be wrong."""
    twin = bench.copy(tmp_path / "twin")
    with bench.daemon() as one, twin.daemon() as other:
        wait_for_log(
            [one, other],
            f"another client seems to use the client id 'edged-{bench.name}'",
            "another board announces epoch",
        )
        assert "is this board's card a copy?" in one.log + other.log
        assert one.process.poll() is None
        assert other.process.poll() is None


def test_one_epoch_under_two_keys_is_two_boards(bench: Bench, tmp_path: Path) -> None:
    """Copies that were made before the first start begin at the same epoch: `edged listen` believes the first."""
    with closing(State(bench.state)) as state:
        state.begin_epoch(bytes(8), 1 << 40)  # ahead of any clock, so that both go on from here
    twin = bench.copy(tmp_path / "twin")
    with bench.listener(1) as listener:
        with bench.daemon():
            listener.wait_connected()
        with twin.daemon():
            said = listener.wait_said("DuplicateDeviceError")
    assert f"{announce_topic(bench)}: DuplicateDeviceError: two boards announce epoch" in said
    assert bench.name in said


def test_a_board_whose_state_was_lost_goes_on_above_what_it_announced(bench: Bench) -> None:
    """It is the same board, alone: its hub must not be told of two."""
    with closing(State(bench.state)) as state:
        state.begin_epoch(bytes(8), 1 << 40)
    with bench.listener(2) as listener:
        with bench.daemon():
            listener.wait_connected()
            with intruder(bench) as sensor:
                put(sensor, bench.topic, GOOD.tobytes())
                put(sensor, bench.topic, b"")
        for file in bench.state.glob("state.db*"):
            file.unlink()
        with bench.daemon():
            listener.wait_said(f"announces epoch {(1 << 40) + 2}")
            first, second = listen_asks(bench, listener)
    assert first["kid"] != second["kid"]
