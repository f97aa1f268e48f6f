"""The broker connection against a real Mosquitto: trust, faults, and what must survive them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edged.base.errors import BrokerError
from edged.broker import Broker, BrokerOptions, Delivery, Message, Outcome, ProbeResult, probe
from edged.keystore.certificates import Authority
from support import nats
from support.broker import DURABLE, Client, PlainBroker, PrivateBroker, old_broker, password_file, spin, talking_server

pytestmark = pytest.mark.broker

MakeClient = Callable[[BrokerOptions], Client]
Pair = tuple[Client, Client]


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[PlainBroker]:
    with PlainBroker(tmp_path, options=DURABLE) as broker:
        yield broker


@pytest.fixture
def private(tmp_path: Path) -> Iterator[PrivateBroker]:
    with PrivateBroker(tmp_path / "tls") as broker:
        yield broker


@pytest.fixture
def client() -> Iterator[MakeClient]:
    """Make clients; they connect at once and are closed at the end."""
    made: list[Client] = []

    def make(options: BrokerOptions) -> Client:
        made.append(Client(options))
        made[-1].connect()
        return made[-1]

    yield make
    for one in made:
        one.close()


def _options(url: str, name: str, **more: object) -> BrokerOptions:
    return dataclasses.replace(BrokerOptions(url=url, client_id=name), **more)  # type: ignore[arg-type]


def _probe(options: BrokerOptions) -> ProbeResult:
    return probe(options, f"edged/{options.client_id}", {}, timeout=30)


def _tls_options(broker: PrivateBroker, name: str) -> BrokerOptions:
    tls = broker.client(name)
    return BrokerOptions(url=broker.url, client_id=name, ca=tls.ca, cert=tls.cert, key=tls.key)


@pytest.fixture
def pair(plain: PlainBroker, client: MakeClient) -> Pair:
    """A board and a hub that hears what the board says on ``t/#``."""
    board, hub = client(_options(plain.url, "board")), client(_options(plain.url, "hub"))
    hub.subscribe("t/#", 1)
    spin(board, hub, until=lambda: board.is_up and hub.hears)
    for _ in range(2):  # Mosquitto answers first and writes next: with the second answer all before is written
        board.publish("nobody", b"", qos=1)
        spin(board, hub, until=lambda: not board.pending)
    board.delivered.clear()
    return board, hub


# --- trust


def test_client_certificate_is_taken_over_tls(private: PrivateBroker, client: MakeClient) -> None:
    board, hub = (client(_tls_options(private, name)) for name in ("board", "hub"))
    hub.subscribe("edged/#", 1)
    spin(board, hub, until=lambda: board.is_up and hub.hears)
    assert "MQTT 5 over TLSv1.3" in board.describe()
    payloads = [bytes([i]) * 20_000 for i in range(50)]  # each larger than a TLS record
    for payload in payloads:
        board.publish("edged/board/c1", payload, qos=1)
    spin(board, hub, until=lambda: len(hub.payloads) == 50 and not board.pending)
    assert hub.payloads == payloads


def test_certificate_for_another_name_is_refused(private: PrivateBroker) -> None:
    options = dataclasses.replace(_tls_options(private, "board"), url=f"mqtts://127.1:{private.port}")
    with pytest.raises(BrokerError, match=r"certificate is not for '127\.1'") as caught:
        _probe(options)
    assert "broker.url" in (caught.value.hint or "")


def foreign_authority(folder: Path) -> Authority:
    """Return an authority that the broker does not know."""
    return Authority("foreign CA", folder / "ca.crt", dt.timedelta(days=1))


def test_certificate_from_an_unknown_ca_is_refused(private: PrivateBroker, tmp_path: Path) -> None:
    options = dataclasses.replace(_tls_options(private, "board"), ca=foreign_authority(tmp_path).ca)
    with pytest.raises(BrokerError, match="from an unknown CA") as caught:
        _probe(options)
    assert "broker.ca" in (caught.value.hint or "")


