"""The broker connection against brokers that do anything that MQTT allows, and more."""

from __future__ import annotations

import dataclasses
import logging
import select
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edged.base.errors import BrokerError, RefusedError
from edged.broker import BrokerOptions, Delivery, Message, Outcome
from edged.broker.lean_paho import LONGEST_PACKET
from edged.broker.redelivery import MOST_IN_HAND
from edged.broker.talk import Talk
from support.broker import Client, spin
from support.scripted_broker import (
    MAXIMUM_PACKET_SIZE,
    MAXIMUM_QOS,
    RECEIVE_MAXIMUM,
    RETAIN_AVAILABLE,
    SERVER_KEEP_ALIVE,
    Connack,
    Packet,
    ScriptedBroker,
)
from support.waiting import PATIENCE

pytestmark = pytest.mark.broker

Connect = Callable[..., Client]


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker() as broker:
        yield broker


@pytest.fixture
def connect(broker: ScriptedBroker) -> Iterator[Connect]:
    """Connect a client that acknowledges nothing by itself."""
    made: list[Client] = []

    def make(*, until: Callable[[Client], object] = lambda client: client.ups, **options: object) -> Client:
        client = Client(dataclasses.replace(BrokerOptions(url=broker.url, client_id="board"), **options))  # type: ignore[arg-type]
        client.on_message = client.deliveries.append
        made.append(client)
        client.connect()
        spin(client, until=lambda: until(client))
        return client

    yield make
    for one in made:
        one.close()


def answering(code: int = 0, *, session: bool = False, **numbers: int) -> Callable[[Packet], Connack]:
    known = {
        "packet_size": MAXIMUM_PACKET_SIZE,
        "qos": MAXIMUM_QOS,
        "retain": RETAIN_AVAILABLE,
        "keep_alive": SERVER_KEEP_ALIVE,
        "receive_maximum": RECEIVE_MAXIMUM,
    }
    return lambda _packet: Connack(code, session, {known[name]: number for name, number in numbers.items()})


def only_3_1_1(packet: Packet) -> Connack:
    return Connack(0x84 if packet.raw[8] == 5 else 0)


def reconnect(broker: ScriptedBroker, client: Client, *, session: bool = True) -> None:
    broker.connack = answering(session=session)
    ups = client.ups
    broker.cut()
    spin(client, until=lambda: client.ups > ups)


# --- once


def test_message_is_handed_out_once_however_often_its_broker_redelivers_it(
    broker: ScriptedBroker, connect: Connect
) -> None:
    client = connect()
    copies: list[Delivery] = []
    client.on_repeated = copies.append
    broker.hand_out("t", b"window", mid=4)
    spin(client, until=lambda: client.payloads)
    for mid in (5, 6):
        reconnect(broker, client)
        broker.hand_out("t", b"window", mid=mid, dup=True)
        spin(client, until=lambda mid=mid: len(copies) == mid - 4)  # type: ignore[misc]
    client.deliveries[0].ack()
    spin(client, until=lambda: broker.acknowledged)
    assert (broker.acknowledged, client.payloads, client.stats.repeated) == ([6], [b"window"], 2)


def test_copy_of_an_acknowledged_message_is_acknowledged_at_once(broker: ScriptedBroker, connect: Connect) -> None:
    client = connect()
    broker.hand_out("t", b"window", mid=4)
    spin(client, until=lambda: client.payloads)
    broker.cut()
    spin(client, until=lambda: client.downs)
    client.deliveries[0].ack()
    reconnect_in(broker, client)
    broker.hand_out("t", b"window", mid=9, dup=True)
    spin(client, until=lambda: broker.acknowledged)
    assert (broker.acknowledged, len(client.payloads)) == ([9], 1)


def reconnect_in(broker: ScriptedBroker, client: Client) -> None:
    """Wait for the connection that comes after a cut; its session is there."""
    broker.connack = answering(session=True)
    spin(client, until=lambda: client.is_up)


def test_message_without_dup_and_one_that_is_unknown_are_handed_out(broker: ScriptedBroker, connect: Connect) -> None:
    client = connect()
    broker.hand_out("t", b"constant", mid=1)
    broker.hand_out("t", b"constant", mid=2)
    broker.hand_out("t", b"unknown", mid=3, dup=True)
    spin(client, until=lambda: len(client.payloads) == 3)
    assert [one.dup for one in client.deliveries] == [False, False, True]


