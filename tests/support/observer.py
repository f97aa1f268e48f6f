"""An observer of all packets between clients and their brokers: it writes down every message, and trusts no counter.

`support/link.py` shows it the packets. From its record alone, and from the results that a hub has opened, follows
which readings were lost, by whom, and which were answered twice.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edged.formats.channel.announce import Announcement, split
from edged.formats.channel.epoch import result_aad
from edged.formats.channel.reading import names_of
from edged.formats.channel.receiver import Opened
from edged.formats.channel.result import Input, Plain, Result, Sealed
from edged.formats.cose.encrypt0 import Box, parse
from edged.formats.cose.keys import ContentKey
from edged.formats.identity import Role
from edged.keystore.people import PersonalKeys
from edged.keystore.records import read_record
from support.site import Site

CONNECT, PUBLISH, PUBACK, PINGREQ, PINGRESP = 1, 3, 4, 12, 13
"""Kinds of packets (MQTT 5.0, section 2.1.2)."""
_OWN = "edged/"
_RESERVED = frozenset({"announce", "nonce", "status", "inventory", "health"})


@dataclass(slots=True)
class Track:
    """A message on its way over a broker, told by its topic and payload, and how often it took each step.

    :ivar payload: kept for what boards publish.
    :ivar digest: SHA-256 of the payload; ``count``: of a sealed reading.
    :ivar sent: published to the broker; ``acknowledged``: by the broker, to whoever published it.
    :ivar handed_out: by the broker, of which ``again`` with DUP; ``settled``: acknowledged to the broker.
    :ivar confirmed: acknowledgements that the broker has read, for it answered a PINGREQ behind them; ``forgotten``:
        handed out with DUP all the same, as by a broker that was killed and has an older copy of its own store.
    :ivar codes: the reason codes with which the broker answered it.
    """

    topic: str
    payload: bytes
    digest: bytes
    count: int = 0
    sent: int = 0
    acknowledged: int = 0
    handed_out: int = 0
    again: int = 0
    settled: int = 0
    confirmed: int = 0
    forgotten: int = 0
    codes: list[int] = field(default_factory=list)


class Verdict(NamedTuple):
    """The fate of all readings that the record holds.

    :ivar answered: answers to readings that the hub accepted.
    :ivar lost: edged acknowledged them, and no hub will ever have an answer.
    :ivar twice: the hub accepted more answers than there were readings.
    :ivar unsettled: the broker has them, and edged has neither answered nor acknowledged them.
    :ivar unasked: results that answer nothing that was handed out.
    :ivar lost_by_broker: acknowledged to their sensor and never handed out, or their result was acknowledged to edged
        and never handed out.
    :ivar forgotten_by_broker: handed out once more although the broker had read the acknowledgement.
    """

    answered: int
    lost: list[Track]
    twice: list[Track]
    unsettled: list[Track]
    unasked: int
    lost_by_broker: int
    forgotten_by_broker: int

    def __str__(self) -> str:
        return (
            f"{self.answered} answered, {len(self.lost)} lost, {len(self.twice)} twice, {len(self.unsettled)} unsettled, "
            f"{self.unasked} unasked; {self.lost_by_broker} lost by a broker, {self.forgotten_by_broker} forgotten there"
        )

    @property
    def is_clean(self) -> bool:
        """True if each reading is answered once, but for what a broker lost."""
        return not (self.lost or self.twice or self.unsettled or self.unasked)


class Observer:
    """The record of all messages.

    :param sealed: readings are sealed, and are told by their count.
    :param per_window: readings that make a window.
    """

    def __init__(self, *sites: Site, sealed: bool, per_window: int = 1) -> None:
        self._sites = {site.name: site for site in sites}
        self._sealed = sealed
        self._per_window = per_window
        self._tracks: dict[tuple[str, bytes], Track] = {}

    def track(self, topic: str, payload: bytes) -> Track:
        """Return the track of a message."""
        digest = hashlib.sha256(payload).digest()
        found = self._tracks.get((topic, digest))
        if found is None:
            own = topic.startswith(_OWN)
            count = int.from_bytes(parse(payload, len(payload)).iv[:8], "big") if self._sealed and not own else 0
            found = self._tracks[topic, digest] = Track(topic, payload if own else b"", digest, count)
        return found

    @property
    def readings(self) -> list[Track]:
        """Messages of sensors, in the order in which they were seen first."""
        return [one for one in list(self._tracks.values()) if not one.topic.startswith(_OWN)]

    @property
    def results(self) -> list[Track]:
        """Results of boards, in that order."""
        return [
            one
            for one in list(self._tracks.values())
            if one.topic.startswith(_OWN) and one.topic.rpartition("/")[2] not in _RESERVED
        ]

    def judge(self, accepted: Iterable[Opened]) -> Verdict:
        """Return the fate of all readings.

        :param accepted: what the hub has opened and accepted.
        """
        inputs = [one.result.input for one in accepted]
        lost_results = [one for one in self.results if one.acknowledged and not one.handed_out]
        excuses = [of for one in lost_results if (of := self._answers(one)) is not None]
        lost, twice, unsettled = [], [], []
        answered = by_broker = 0
        asked: set[Input] = set()
        topics: dict[str, list[Track]] = defaultdict(list)
        for one in self.readings:
            topics[one.topic].append(one)
        for readings in topics.values():
            there = [one for one in readings if one.handed_out]
            got, excused = self._count(there, inputs, asked), self._count(there, excuses, set())
            by_broker += sum(1 for one in readings if one.acknowledged and not one.handed_out)
            for one, answers, excuse in zip(there, got, excused, strict=True):
                least, most = self._due(one)
                answered += min(answers, most)
                if answers > most:
                    twice.append(one)
                elif answers < least <= answers + excuse:
                    by_broker += 1
                elif answers < least:
                    (lost if one.settled >= least else unsettled).append(one)
            if _tail(got) < self._per_window:  # the last rows wait for a window that is not full
                waiting = {id(one) for one in there[len(there) - _tail(got) :]}
                lost = [one for one in lost if id(one) not in waiting]
        unasked = sum(1 for one in inputs if one not in asked)
        forgotten = sum(one.forgotten for one in self.readings)
        return Verdict(answered, lost, twice, unsettled, unasked, by_broker, forgotten)

    def _due(self, reading: Track) -> tuple[int, int]:
        """Return how many answers a reading must have, and how many it may have.

        Equal plain windows are readings of their own. A sensor that did not hear whether its broker has one sends it
        again, and what a broker hands out once more without DUP is another one for all that anybody can say; so is what
        it hands out once more after it has read the acknowledgement.
        """
        if self._sealed or self._per_window > 1:
            return 1, 1
        fresh = reading.handed_out - reading.again + reading.forgotten
        return max(reading.acknowledged, 1), max(reading.sent, fresh)

    def _count(self, readings: Sequence[Track], inputs: Sequence[Input], asked: set[Input]) -> list[int]:
        """Return how many of ``inputs`` name each reading; those that name any join ``asked``."""
        found = [0] * len(readings)
        if self._sealed:
            order = sorted(range(len(readings)), key=lambda at: readings[at].count)
            counts = [readings[at].count for at in order]
            for of in inputs:
                if isinstance(of, Sealed):
                    named = order[bisect_left(counts, of.first) : bisect_right(counts, of.last)]
                    for at in named:
                        found[at] += 1
                    if named:
                        asked.add(of)
            return found
        names = Counter(inputs)
        at, size = 0, self._per_window
        while at + size <= len(readings):
            name = Plain(hashlib.sha256(b"".join(one.digest for one in readings[at : at + size])).digest())
            if names[name]:
                found[at : at + size] = [names[name]] * size
                asked.add(name)
            at += size if names[name] else 1
        return found

    def _answers(self, result: Track) -> Input | None:
        """Open a result with the hub's key and return what it answers; None if its epoch was never announced."""
        device, channel = names_of(result.topic)
        site = self._sites[device]
        kid = parse(result.payload, len(result.payload)).kid
        key = dict(self._channel_keys(site)).get(kid)
        if key is None:
            return None
        _, plaintext = Box(key, result_aad(device, channel)).open(result.payload, len(result.payload))
        return Result.parse(plaintext).input

    def _channel_keys(self, site: Site) -> Iterator[tuple[bytes, ContentKey]]:
        """Yield every channel key that a board has announced."""
        hub = PersonalKeys.read(site.path / site.hub_key, None).agreement
        board = read_record(site.path / "board.enrol", Role.DEVICE)
        assert hub is not None
        for one in list(self._tracks.values()):
            if one.topic == f"{_OWN}{site.name}/announce":
                for item in split(one.payload):
                    announced = Announcement.parse(item, site.name, board.sign)
                    yield announced.kid, announced.unwrap(hub)