@pytest.mark.parametrize("with_certificate", [False, True], ids=["without", "with a foreign certificate"])
def test_broker_that_refuses_the_client_certificate_is_understood(
    private: PrivateBroker, tmp_path: Path, *, with_certificate: bool
) -> None:
    options = dataclasses.replace(_tls_options(private, "board"), cert=None, key=None)
    if with_certificate:
        foreign = foreign_authority(tmp_path).issue_client("board", tmp_path / "board.crt", tmp_path / "board.key")
        options = dataclasses.replace(options, cert=foreign.cert, key=foreign.key)
    with pytest.raises(BrokerError, match="refuses this client's certificate") as caught:
        _probe(options)
    assert "broker.cert" in (caught.value.hint or "")


def test_key_of_another_certificate_is_named(private: PrivateBroker) -> None:
    options = dataclasses.replace(_tls_options(private, "board"), key=private.client("other").key)
    with pytest.raises(BrokerError, match=r"broker\.cert .*board\.crt and broker\.key .*other\.key"):
        _probe(options)


def test_tls_on_a_plain_port_is_understood(plain: PlainBroker) -> None:
    with pytest.raises(BrokerError) as caught:
        _probe(_options(f"mqtts://127.0.0.1:{plain.port}", "board"))
    assert "mqtt://" in (caught.value.hint or "")


def test_plain_on_a_tls_port_is_understood(private: PrivateBroker) -> None:
    with pytest.raises(BrokerError, match="without an answer") as caught:
        _probe(_options(f"mqtt://127.0.0.1:{private.port}", "board"))
    assert "mqtts://" in (caught.value.hint or "")


def test_wrong_password_is_named_and_the_right_one_taken(tmp_path: Path) -> None:
    users = password_file(tmp_path / "users", board="right")
    with PlainBroker(tmp_path, [f"password_file {users}", "allow_anonymous false"]) as broker:
        options = _options(broker.url, "board", username="board", password=b"wrong")
        with pytest.raises(BrokerError, match=r"not authorised|user name or password") as caught:
            _probe(options)
        assert "broker.password" in (caught.value.hint or "")
        assert "wrong" not in repr(options)
        assert "MQTT 5" in str(_probe(dataclasses.replace(options, password=b"right")))


def test_subscription_and_message_beyond_the_acl_are_reported(tmp_path: Path, client: MakeClient) -> None:
    (tmp_path / "acl").write_text("topic readwrite allowed/#\n")
    with PlainBroker(tmp_path, ["allow_anonymous true", f"acl_file {tmp_path}/acl"]) as broker:
        board = client(_options(broker.url, "board"))
        board.subscribe("allowed/a", 1)
        token = board.publish("forbidden/b", b"", qos=1)
        spin(board, until=lambda: board.delivered)
        assert board.delivered == [(token, Outcome.REFUSED)]
        assert board.stats.refused == 1
        assert "forbidden/b" in str(board.errors[0])
        assert board.is_up


# --- absence and return


def test_absent_broker_is_named(plain: PlainBroker) -> None:
    plain.stop()
    with pytest.raises(BrokerError, match=f"broker 127.0.0.1:{plain.port}: nothing listens there"):
        _probe(_options(plain.url, "board"))


def test_unknown_host_is_named() -> None:
    with pytest.raises(BrokerError, match=r"broker broker\.invalid:1883: unknown host"):
        _probe(_options("mqtt://broker.invalid", "board"))


def test_error_that_nobody_foresaw_while_dialling_is_named_and_dialling_goes_on(client: MakeClient) -> None:
    board = client(_options("mqtt://broker..invalid", "board"))
    spin(board, until=lambda: len(board.errors) == 2)
    assert all(str(error).startswith("broker broker..invalid:1883: UnicodeError: ") for error in board.errors)


def test_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.broker.connection.TIMEOUT", 0.5)
    with talking_server(b"") as url, pytest.raises(BrokerError, match="does not answer"):
        _probe(_options(url, "board"))


def test_server_that_speaks_something_else_is_refused() -> None:
    with talking_server(b"HTTP/1.1 400 Bad Request\r\n" * 20) as url, pytest.raises(BrokerError, match="broker 127"):
        _probe(_options(url, "board"))