def test_redelivery_on_the_same_connection_joins(broker: ScriptedBroker, connect: Connect) -> None:
    client = connect()
    broker.hand_out("t", b"window", mid=4)
    broker.hand_out("t", b"window", mid=4, dup=True)
    spin(client, until=lambda: client.stats.repeated)
    client.deliveries[0].ack()
    spin(client, until=lambda: broker.acknowledged)
    assert (broker.acknowledged, len(client.payloads)) == ([4], 1)


def test_memory_ends_with_the_answer_to_a_ping_behind_the_acknowledgement(
    broker: ScriptedBroker, connect: Connect
) -> None:
    client = connect()
    broker.hand_out("t", b"window", mid=1)
    spin(client, until=lambda: client.payloads)
    client.deliveries[0].ack()
    spin(client, until=lambda: any(one.kind == "PINGRESP" for one in broker.said))
    assert [one.kind for one in broker.heard[-2:]] == ["PUBACK", "PINGREQ"]
    spin(client, until=lambda: client._connection is not None and not client._connection.pinging)
    reconnect(broker, client)
    broker.hand_out("t", b"window", mid=1, dup=True)  # another message, which a cut had kept from this client
    spin(client, until=lambda: len(client.payloads) == 2)


def test_message_that_an_earlier_process_dealt_with_is_not_handed_out(broker: ScriptedBroker) -> None:
    broker.connack = answering(session=True)
    client = Client(BrokerOptions(url=broker.url, client_id="board"))
    client.remember("t", b"on disk")
    client.connect()
    spin(client, until=lambda: client.ups)
    broker.hand_out("t", b"on disk", mid=3, dup=True)
    spin(client, until=lambda: broker.acknowledged == [3])
    assert client.payloads == []
    client.close()


def test_without_a_session_nothing_is_taken_for_a_copy(broker: ScriptedBroker, connect: Connect) -> None:
    client = connect()
    broker.hand_out("t", b"window", mid=4)
    spin(client, until=lambda: client.payloads)
    reconnect(broker, client, session=False)
    client.deliveries[0].ack()
    broker.hand_out("t", b"window", mid=4, dup=True)
    spin(client, until=lambda: len(client.payloads) == 2)
    assert broker.acknowledged == []


def test_message_of_qos_2_is_acknowledged_as_such(broker: ScriptedBroker, connect: Connect) -> None:
    """Nobody asks for it, but a session of another client with this id may hold some."""
    client = connect()
    broker.hand_out("t", b"x", qos=2, mid=5)
    spin(client, until=lambda: client.payloads)
    client.deliveries[0].ack()
    spin(client, until=lambda: broker.packets("PUBREC"))
    broker.say_bytes(b"\x62\x02\x00\x05")
    spin(client, until=lambda: broker.packets("PUBCOMP"))
    assert broker.acknowledged == []


# --- too much at once


class Flood:
    """Hands out messages without regard to Receive Maximum, and on each connection all that is unacknowledged."""

    def __init__(self, broker: ScriptedBroker, count: int) -> None:
        self._broker = broker
        self._left = [b"%d" % number for number in range(count)]
        self._ids: dict[int, bytes] = {}
        self._sent: set[bytes] = set()
        self._connection = 0
        broker.connack = answering(session=True)
        broker.on_connected = lambda _broker: self.pour()

    def pour(self) -> None:
        done = {self._ids[one.mid] for one in self._broker.packets("PUBACK", self._connection)}
        self._left = [payload for payload in self._left if payload not in done]
        self._connection = self._broker.connections
        self._ids = dict(enumerate(self._left, 1))
        for mid, payload in self._ids.items():
            self._broker.hand_out("t", payload, mid=mid, dup=payload in self._sent)
        self._sent.update(self._left)
        self._broker.hand_out("t", b"fleeting", qos=0)


