"""The memory of messages in hand: a redelivered message is handed to the caller once, as far as redelivery can reach.

Brokers redeliver what was not acknowledged, with DUP (MQTT 5.0, section 3.3.1.1), also where the acknowledgement was on
its way when the connection ended. On a later connection the copy is known by topic and payload, since brokers choose
new packet ids. On the same connection (NATS redelivers so) the id stays with its message until that is acknowledged.

An entry leaves once the broker is known to have its acknowledgement: brokers handle packets in order, so the answer to
a later PINGREQ says so. docs/adr/0018-redelivery.md has the reasons.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import sha256

MOST_IN_HAND = 4096
MOST_BYTES_IN_HAND = 32 << 20
"""Messages, and bytes of their payloads, that the caller may have in hand without acknowledging them."""
MOST_NEWER = 65_535
"""New messages after which an entry of a lost connection is given up: a session has no more packet ids."""
_CONFIRM_COUNT, _CONFIRM_BYTES, _CONFIRM_SECONDS = 64, 1 << 20, 2.0
_MOST_KEPT = 16 << 20
_LARGE = 256 << 10
"""Bytes of a payload above which it costs more to keep than to hash."""

_Key = tuple[str, bytes]


class Entry:
    """A message of QoS 1 that was handed to the caller.

    :ivar pending: the caller has not acknowledged it yet.
    :ivar mid: packet id of its copy on this connection; 0 if there is none.
    :ivar number: count of messages when its connection was lost.
    """

    __slots__ = ("_content", "_hashed", "_memory", "_topic", "mid", "number", "pending", "size")

    def __init__(self, memory: RedeliveryMemory, topic: str, payload: bytes, mid: int) -> None:
        self._memory = memory
        self._topic = topic
        self._content = payload
        self._hashed = False
        self.size = len(payload)
        self.mid = mid
        self.number = 0
        self.pending = True

    def ack(self) -> None:
        """Acknowledge the message, and its copy on this connection; a copy that comes later is acknowledged at once."""
        self._memory.acknowledge(self)

    def equals(self, topic: str, payload: bytes) -> bool:
        """Return True if a message is equal to this one."""
        return topic == self._topic and self._content == (sha256(payload).digest() if self._hashed else payload)

    def key(self) -> _Key:
        """Return the topic and the SHA-256 of the payload, which is kept no longer."""
        if not self._hashed:
            self._content = sha256(self._content).digest()
            self._hashed = True
        return self._topic, self._content


class RedeliveryMemory:
    """A multiset of the messages that the caller got and the broker may redeliver.

    :ivar in_hand: number of messages that the caller has not acknowledged yet.
    :ivar bytes_in_hand: bytes of their payloads.
    """

    def __init__(self) -> None:
        self.in_hand = self.bytes_in_hand = 0
        self._count = 0
        self._here: dict[int, Entry] = {}
        """Entries with a copy on this connection, by its packet id."""
        self._unconfirmed: deque[Entry] = deque()
        """Those that were acknowledged on this connection, in that order."""
        self._kept = 0
        """Bytes of their payloads."""
        self._asked = 0
        """Number of those whose acknowledgement went out before the last PINGREQ."""
        self._oldest_at = math.inf
        self._elsewhere: dict[_Key, list[Entry]] = {}
        """Entries of lost connections that no copy has come of."""
        self._lost: OrderedDict[Entry, None] = OrderedDict()
        """The same in the order in which they were lost."""
        self._send_ack: Callable[[int], None] | None = None

    # --- messages

    def hand_out(self, topic: str, payload: bytes, mid: int) -> Entry | None:
        """Note that a message goes to the caller; return None if the caller has too much in hand for it."""
        size = len(payload)
        if self.in_hand and (self.in_hand >= MOST_IN_HAND or self.bytes_in_hand + size > MOST_BYTES_IN_HAND):
            return None
        self.in_hand += 1
        self.bytes_in_hand += size
        self._count += 1
        if self._lost:
            self._give_up_old()
        entry = self._here[mid] = Entry(self, topic, payload, mid)
        return entry

    def remember(self, topic: str, payload: bytes) -> None:
        """Note a message that an earlier process acknowledged: the broker may not know that."""
        entry = Entry(self, topic, payload, 0)
        entry.pending = False
        self._lose(entry)

    def is_repeated(self, topic: str, payload: bytes, mid: int) -> bool:
        """Return True if a message flagged DUP is a copy of an entry, which it consumes.

        If the entry is pending the copy is acknowledged with it, and otherwise at once.
        """
        entry = self._here.get(mid)
        if entry is None or not entry.equals(topic, payload):
            entry = self._take_lost((topic, sha256(payload).digest()))
            if entry is None:
                return False
            entry.mid = mid
            self._here[mid] = entry
        if not entry.pending:
            self._send(entry)
        return True

    def acknowledge(self, entry: Entry) -> None:
        """See :meth:`Entry.ack`."""
        if entry.pending:
            entry.pending = False
            self.in_hand -= 1
            self.bytes_in_hand -= entry.size
            if entry.size > _LARGE:
                entry.key()  # its payload need not wait for the confirmation
            if self._here.get(entry.mid) is entry:
                self._send(entry)

    def _send(self, entry: Entry) -> None:
        if self._send_ack is None:
            return
        self._send_ack(entry.mid)
        if not self._unconfirmed:
            self._oldest_at = time.monotonic()
        self._unconfirmed.append(entry)
        self._kept += entry.size
        if self._kept > _MOST_KEPT:
            entry.key()

    def has_fallen(self) -> bool:
        """Return True if at most half of what the caller may have in hand is in hand."""
        return self.in_hand <= MOST_IN_HAND // 2 and self.bytes_in_hand <= MOST_BYTES_IN_HAND // 2

    # --- connections

    def connected(self, send_ack: Callable[[int], None], *, session: bool) -> None:
        """Begin a connection.

        :param send_ack: acknowledges the message of a packet id.
        :param session: the broker has the session still: it redelivers what it has no acknowledgement of.
        """
        self._send_ack = send_ack
        if not session:
            self._elsewhere.clear()
            self._lost.clear()

    def freeze(self) -> None:
        """Send no more acknowledgements on this connection: the broker is sure to redeliver those messages."""
        self._send_ack = None

    def disconnected(self) -> None:
        """End the connection."""
        self._send_ack = None
        for entry in self._here.values():
            self._lose(entry)
        self._here.clear()
        self._unconfirmed.clear()
        self._kept = self._asked = 0
        self._oldest_at = math.inf

    def wants_ping(self, now: float) -> bool:
        """Return True if a PINGREQ should be sent, so that acknowledged entries may leave."""
        return (
            len(self._unconfirmed) >= _CONFIRM_COUNT
            or self._kept >= _CONFIRM_BYTES
            or now - self._oldest_at >= _CONFIRM_SECONDS
        )

    def pinged(self) -> None:
        """Note a PINGREQ. It goes out behind all acknowledgements so far."""
        self._asked = len(self._unconfirmed)

    def ponged(self) -> None:
        """Note the answer to the last PINGREQ: the broker has read all that was sent before it."""
        for _ in range(self._asked):
            entry = self._unconfirmed.popleft()
            self._kept -= entry.size
            if self._here.get(entry.mid) is entry:
                del self._here[entry.mid]
        self._asked = 0
        self._oldest_at = time.monotonic() if self._unconfirmed else math.inf

    # --- entries of lost connections

    def _lose(self, entry: Entry) -> None:
        entry.mid = 0
        entry.number = self._count
        self._elsewhere.setdefault(entry.key(), []).append(entry)
        self._lost[entry] = None

    def _take_lost(self, key: _Key) -> Entry | None:
        """Remove and return the entry that a copy is taken for: one that is pending before one that is acknowledged."""
        entries = self._elsewhere.get(key)
        if entries is None:
            return None
        entry = next((entry for entry in entries if entry.pending), entries[0])
        self._forget(entry)
        return entry

    def _forget(self, entry: Entry) -> None:
        del self._lost[entry]
        key = entry.key()
        entries = self._elsewhere[key]
        entries.remove(entry)
        if not entries:
            del self._elsewhere[key]

    def _give_up_old(self) -> None:
        oldest = next(iter(self._lost))
        if self._count - oldest.number > MOST_NEWER:
            self._forget(oldest)