def test_killed_broker_comes_back_with_subscriptions_and_sessions(plain: PlainBroker, pair: Pair) -> None:
    board, hub = pair
    plain.kill()
    spin(board, hub, until=lambda: board.downs == hub.downs == 1)
    assert "not connected" in board.describe()
    plain.start()
    spin(board, hub, until=lambda: board.ups == hub.ups == 2)
    board.publish("t/c1", b"again", qos=1)
    spin(board, hub, until=lambda: hub.payloads)
    assert hub.payloads == [b"again"]


def test_message_published_offline_is_delivered_once(plain: PlainBroker, pair: Pair) -> None:
    board, hub = pair
    plain.kill()
    spin(board, until=lambda: not board.is_up)
    tokens = [board.publish("t/c1", b"%d" % i, qos=1) for i in range(100)]
    assert board.pending == 100
    plain.start()
    spin(board, hub, until=lambda: len(hub.payloads) == 100 and not board.pending)
    assert hub.payloads == [b"%d" % i for i in range(100)]
    assert board.delivered == [(token, Outcome.TAKEN) for token in tokens]


def test_messages_in_flight_when_the_broker_dies_all_arrive(plain: PlainBroker, pair: Pair) -> None:
    """At least once: some may come twice, each is reported once, and their order holds."""
    board, hub = pair
    tokens = [board.publish("t/c1", b"%d" % i, qos=1) for i in range(2000)]
    spin(board, hub, until=lambda: len(board.delivered) > 100)
    plain.kill()
    spin(board, until=lambda: not board.is_up)
    plain.start()
    spin(board, hub, until=lambda: not board.pending and len(set(hub.payloads)) == 2000, timeout=30)
    assert [token for token, _ in board.delivered] == tokens
    assert list(dict.fromkeys(hub.payloads)) == [b"%d" % i for i in range(2000)]


def test_message_in_hand_while_its_broker_restarts_comes_once_and_is_acknowledged_once(
    plain: PlainBroker, pair: Pair, client: MakeClient
) -> None:
    board, hub = pair
    hub.on_message = hub.deliveries.append
    board.publish("t/c1", b"first", qos=1)
    spin(hub, board, until=lambda: hub.payloads and not board.pending)
    plain.stop()
    spin(hub, until=lambda: not hub.is_up)
    plain.start()
    spin(hub, until=lambda: hub.stats.repeated)
    assert hub.payloads == [b"first"]
    hub.deliveries[0].ack()
    hub.close()
    again = client(_options(plain.url, "hub"))
    spin(again, until=lambda: again.is_up)
    board.publish("t/c1", b"second", qos=1)
    spin(again, board, until=lambda: again.payloads)
    assert again.payloads == [b"second"]


def test_message_that_was_acknowledged_does_not_come_again(plain: PlainBroker, pair: Pair, client: MakeClient) -> None:
    board, hub = pair
    board.publish("t/c1", b"first", qos=1)
    spin(hub, board, until=lambda: hub.payloads)
    hub.close()
    again = client(_options(plain.url, "hub"))
    spin(again, until=lambda: again.is_up)
    board.publish("t/c1", b"second", qos=1)
    spin(again, board, until=lambda: again.payloads)
    assert again.payloads == [b"second"]


def test_subscription_taken_back_while_offline_leaves_the_session_too(plain: PlainBroker, pair: Pair) -> None:
    board, hub = pair
    hub.subscribe("new", 1)
    plain.stop()
    spin(hub, board, until=lambda: not hub.is_up and not board.is_up)
    hub.unsubscribe("t/#")
    plain.start()
    spin(hub, board, until=lambda: hub.ups == board.ups == 2)
    for topic in ("t/old", "new"):
        board.publish(topic, topic.encode(), qos=1)
    spin(hub, board, until=lambda: hub.payloads and not board.pending)
    assert hub.payloads == [b"new"]


def test_will_is_published_for_a_client_that_is_lost_and_not_for_one_that_leaves(
    plain: PlainBroker, client: MakeClient
) -> None:
    hub = client(_options(plain.url, "hub"))
    hub.subscribe("status", 1)
    board = client(_options(plain.url, "board", will=Message("status", b"offline", qos=1)))
    spin(hub, board, until=lambda: hub.hears and board.is_up)
    board.publish("status", b"goodbye", qos=1)
    board.close()
    rival = Client(_options(plain.url, "rival", will=Message("status", b"lost", qos=1)))
    rival.connect()
    spin(hub, rival, until=lambda: rival.is_up)
    spin(hub, until=lambda: hub.payloads)
    assert rival._connection is not None
    rival._connection._wire.close()
    spin(hub, until=lambda: len(hub.payloads) == 2)
    assert hub.payloads == [b"goodbye", b"lost"]
    rival.close()