@pytest.mark.parametrize("version", [5, 4])
def test_what_the_caller_cannot_have_in_hand_stays_at_the_broker_and_keeps_its_order(
    broker: ScriptedBroker, connect: Connect, version: int
) -> None:
    count = 2 * MOST_IN_HAND
    Flood(broker, count)
    if version == 4:
        broker.connack = lambda packet: Connack(0x84) if packet.raw[8] == 5 else Connack(session=True)
    client = connect(until=lambda client: client.stats.turned_away)
    spin(client, until=lambda: client.payloads[-1] == b"fleeting", timeout=60)
    assert len(client.payloads) == MOST_IN_HAND + 1
    assert client.stats.turned_away == count - MOST_IN_HAND
    assert not broker.packets("PUBACK")
    acknowledged = 0

    def work() -> bool:
        nonlocal acknowledged
        for delivery in client.deliveries[acknowledged : acknowledged + 100]:
            delivery.ack()
        acknowledged = min(acknowledged + 100, len(client.deliveries))
        return sum(payload != b"fleeting" for payload in client.payloads) == count

    spin(client, until=work, timeout=120)
    taken = [one for one in client.payloads if one != b"fleeting"]
    assert taken == [b"%d" % number for number in range(count)]
    left = broker.packets("DISCONNECT")
    assert {one.code for one in left} == {0x93 if version == 5 else 0}
    assert client.errors == []


