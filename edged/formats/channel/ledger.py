"""What a hub must not forget of what it believed: announcements, counts, and what was answered."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple, Protocol

ANSWERED = 4096
"""Results of each board whose readings are remembered: more than a broker hands out again."""


class Believed(NamedTuple):
    """The newest announcement of a board that was believed.

    :ivar kid: of its channel key.
    :ivar signs: whether any announcement of it promised signed results.
    """

    epoch: int
    serial: int
    kid: bytes
    signs: bool


class Ledger(Protocol):
    """ModelState, for as long as the hub is to refuse what came before."""

    def believed(self, device: str) -> Believed | None:
        """Return what was believed last of a board."""

    def believe(self, device: str, announced: Believed) -> None:
        """Note what is believed of a board from now on."""

    def is_marked(self, device: str, kid: bytes, count: int) -> bool:
        """Tell whether a message of that count was accepted."""

    def mark(self, device: str, kid: bytes, count: int) -> None:
        """Accept a count."""

    def answer(self, device: str, what: bytes, kid: bytes) -> bytes | None:
        """Note what a result answers; return the key id under which that was answered before, if it was.

        :param what: the channel and its input, encoded.
        """


class RamLedger:
    """A ledger for as long as this process lives."""

    def __init__(self) -> None:
        self._believed: dict[str, Believed] = {}
        self._seen: dict[tuple[str, bytes], bytearray] = {}
        self._answered: dict[str, OrderedDict[bytes, bytes]] = {}

    def believed(self, device: str) -> Believed | None:
        """See :class:`Ledger`."""
        return self._believed.get(device)

    def believe(self, device: str, announced: Believed) -> None:
        """See :class:`Ledger`."""
        self._believed[device] = announced

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

    def answer(self, device: str, what: bytes, kid: bytes) -> bytes | None:
        """See :class:`Ledger`."""
        answered = self._answered.setdefault(device, OrderedDict())
        before = answered.pop(what, None)
        answered[what] = kid
        if len(answered) > ANSWERED:
            answered.popitem(last=False)
        return before