# --- other versions, other transports, limits


@pytest.mark.parametrize("answer", [b"", b"\x20\x03\x00\x84\x00", b"\x20\x02\x00\x01"], ids=["close", "132", "1"])
def test_broker_without_mqtt_5_is_spoken_to_in_3_1_1(plain: PlainBroker, client: MakeClient, answer: bytes) -> None:
    with old_broker(plain.port, answer) as old:
        board = client(_options(old.url, "board"))
        board.subscribe("t", 1)
        spin(board, until=lambda: board.is_up)
        assert (old.versions, board.errors) == ([5, 4], [])
        assert "MQTT 3.1.1" in board.describe()
        board.publish("t", b"echo", qos=1)
        spin(board, until=lambda: board.payloads and board.delivered)
        old.hang_up()
        spin(board, until=lambda: board.ups == 2)
        assert old.versions == [5, 4, 5, 4]


def test_broker_that_spoke_mqtt_5_is_never_spoken_to_in_3_1_1(plain: PlainBroker, client: MakeClient) -> None:
    board = client(_options(plain.url, "board"))
    spin(board, until=lambda: board.is_up)
    with old_broker(plain.port) as old:
        board._options = dataclasses.replace(board._options, url=old.url)
        plain.kill()
        plain.start()
        spin(board, until=lambda: len(old.versions) == 2)
        assert old.versions == [5, 5]


def test_unix_socket_is_spoken_to(tmp_path: Path, client: MakeClient) -> None:
    path = tmp_path / "mosquitto.sock"
    with PlainBroker(tmp_path, ["allow_anonymous true", f"listener 0 {path}", "allow_anonymous true"]):
        board = client(_options(f"unix://{path}", "board"))
        board.subscribe("t", 1)
        board.publish("t", b"echo", qos=1)
        spin(board, until=lambda: board.payloads)
        assert str(path) in board.describe()


def test_client_id_in_use_twice_is_noticed(plain: PlainBroker, client: MakeClient) -> None:
    clones = [client(_options(plain.url, "board")) for _ in range(2)]
    spin(*clones, until=lambda: any("another client" in str(clone.last_error) for clone in clones), timeout=60)


def test_broker_that_restarts_is_not_taken_for_a_second_client(plain: PlainBroker, client: MakeClient) -> None:
    board = client(_options(plain.url, "board"))
    for ups in range(1, 5):
        spin(board, until=lambda ups=ups: board.ups == ups)  # type: ignore[misc]
        plain.kill()
        plain.start()
        spin(board, until=lambda ups=ups: board.downs == ups)  # type: ignore[misc]
    assert "another client" not in "".join(map(str, board.errors))
    assert "client id" not in board.faults


def test_broker_that_takes_few_messages_at_a_time_is_not_overrun(tmp_path: Path, client: MakeClient) -> None:
    with PlainBroker(tmp_path, options=["max_inflight_messages 3"]) as broker:
        board = client(_options(broker.url, "board"))
        board.subscribe("t", 1)
        for i in range(500):
            board.publish("t", b"%d" % i, qos=1)
        spin(board, until=lambda: len(board.payloads) == 500 and not board.pending)
        assert board._connection is not None
        assert board._connection.limits.window <= 20
        assert (board.ups, board.errors) == (1, [])


def test_message_nobody_hears_is_counted(plain: PlainBroker, client: MakeClient) -> None:
    board = client(_options(plain.url, "board"))
    token = board.publish("nobody", b"", qos=1)
    spin(board, until=lambda: board.delivered)
    assert board.delivered == [(token, Outcome.UNHEARD)]
    assert board.stats.unheard == 1


