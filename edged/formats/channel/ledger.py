"""A hub's knowledge of its boards: the epochs that they announce, and the ledger of all that was accepted.

The epochs are known while the hub runs: boards announce them again. The ledger has to outlive it, so that nothing is
accepted twice.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from edged.base.errors import FormatError
from edged.formats.channel import Believed
from edged.formats.channel.announce import MOST_EPOCHS
from edged.formats.channel.epoch import MAX_COUNT
from edged.formats.cose.encrypt0 import Box
from edged.formats.cose.keys import ContentKey
from edged.formats.identity import Record

ANSWERED = 4096
"""Results of each board whose readings are remembered: more than a broker hands out again."""


class Answers(NamedTuple):
    """Numbers of the results that one epoch gave to equal readings: fresh ones, and redelivered ones."""

    fresh: int = 0
    redelivered: int = 0


def is_repeated(answers: dict[int, Answers], epoch: int, *, redelivered: bool) -> bool:
    """Note one more result to equal readings, and return True if it only repeats another.

    Readings of the same bytes cannot be told apart. So a hub accepts as many results as the fewest readings explain,
    in whatever order they arrive. A process answers a reading once, and only a redelivered result may repeat another:

    ===============  ====================================================================================
    one more result  repeats
    ===============  ====================================================================================
    redelivered      one of an older epoch (that process died), or a redelivered one of a newer (so did this one)
    fresh            a redelivered one of a newer epoch: it waited in the outbox of a process that died
    ===============  ====================================================================================

    Each repeats at most one of an epoch. Anything else answers readings that were measured again, however equal.

    :param answers: by epoch; the result is added.
    """
    before = _fewest_readings(answers)
    fresh, again = answers.get(epoch, Answers())
    answers[epoch] = Answers(fresh + (not redelivered), again + redelivered)
    return _fewest_readings(answers) == before


def _fewest_readings(answers: Mapping[int, Answers]) -> int:
    fewest = 0
    for _, (fresh, redelivered) in sorted(answers.items()):
        fewest = max(fewest, redelivered) + fresh
    return fewest


class KnownEpoch(msgspec.Struct):
    """One epoch of one board, as the hub knows it.

    :ivar last: the highest count it may still open.
    :ivar inventory: count of the newest inventory that came under it.
    """

    number: int
    key: ContentKey
    signs: bool
    last: int = MAX_COUNT
    inventory: int = 0
    boxes: dict[str, Box] = {}


def count_of(iv: bytes) -> int:
    """Return the count of a message.

    :raises FormatError: it is out of range.
    """
    count = int.from_bytes(iv[:8], "big")
    if not 0 < count <= MAX_COUNT:
        raise FormatError(f"count {count} of a message is out of range")
    return count


class KnownDevice(msgspec.Struct):
    """One board, as the hub knows it.

    :ivar payload: the announcement that was believed last, as it came.
    :ivar channels: channels of accepted results, without those that a later inventory left out.
    :ivar lapses: until when it holds, Unix seconds.
    :ivar nonce: the nonce that it was asked last to echo, at the time ``asked``.
    """

    record: Record
    current: KnownEpoch | None = None
    epochs: dict[bytes, KnownEpoch] = {}
    payload: bytes = b""
    channels: set[str] = set()
    lapses: float = -math.inf
    nonce: bytes = b""
    asked: float = -math.inf

    def keep_channels(self, served: Iterable[str]) -> None:
        """Forget the channels that a board serves no longer."""
        self.channels.intersection_update(served)
        for epoch in self.epochs.values():
            epoch.boxes = {channel: box for channel, box in epoch.boxes.items() if channel in self.channels}


class Ledger(Protocol):
    """Remembers, for as long as the hub is to refuse what came before."""

    def believed(self, device: str) -> Believed | None:
        """Return the newest announcement of a board that was believed."""

    def believe(self, device: str, announced: Believed) -> None:
        """Keep the newest announcement of a board that is believed."""

    def forget_epochs(self, device: str, kids: Collection[bytes]) -> None:
        """Forget which counts of a board were accepted under keys other than these: nothing opens under them."""

    def is_marked(self, device: str, kid: bytes, count: int) -> bool:
        """Return True if a message of that count was accepted."""

    def mark(self, device: str, kid: bytes, count: int) -> None:
        """Accept a count."""

    def answer(self, device: str, what: bytes, epoch: int, *, redelivered: bool) -> bool:
        """Note a result; return True if it answers a reading that no result before has answered (:func:`is_repeated`).

        :param what: channel, source and input, encoded.
        """


class RamLedger:
    """A ledger for as long as this process lives."""

    def __init__(self) -> None:
        self._believed: dict[str, Believed] = {}
        self._seen: dict[tuple[str, bytes], bytearray] = {}
        self._answered: dict[str, OrderedDict[bytes, dict[int, Answers]]] = {}

    def believed(self, device: str) -> Believed | None:
        """See :class:`Ledger`."""
        return self._believed.get(device)

    def believe(self, device: str, announced: Believed) -> None:
        """See :class:`Ledger`."""
        self._believed[device] = announced

    def forget_epochs(self, device: str, kids: Collection[bytes]) -> None:
        """See :class:`Ledger`."""
        for key in [key for key in self._seen if key[0] == device and key[1] not in kids]:
            del self._seen[key]

    def is_marked(self, device: str, kid: bytes, count: int) -> bool:
        """See :class:`Ledger`."""
        seen = self._seen.get((device, kid), b"")
        byte, bit = divmod(count, 8)
        return byte < len(seen) and bool(seen[byte] >> bit & 1)

    def mark(self, device: str, kid: bytes, count: int) -> None:
        """See :class:`Ledger`."""
        seen = self._seen.setdefault((device, kid), bytearray())
        byte, bit = divmod(count, 8)
        if byte >= len(seen):
            seen.extend(bytes(byte + 1 - len(seen)))
        seen[byte] |= 1 << bit

    def answer(self, device: str, what: bytes, epoch: int, *, redelivered: bool) -> bool:
        """See :class:`Ledger`."""
        answered = self._answered.setdefault(device, OrderedDict())
        answers = answered.setdefault(what, {})
        answered.move_to_end(what)
        repeated = is_repeated(answers, epoch, redelivered=redelivered)
        if len(answers) > MOST_EPOCHS:
            del answers[min(answers)]
        if len(answered) > ANSWERED:
            answered.popitem(last=False)
        return not repeated
