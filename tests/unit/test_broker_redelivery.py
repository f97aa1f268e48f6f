"""The memory of messages in hand, against a broker that redelivers as MQTT allows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edged.broker import redelivery
from edged.broker.redelivery import MOST_BYTES_IN_HAND, MOST_IN_HAND, MOST_NEWER, Entry, RedeliveryMemory


class Line:
    """A connection to a broker: what was acknowledged on it."""

    def __init__(self, *, session: bool = True) -> None:
        self.memory = RedeliveryMemory()
        self.acknowledged: list[int] = []
        self.reconnect(session=session)

    def reconnect(self, *, session: bool = True) -> None:
        self.memory.disconnected()
        self.acknowledged = []
        self.memory.connected(self.acknowledged.append, session=session)

    def new(self, payload: bytes = b"x", mid: int = 1) -> Entry:
        entry = self.memory.hand_out("t", payload, mid)
        assert entry is not None
        return entry

    def repeated(self, payload: bytes = b"x", mid: int = 1) -> bool:
        return self.memory.is_repeated("t", payload, mid)

    def confirm(self) -> None:
        self.memory.pinged()
        self.memory.ponged()


def test_one_acknowledgement_of_the_caller_acknowledges_the_copy_of_the_present_connection() -> None:
    line = Line()
    entry = line.new(mid=5)
    line.reconnect()
    assert line.repeated(mid=9)
    assert line.acknowledged == []
    entry.ack()
    entry.ack()
    assert line.acknowledged == [9]


def test_copy_of_an_acknowledged_message_is_acknowledged_at_once_and_known_however_often_it_comes() -> None:
    line = Line()
    line.new().ack()
    for mid in (7, 8, 9):
        line.reconnect()
        assert line.repeated(mid=mid)
        assert line.acknowledged == [mid]


def test_acknowledgement_while_disconnected_is_kept_for_the_copy() -> None:
    line = Line()
    entry = line.new(mid=5)
    line.memory.disconnected()
    entry.ack()
    line.reconnect()
    assert line.acknowledged == []
    assert line.repeated(mid=6)
    assert line.acknowledged == [6]


def test_redelivery_on_the_same_connection_joins_by_its_packet_id() -> None:
    line = Line()
    entries = [line.new(mid=1), line.new(mid=2)]
    assert line.repeated(mid=1)
    assert line.repeated(mid=2)
    entries[1].ack()
    assert line.acknowledged == [2]
    entries[0].ack()
    assert line.acknowledged == [2, 1]


def test_of_equal_messages_none_is_lost() -> None:
    """Two of three equal messages were handed out; a later connection redelivers all three."""
    line = Line()
    first, second = line.new(mid=1), line.new(mid=2)
    line.reconnect()
    assert [line.repeated(mid=mid) for mid in (1, 2, 3)] == [True, True, False]
    third = line.new(mid=3)
    for entry in (first, second, third):
        entry.ack()
    assert sorted(line.acknowledged) == [1, 2, 3]


def test_copy_joins_a_message_in_hand_before_an_acknowledged_one() -> None:
    line = Line()
    line.new(mid=1).ack()
    line.new(mid=2)
    line.reconnect()
    assert line.repeated(mid=1)
    assert line.acknowledged == []
    assert line.repeated(mid=2)
    assert line.acknowledged == [2]


def test_message_without_dup_is_never_taken_for_a_copy() -> None:
    line = Line()
    for mid in range(1, 100):
        line.new(mid=mid)
    assert line.memory.in_hand == 99


def test_entry_leaves_with_the_answer_to_a_ping_that_was_sent_after_its_acknowledgement() -> None:
    line = Line()
    line.new(b"before", mid=1).ack()
    line.memory.pinged()
    line.new(b"after", mid=2).ack()
    line.memory.ponged()
    line.reconnect()
    assert not line.repeated(b"before")
    assert line.repeated(b"after")


def test_pings_are_wanted_by_number_by_bytes_and_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redelivery.time, "monotonic", lambda: 100.0)
    line = Line()
    assert not line.memory.wants_ping(1000)
    line.new().ack()
    assert not line.memory.wants_ping(101.9)
    assert line.memory.wants_ping(102)
    for mid in range(2, 65):
        line.new(mid=mid).ack()
    assert line.memory.wants_ping(100)
    line.confirm()
    assert not line.memory.wants_ping(1000)
    line.new(bytes(1 << 20)).ack()
    assert line.memory.wants_ping(100)


def test_without_a_session_nothing_is_redelivered_and_nothing_remembered() -> None:
    line = Line()
    line.new(b"acknowledged", mid=1).ack()
    entry = line.new(b"pending", mid=2)
    line.reconnect(session=False)
    assert not line.repeated(b"acknowledged", mid=3)
    assert not line.repeated(b"pending", mid=4)
    entry.ack()
    assert line.acknowledged == []
    assert line.memory.in_hand == 0


def test_remembered_message_is_acknowledged_when_it_comes() -> None:
    line = Line()
    line.memory.remember("t", b"x")
    line.reconnect()
    assert line.repeated(mid=3)
    assert line.acknowledged == [3]
    assert not line.repeated(mid=4)


def test_entries_of_a_lost_connection_end_after_as_many_newer_ones_as_a_session_has_ids() -> None:
    line = Line()
    line.new(b"old").ack()
    line.reconnect()
    for number in range(MOST_NEWER):
        line.new(mid=number + 1).ack()
        line.confirm()
    assert line.repeated(b"old")
    line.reconnect()
    for number in range(MOST_NEWER + 1):
        line.new(mid=number + 1).ack()
        line.confirm()
    assert not line.repeated(b"old")


def test_caller_has_at_most_so_many_messages_and_bytes_in_hand_but_always_one() -> None:
    line = Line()
    huge = line.memory.hand_out("t", bytes(MOST_BYTES_IN_HAND + 1), 1)
    assert huge is not None
    assert line.memory.hand_out("t", b"", 2) is None
    assert not line.memory.has_fallen()
    huge.ack()
    entries = [line.new(mid=mid) for mid in range(1, MOST_IN_HAND + 1)]
    assert line.memory.hand_out("t", b"x", 5000) is None
    for entry in entries[: MOST_IN_HAND // 2]:
        assert not line.memory.has_fallen()
        entry.ack()
    assert line.memory.has_fallen()


def test_payloads_that_wait_for_a_ping_are_hashed_beyond_a_bound() -> None:
    line = Line()
    payloads = [bytes([number]) * (4 << 20) for number in range(6)]
    for mid, payload in enumerate(payloads, 1):
        line.new(payload, mid).ack()
    for mid, payload in enumerate(payloads, 1):
        assert line.repeated(payload, mid)


@dataclass(eq=False)
class Sent:
    """A message that the broker has, until it knows that the client has it.

    :ivar taken: the client has read it on this connection.
    """

    payload: bytes
    mid: int = 0
    dup: bool = False
    taken: bool = False


class Redelivering(RuleBasedStateMachine):
    """A broker that keeps a session, and a client whose caller acknowledges when it likes.

    Few different payloads, so that many messages are equal. On a new connection the broker sends all that it has, in
    order. Any part of what either side says may be lost with a connection.
    """

    def __init__(self) -> None:
        super().__init__()
        self.memory = RedeliveryMemory()
        self.queue: list[Sent] = []
        self.mid = 0
        self.said: list[int | str] = []
        self.in_hand: list[tuple[bytes, Entry]] = []
        self.published, self.handed, self.acknowledged = Counter[bytes](), Counter[bytes](), Counter[bytes]()
        self.doubtful = Counter[bytes]()
        """Messages that the broker knew to be acknowledged, and the client did not know that, when a line was cut."""
        self.confirmable: list[bytes] = []
        self.memory.connected(self.said.append, session=True)

    @rule(payload=st.sampled_from([b"a", b"b"]))
    def publish(self, payload: bytes) -> None:
        self.published[payload] += 1
        self.queue.append(Sent(payload))

    @rule(read=st.booleans())
    def send_next(self, *, read: bool = True) -> None:
        """Send the oldest message that was not sent on this connection.

        :param read: the client reads it, and does not turn it away.
        """
        sent = next((one for one in self.queue if not one.mid), None)
        if sent is not None:
            self.mid += 1
            sent.mid = self.mid
            if read:
                self.take(sent)
            sent.dup = True

    def take(self, sent: Sent) -> None:
        sent.taken = True
        if sent.dup and self.memory.is_repeated("t", sent.payload, sent.mid):
            return
        entry = self.memory.hand_out("t", sent.payload, sent.mid)
        assert entry is not None
        self.handed[sent.payload] += 1
        self.in_hand.append((sent.payload, entry))

    @rule(at=st.integers(0, 100))
    def send_again(self, at: int) -> None:
        """Send a message again on the same connection, with its packet id, as NATS does."""
        taken = [one for one in self.queue if one.taken]
        if taken:
            sent = taken[at % len(taken)]
            assert self.memory.is_repeated("t", sent.payload, sent.mid)

    @rule(at=st.integers(0, 100))
    def acknowledge(self, at: int) -> None:
        if self.in_hand:
            payload, entry = self.in_hand.pop(at % len(self.in_hand))
            self.acknowledged[payload] += 1
            entry.ack()

    @rule(count=st.integers(1, 5))
    def hear(self, count: int = 1000) -> None:
        """Let the broker hear the next things that the client said."""
        heard, self.said[:] = self.said[:count], self.said[count:]
        for what in heard:
            if what == "ping":
                self.memory.ponged()
                self.confirmable.clear()
                continue
            for sent in self.queue:
                if sent.mid == what:
                    self.queue.remove(sent)
                    self.confirmable.append(sent.payload)
                    break

    @rule()
    def ping(self) -> None:
        if "ping" not in self.said:
            self.memory.pinged()
            self.said.append("ping")

    @rule()
    def cut(self) -> None:
        self.doubtful.update(self.confirmable)
        self.reconnect()

    def reconnect(self) -> None:
        self.memory.disconnected()
        self.said.clear()
        self.confirmable.clear()
        for sent in self.queue:
            sent.mid = 0
            sent.taken = False
        self.memory.connected(self.said.append, session=True)

    @rule()
    def leave(self) -> None:
        """End the connection as a client does that has turned messages away: nothing is in doubt then."""
        self.hear()
        self.memory.freeze()
        self.ping()
        self.acknowledge(0)
        self.hear()
        self.reconnect()

    @invariant()
    def each_message_is_handed_out_once(self) -> None:
        assert self.handed <= self.published

    @invariant()
    def the_broker_forgets_no_message_before_its_acknowledgement(self) -> None:
        """But for equal messages in doubt: one of them may be taken for another."""
        kept = Counter(sent.payload for sent in self.queue)
        assert self.published - kept <= self.acknowledged + self.doubtful

    def teardown(self) -> None:
        """In the end all messages have been handed out, but for as many equal ones as were in doubt."""
        self.leave()
        while any(not sent.mid for sent in self.queue):
            self.send_next()
        assert self.published - self.handed <= self.doubtful


TestRedelivering = Redelivering.TestCase