def test_qos_0_is_delivered_and_reported(plain: PlainBroker, client: MakeClient) -> None:
    board = client(_options(plain.url, "board"))
    board.subscribe("t", 0)
    token = board.publish("t", b"once")
    spin(board, until=lambda: board.payloads)
    assert board.delivered == [(token, Outcome.TAKEN)]
    assert not board.pending


def test_large_message_passes_both_ways(plain: PlainBroker, client: MakeClient) -> None:
    board = client(_options(plain.url, "board"))
    board.subscribe("t", 1)
    payload = bytes(10_000_000)
    board.publish("t", payload, qos=1)
    board.publish("t", b"next", qos=1)
    spin(board, until=lambda: len(board.payloads) == 2)
    assert board.payloads == [payload, b"next"]


def test_retained_message_comes_once_however_often_one_subscribes(plain: PlainBroker, client: MakeClient) -> None:
    board = client(_options(plain.url, "board"))
    board.publish("t", b"kept", qos=1, retain=True)
    spin(board, until=lambda: board.delivered)
    board.subscribe("t", 1)
    spin(board, until=lambda: board.payloads)
    board.subscribe("t", 1)
    board.publish("t", b"new", qos=1)
    spin(board, until=lambda: len(board.payloads) > 1)
    assert board.payloads == [b"kept", b"new"]
    assert [delivery.retain for delivery in board.deliveries] == [True, False]


def test_mosquitto_s_limit_of_a_packet_is_obeyed(tmp_path: Path, client: MakeClient) -> None:
    with PlainBroker(tmp_path, options=["max_packet_size 2000"]) as broker:
        board = client(_options(broker.url, "board"))
        board.subscribe("t", 1)
        spin(board, until=lambda: board.hears)
        for size in (1991, 1992):
            board.publish("t", bytes(size), qos=1)
        spin(board, until=lambda: len(board.delivered) == 2 and board.payloads)
        assert [outcome for _, outcome in sorted(board.delivered)] == [Outcome.TAKEN, Outcome.TOO_LARGE]
        assert (board.downs, len(board.payloads[0])) == (0, 1991)


def test_mosquitto_without_qos_1_and_retained_messages_gets_neither_also_in_the_will(
    tmp_path: Path, client: MakeClient
) -> None:
    listener = ["allow_anonymous true", "max_qos 0"]
    with PlainBroker(tmp_path, listener, ["retain_available false"]) as broker:
        board = client(_options(broker.url, "board", will=Message("status", b"offline", qos=1, retain=True)))
        board.subscribe("t", 1)
        board.publish("t", b"x", qos=1, retain=True)
        spin(board, until=lambda: board.payloads and board.delivered, timeout=60)
        assert board.delivered[0][1] is Outcome.TAKEN
        assert board.faults.keys() >= {"QoS", "retained messages"}
        assert not board.downs


def test_mosquitto_that_forgets_sessions_is_a_fault(tmp_path: Path, client: MakeClient) -> None:
    with PlainBroker(tmp_path) as broker:
        board = client(_options(broker.url, "board"))
        spin(board, until=lambda: board.is_up)
        broker.kill()
        spin(board, until=lambda: not board.is_up)
        broker.start()
        spin(board, until=lambda: board.ups == 2)
        assert board.stats.sessions_lost == 1
        assert "session" in board.faults


def test_mosquitto_keeps_what_a_client_cannot_have_in_hand(tmp_path: Path, client: MakeClient) -> None:
    options = ["max_queued_messages 0", "max_queued_bytes 0", "max_inflight_messages 0"]
    with PlainBroker(tmp_path, options=options) as broker:
        hub, board = client(_options(broker.url, "hub")), client(_options(broker.url, "board"))
        hub.on_message = hub.deliveries.append
        hub.subscribe("t", 1)
        spin(hub, board, until=lambda: hub.hears and board.is_up)
        for number in range(1000):
            board.publish("t", b"%04d" % number + bytes(40_000), qos=1)
        spin(hub, board, until=lambda: hub.stats.turned_away and not board.pending, timeout=60)
        acknowledged = 0

        def work() -> bool:
            nonlocal acknowledged
            for delivery in hub.deliveries[acknowledged:]:
                delivery.ack()
            acknowledged = len(hub.deliveries)
            return acknowledged == 1000

        spin(hub, until=work, timeout=60)
        assert [int(payload[:4]) for payload in hub.payloads] == list(range(1000))
        assert (hub.errors, hub.ups) == ([], 2)
        assert hub.stats.sessions_lost == 0