def test_no_acknowledgement_goes_out_between_the_last_ping_and_the_end(
    broker: ScriptedBroker, connect: Connect
) -> None:
    """Equal messages could not be told apart otherwise: as many come again as were not acknowledged."""
    broker.connack = answering(session=True)
    client = connect()
    for mid in range(1, MOST_IN_HAND + 11):
        broker.hand_out("t", b"constant", mid=mid)
    spin(client, until=lambda: client.stats.turned_away == 10, timeout=60)
    broker.pings = False
    for delivery in client.deliveries[: MOST_IN_HAND // 2]:
        delivery.ack()
    spin(client, until=lambda: broker.packets("PINGREQ") and len(broker.acknowledged) == MOST_IN_HAND // 2)
    in_hand = client.deliveries[MOST_IN_HAND // 2 :]
    for delivery in in_hand[:100]:
        delivery.ack()
    broker.pings = True
    for _ in broker.packets("PINGREQ"):
        broker.say_bytes(b"\xd0\x00")
    spin(client, until=lambda: client.ups == 2)
    assert len(broker.packets("PUBACK", 1)) == MOST_IN_HAND // 2
    for mid in range(1, len(in_hand) + 11):
        broker.hand_out("t", b"constant", mid=mid, dup=True)
    spin(client, until=lambda: len(client.payloads) == MOST_IN_HAND + 10)
    assert client.stats.repeated == len(in_hand)


# --- what becomes of published messages

SPECIAL = {
    0x10: Outcome.UNHEARD,
    0x80: Outcome.POSTPONED,
    0x83: Outcome.POSTPONED,
    0x91: Outcome.POSTPONED,
    0x97: Outcome.POSTPONED,
    0x95: Outcome.TOO_LARGE,
}


def test_any_answer_to_a_message_is_an_outcome(broker: ScriptedBroker, connect: Connect) -> None:
    broker.puback = lambda packet: packet.payload[0]
    client = connect()
    tokens = {client.publish("t", bytes([code]), qos=1): code for code in range(256)}
    spin(client, until=lambda: len(client.delivered) == 256)
    for token, outcome in client.delivered:
        code = tokens[token]
        assert outcome is SPECIAL.get(code, Outcome.REFUSED if code >= 0x80 else Outcome.TAKEN)
    assert client.downs == 0
    assert all(isinstance(error, RefusedError) for error in client.errors)
    assert any("quota exceeded (0x97)" in str(error) for error in client.errors)
    assert any("0xee, which MQTT does not know" in str(error) for error in client.errors)


def test_message_that_is_too_large_is_not_sent_and_reported_from_the_loop(
    broker: ScriptedBroker, connect: Connect
) -> None:
    broker.connack = answering(packet_size=100)
    client = connect()
    fits, too_large = client.publish("t", bytes(92), qos=1), client.publish("t", bytes(93), qos=1)
    withdrawn = client.publish("t", bytes(94), qos=1)
    assert client.delivered == []
    assert client.withdraw(withdrawn)
    spin(client, until=lambda: len(client.delivered) == 2)
    assert dict(client.delivered) == {fits: Outcome.TAKEN, too_large: Outcome.TOO_LARGE}
    assert [len(one.raw) for one in broker.packets("PUBLISH")] == [100]
    assert isinstance(client.errors[0], RefusedError)
    assert "max_packet_size" in (client.errors[0].hint or "")


def test_subscriptions_go_in_packets_that_the_broker_takes(broker: ScriptedBroker) -> None:
    broker.connack = answering(packet_size=64)
    client = Client(BrokerOptions(url=broker.url, client_id="board"))
    names = [f"sensors/{number:02}/readings" for number in range(20)]
    for name in [*names, "x" * 100]:
        client.subscribe(name, 1)
    client.connect()
    spin(client, until=lambda: client.ups and client.hears)
    for name in names:
        client.unsubscribe(name)
    spin(client, until=lambda: sum(len(one.topics) for one in broker.packets("UNSUBSCRIBE")) == 20)
    asked = broker.packets("SUBSCRIBE") + broker.packets("UNSUBSCRIBE")
    assert max(len(one.raw) for one in asked) <= 64
    assert [topic for one in broker.packets("SUBSCRIBE") for topic, _ in one.topics] == names
    assert list(client.faults) == [f"subscription {'x' * 100}"]
    client.close()


def test_broker_without_qos_1_and_without_retained_messages_gets_neither(
    broker: ScriptedBroker, connect: Connect
) -> None:
    broker.connack = answering(qos=0, retain=0)
    client = connect()
    token = client.publish("t", b"x", qos=1, retain=True)
    spin(client, until=lambda: client.delivered and broker.published)
    sent = broker.packets("PUBLISH")[0]
    assert (sent.qos, sent.retain, client.delivered) == (0, False, [(token, Outcome.TAKEN)])
    assert client.faults.keys() == {"QoS", "retained messages"}


def test_will_that_a_broker_does_not_take_is_made_smaller(broker: ScriptedBroker, connect: Connect) -> None:
    broker.connack = lambda packet: Connack(0x9A if packet.retain else 0x9B if packet.qos else 0)
    client = connect(will=Message("status", b"offline", 1, retain=True))
    assert [(one.qos, one.retain) for one in broker.packets("CONNECT")] == [(1, True), (1, False), (0, False)]
    assert client.errors == []


@pytest.mark.parametrize("code", [0x9A, 0x9B, 0xEE])
def test_broker_that_refuses_whatever_the_will_is_not_asked_in_a_loop(
    broker: ScriptedBroker, connect: Connect, code: int
) -> None:
    broker.connack = answering(code)
    client = connect(until=lambda client: client.errors, will=Message("status", b"offline", 1, retain=True))
    assert broker.connections <= 2
    assert f"0x{code:02x}" in str(client.errors[0])


def test_withdrawn_message_is_not_sent_again_and_has_no_outcome(broker: ScriptedBroker, connect: Connect) -> None:
    broker.puback = lambda _packet: None
    client = connect()
    withdrawn, kept = client.publish("t", b"withdrawn", qos=1), client.publish("t", b"kept", qos=1)
    spin(client, until=lambda: len(broker.published) == 2)
    assert not client.withdraw(withdrawn)
    broker.puback = lambda _packet: 0
    reconnect(broker, client)
    spin(client, until=lambda: client.delivered)
    assert broker.published == [b"withdrawn", b"kept", b"kept"]
    assert client.delivered == [(kept, Outcome.TAKEN)]
    assert client.pending == 0


def test_window_of_the_broker_is_kept_with_withdrawn_messages_in_it(broker: ScriptedBroker, connect: Connect) -> None:
    broker.puback = lambda _packet: None
    broker.connack = answering(receive_maximum=2)
    client = connect()
    tokens = [client.publish("t", b"%d" % number, qos=1) for number in range(3)]
    spin(client, until=lambda: len(broker.published) == 2)
    assert [client.withdraw(token) for token in tokens] == [False, False, True]
    assert client.pending == 2


# --- faults and losses


def test_refused_subscription_is_a_fault_until_it_is_mended(broker: ScriptedBroker, connect: Connect) -> None:
    codes = {"a": 0xEE, "b": 0x87, "c": 1}
    broker.suback = lambda topic, _qos: codes[topic]
    client = connect()
    for topic in codes:
        client.subscribe(topic, 1)
    spin(client, until=lambda: client.hears)
    assert client.faults.keys() == {"subscription a", "subscription b"}
    assert client.is_up
    client.unsubscribe("a")
    codes["b"] = 1
    client._subscriptions._retry_at = 0  # a minute later
    spin(client, until=lambda: not client.faults)
    assert [one.topics for one in broker.packets("SUBSCRIBE")][-1] == (("b", 1),)


def test_session_that_is_gone_is_counted_and_a_fault_until_one_is_resumed(
    broker: ScriptedBroker, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect()
    assert (client.stats.sessions_lost, client.faults) == (0, {})
    with caplog.at_level(logging.WARNING):
        reconnect(broker, client, session=False)
    assert client.stats.sessions_lost == 1
    assert "persistence" in client.faults["session"]
    assert "did not keep the session" in caplog.text
    reconnect(broker, client, session=True)
    assert (client.stats.sessions_lost, client.faults) == (1, {})


def test_retained_messages_are_asked_for_or_not(broker: ScriptedBroker, connect: Connect) -> None:
    client = connect()
    client.subscribe("a", 1)
    client.subscribe("b", 1, retained=False)
    spin(client, until=lambda: client.hears)
    assert [one.topics for one in broker.packets("SUBSCRIBE")] == [(("a", 0x01),), (("b", 0x21),)]


def test_retained_messages_come_in_any_case_in_3_1_1(broker: ScriptedBroker, connect: Connect) -> None:
    broker.connack = only_3_1_1
    client = connect()
    client.subscribe("b", 1, retained=False)
    spin(client, until=lambda: client.hears)
    assert broker.packets("SUBSCRIBE")[0].topics == (("b", 0x01),)


def test_topic_alias_that_nobody_allowed_ends_the_connection_with_a_sentence(
    broker: ScriptedBroker, connect: Connect
) -> None:
    client = connect()
    broker.hand_out("t", b"x", alias=1)
    spin(client, until=lambda: client.errors)
    assert "Topic Alias" in str(client.errors[0])
    assert client.payloads == []
    spin(client, until=lambda: broker.packets("DISCONNECT"))
    assert broker.packets("DISCONNECT")[0].code == 0x94
    assert broker.connections == 1


@pytest.mark.parametrize("silent", [True, False], ids=["half-open", "pings ignored"])
def test_silent_broker_is_given_up_within_a_keepalive(broker: ScriptedBroker, connect: Connect, silent: bool) -> None:
    client = connect(keepalive=2)
    broker.silent, broker.pings = silent, False
    spin(client, until=lambda: client.downs, timeout=60)
    broker.silent = False
    assert "nothing came from it for" in str(client.errors[0])
    assert "went away without a word" in (client.last_error.hint if client.last_error else "")


def test_broker_that_speaks_is_not_silent_though_it_ignores_pings(broker: ScriptedBroker, connect: Connect) -> None:
    broker.pings = False
    client = connect(keepalive=1)
    began = broker.packets("CONNECT")[0].at

    def speak() -> bool:
        broker.hand_out("t", b"x", qos=0)
        return bool(client.downs) or broker.said[-1].at - began > 4

    spin(client, until=speak, timeout=60)
    assert client.downs == 0
    assert broker.packets("PINGREQ")


def test_shorter_keepalive_of_the_broker_is_kept(broker: ScriptedBroker, connect: Connect) -> None:
    broker.connack = answering(keep_alive=2)
    client = connect()
    spin(client, until=lambda: len(broker.packets("PINGREQ")) == 2, timeout=30)
    assert client.downs == 0


def test_client_that_did_not_keep_up_is_told_from_a_network_that_failed(
    broker: ScriptedBroker, connect: Connect
) -> None:
    client = connect()
    assert client._connection is not None
    client._connection.drained_at -= 60
    broker.cut()
    client.turn({client._connection.fileno(): select.POLLIN}, time.monotonic())
    assert "messages waited here for 60 s" in str(client.errors[0])
    spin(client, until=lambda: client.is_up)
    broker.cut()
    spin(client, until=lambda: len(client.errors) == 2)
    assert "connection lost" in str(client.errors[1])


def test_another_client_with_this_id_is_a_fault_by_its_reason_code(broker: ScriptedBroker, connect: Connect) -> None:
    client = connect()
    for losses in range(1, 4):
        broker.disconnect(0x8E)
        spin(client, until=lambda losses=losses: client.downs == losses)  # type: ignore[misc]
        if losses < 3:
            assert "client id" not in client.faults
            spin(client, until=lambda: client.is_up)
    assert "client id" in client.faults
    assert "card a copy" in (client.last_error.hint if client.last_error else "")


@pytest.mark.parametrize("code", [0x00, 0x8B, 0x8D, 0xEE])
def test_any_reason_for_a_disconnect_is_survived_and_told(broker: ScriptedBroker, connect: Connect, code: int) -> None:
    client = connect()
    broker.disconnect(code)
    spin(client, until=lambda: client.errors and client.is_up)
    assert f"0x{code:02x}" in str(client.errors[0])


def test_time_of_the_last_drain_follows_an_idle_and_a_busy_connection(broker: ScriptedBroker, connect: Connect) -> None:
    client = connect()
    before = client.drained_at
    spin(client, until=lambda: client.drained_at > before)
    sent = 0

    def keep_busy() -> bool:
        nonlocal sent
        sent += 1
        broker.hand_out("t", b"x", qos=0)
        return sent > 100

    before = client.drained_at
    spin(client, until=keep_busy)
    assert client.drained_at > before


# --- packets that are too long ---------------------------------------------------------------


def test_broker_is_told_the_longest_packet(broker: ScriptedBroker, connect: Connect) -> None:
    connect()
    assert broker.packets("CONNECT")[0].properties[MAXIMUM_PACKET_SIZE] == LONGEST_PACKET


@pytest.mark.parametrize("old", [False, True], ids=["5", "3.1.1"])
def test_packet_that_is_too_long_is_kept_in_part_and_can_be_acknowledged(
    broker: ScriptedBroker, connect: Connect, *, old: bool
) -> None:
    """The longest that MQTT knows would take half of a board's memory."""
    if old:
        broker.connack = only_3_1_1
    client = connect()

    def hand_out() -> None:
        broker.hand_out("t", bytes(3 * LONGEST_PACKET), mid=7)
        broker.hand_out("t", b"next", mid=8)

    threading.Thread(target=hand_out, daemon=True).start()
    spin(client, until=lambda: len(client.deliveries) == 2, timeout=PATIENCE)
    long, following = client.deliveries
    assert 16_000_000 < len(long.payload) <= LONGEST_PACKET + 200_000
    assert (long.topic, following.payload) == ("t", b"next")
    for delivery in client.deliveries:
        delivery.ack()
    spin(client, until=lambda: broker.acknowledged == [7, 8])


# --- a broker that is asked how it behaves ---------------------------------------------------


def test_message_that_a_loaded_broker_delivers_late_is_not_taken_for_one_that_it_withholds(
    broker: ScriptedBroker,
) -> None:
    def deliver_late(packet: Packet) -> int:
        threading.Timer(2.5, broker.hand_out, (packet.topic, packet.payload)).start()
        return 0

    broker.puback = deliver_late
    with Talk(BrokerOptions(url=broker.url, client_id="board-check"), timeout=10) as talk:
        talk.subscribe("edged/board/check")
        assert talk.publish("edged/board/check", [b"one"]) == ""
        assert talk.hears("edged/board/check", b"one")


def test_broker_that_does_not_answer_a_subscription_is_not_said_to_refuse_it(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.broker.talk.ANSWER_WITHIN", 0.2)
    broker.on_connected = lambda broker: setattr(broker, "silent", True)
    with (
        Talk(BrokerOptions(url=broker.url, client_id="board-check"), timeout=10) as talk,
        pytest.raises(BrokerError, match="no answer in time"),
    ):
        talk.subscribe("hall/press")