def _tail(answers: Sequence[int]) -> int:
    """Return how many at the end are unanswered."""
    return next((at for at, count in enumerate(reversed(answers)) if count), len(answers))


class Conversation:
    """One connection of a client to its broker, packet by packet.

    :ivar client: the client's id, once it has said it.
    """

    def __init__(self, observer: Observer) -> None:
        self.client = ""
        self._observer = observer
        self._version = 5
        self._under_way: dict[tuple[bool, int], Track] = {}
        self._unconfirmed: deque[Track] = deque()
        self._asked = 0
        self._rest = {True: b"", False: b""}

    def cut(self, data: bytes, *, up: bool) -> list[bytes]:
        """Return the packets that are complete with ``data``.

        :param up: from the client to the broker.
        """
        data, at, packets = self._rest[up] + data, 0, []
        while (size := _size(data[at : at + 5])) <= len(data) - at:
            packets.append(data[at : at + size])
            at += size
        self._rest[up] = data[at:]
        return packets

    def note(self, packet: bytes, *, up: bool) -> None:
        """Write a packet down."""
        kind, body = packet[0] >> 4, packet[_head(packet) :]
        if kind == CONNECT:
            self._version = body[6]
            at = 10 + (_properties(body[10:]) if self._version == 5 else 0)
            self.client = _text(body[at:]).decode()
        elif kind == PUBLISH and packet[0] & 6 and (up or not packet[0] & 1):  # what is retained is no news
            self._note_message(packet[0], body, up=up)
        elif kind == PUBACK and (track := self._under_way.pop((not up, int.from_bytes(body[:2], "big")), None)):
            code = body[2] if len(body) > 2 else 0
            if up:
                track.settled += 1
                self._unconfirmed.append(track)
            else:
                track.codes.append(code)
                track.acknowledged += code == 0
        elif kind == PINGREQ:
            self._asked = len(self._unconfirmed)
        elif kind == PINGRESP:
            for _ in range(self._asked):
                self._unconfirmed.popleft().confirmed += 1
            self._asked = 0

    def _note_message(self, flags: int, body: bytes, *, up: bool) -> None:
        topic = _text(body)
        at = 2 + len(topic)
        mid, at = int.from_bytes(body[at : at + 2], "big"), at + 2
        at += _properties(body[at:]) if self._version == 5 else 0
        track = self._observer.track(topic.decode(), body[at:])
        self._under_way[up, mid] = track
        if up:
            track.sent += 1
        else:
            track.handed_out += 1
            if flags & 8:
                track.again += 1
                if track.confirmed and track.sent == 1:  # of equal ones nobody knows which this is
                    track.confirmed -= 1
                    track.forgotten += 1


def _head(packet: bytes) -> int:
    """Return the bytes ahead of a packet's body: its type, and a length of up to four bytes."""
    return next((at + 1 for at in range(1, min(5, len(packet))) if packet[at] < 128), 5)


def _size(start: bytes) -> int:
    """Return the size of the packet that begins so (MQTT 5.0, section 2.1); far too much if that cannot be told yet."""
    head = _head(start)
    if head > len(start):
        return 1 << 30
    return head + sum((byte & 127) << 7 * at for at, byte in enumerate(start[1:head]))


def _properties(data: bytes) -> int:
    """Return the size of the properties at the head of ``data``."""
    return _size(b"\0" + data[:4]) - 1


def _text(data: bytes) -> bytes:
    return data[2 : 2 + int.from_bytes(data[:2], "big")]