def test_what_nats_redelivers_on_the_same_connection_joins(tmp_path: Path, client: MakeClient) -> None:
    if why := nats.cannot():
        pytest.skip(why)
    with nats.Nats(tmp_path / "nats", 'ack_wait: "1s"') as broker:
        hub, board = client(_options(broker.url, "hub")), client(_options(broker.url, "board"))
        hub.on_message = hub.deliveries.append
        hub.subscribe("t", 1)
        spin(hub, board, until=lambda: hub.hears and board.is_up)
        for payload in (b"a", b"a", b"b"):
            board.publish("t", payload, qos=1)
        spin(hub, board, until=lambda: hub.stats.repeated >= 6, timeout=60)
        assert hub.payloads == [b"a", b"a", b"b"]
        for delivery in hub.deliveries:
            delivery.ack()
        spin(hub, until=lambda: hub._connection is not None and not hub._arrivals.memory._here)
        repeated = hub.stats.repeated
        until = time.monotonic() + 2
        spin(hub, until=lambda: time.monotonic() > until)
        assert (hub.stats.repeated, hub.downs) == (repeated, 0)


# --- the loop


def test_exception_in_a_callback_is_reported_and_the_loop_goes_on(plain: PlainBroker, client: MakeClient) -> None:
    board = client(_options(plain.url, "board"))

    def fail(*_: object) -> None:
        raise LookupError("from a callback")

    board.on_up = board.on_delivered = fail
    take, board.on_message = board.on_message, fail
    board.subscribe("t", 1)
    board.publish("t", b"first", qos=1)
    spin(board, until=lambda: len(board.errors) == 3)
    assert {type(error) for error in board.errors} == {LookupError}
    board.on_message = take
    board.publish("t", b"second", qos=1)
    spin(board, until=lambda: board.payloads)
    assert (board.payloads, board.ups, board.downs) == ([b"second"], 0, 0)


def test_slow_messages_are_handled_one_a_turn(plain: PlainBroker, client: MakeClient) -> None:
    """Signals, timers and answers do not wait for everything that has arrived."""
    board = client(_options(plain.url, "board"))
    board.subscribe("t", 1)
    take = board.on_message

    def dawdle(delivery: Delivery) -> None:
        time.sleep(0.02)
        take(delivery)

    board.on_message = dawdle
    for _ in range(10):
        board.publish("t", b"", qos=1)
    most = 0
    while len(board.payloads) < 10:
        before = len(board.payloads)
        board.run_once(1)
        most = max(most, len(board.payloads) - before)
    assert most == 1


def test_wake_ends_a_wait_from_another_thread(plain: PlainBroker, client: MakeClient) -> None:
    board = client(_options(plain.url, "board"))
    spin(board, until=lambda: board.is_up)
    board.run_once(0.1)
    threading.Timer(0.1, board.wake).start()
    began = time.monotonic()
    board.run_once(1)
    assert time.monotonic() - began < 0.9


def test_idle_connection_is_kept_alive(plain: PlainBroker, client: MakeClient) -> None:
    board = client(_options(plain.url, "board", keepalive=1))
    until = time.monotonic() + 4
    spin(board, until=lambda: time.monotonic() > until)
    assert (board.ups, board.downs) == (1, 0)


def test_close_returns_at_once_while_dialling_and_twice() -> None:
    board = Broker(_options("mqtt://broker.invalid", "board"))
    board.connect()
    board.run_once(0)
    began = time.monotonic()
    board.close()
    board.close()
    board.wake()
    assert time.monotonic() - began < 0.5


def test_probe_leaves_a_running_client_alone(plain: PlainBroker, client: MakeClient) -> None:
    board = client(_options(plain.url, "board"))
    spin(board, until=lambda: board.is_up)
    result = _probe(board._options)
    assert str(plain.port) in str(result)
    board.publish("t", b"", qos=1)
    spin(board, until=lambda: board.delivered)
    assert (board.ups, board.downs) == (1, 0)
