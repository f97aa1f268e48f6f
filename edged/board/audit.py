"""The board's own record of what ran when: entries chained by their hashes, and signed from time to time.

An entry is deterministic CBOR ``[number, SHA-256 of the entry before, time, kind, facts]``. A signature is a COSE_Sign1
by the device over ``[device, number, SHA-256 of that entry]``: it vouches for the entry and for all before it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edged.base.errors import EdgedError, FormatError, naming
from edged.board.state import State
from edged.formats.cose import cbor
from edged.formats.cose.keys import PublicKey, Signer
from edged.formats.cose.sign1 import Sign1, sign

Kind = Literal["start", "stop", "install", "refuse", "swap", "roll-back", "rollback", "epoch", "hubs", "key"]
Fact = str | int | float | bool

SIGN_EVERY = 16
KEEP = 20_000
"""Entries that a board keeps; older ones should have been exported."""

_LIMITS = cbor.Limits(size=16 * 1024, depth=3, items=64)
_EXPORT_LIMITS = cbor.Limits(size=64 * 1024 * 1024, depth=5, items=1_000_000)
_LONGEST = 500


class Entry(NamedTuple):
    """An entry of the log.

    :ivar number: from 1 on, without gaps.
    :ivar before: SHA-256 of the entry before; 32 zero bytes before the first.
    :ivar time: Unix microseconds, by the board's clock.
    """

    number: int
    before: bytes
    time: int
    kind: str
    facts: dict[str, Fact]

    def encode(self) -> bytes:
        """Return the bytes of the entry, which the next entry names by their hash."""
        return cbor.encode(list(self))

    @classmethod
    def parse(cls, data: bytes) -> Entry:
        """Parse the bytes of an entry.

        :raises FormatError: they are no entry.
        """
        match cbor.decode_canonical(data, _LIMITS):
            case [int(number), bytes(before), int(time_), str(kind), dict(facts)]:
                return cls(number, before, time_, kind, facts)
        raise FormatError("not an entry of an audit log")


class AuditLog:
    """The log of one board, for writing. The daemon and commands may write at the same time."""

    def __init__(self, state: State, device: str, signer: Signer) -> None:
        self._state = state
        self._device = device
        self._signer = signer

    def add(self, kind: Kind, **facts: Fact) -> None:
        """Append an entry, durably; sign the log up to every sixteenth.

        :raises StateError: it cannot be written.
        """
        short = {name: fact[:_LONGEST] if isinstance(fact, str) else fact for name, fact in facts.items()}

        def make(number: int, before: bytes) -> bytes:
            return Entry(number, _digest(before), time.time_ns() // 1000, kind, short).encode()

        number, entry = self._state.append_audit(make)
        if number % SIGN_EVERY == 0:
            self._sign(number, entry)
            self._state.prune_audit(KEEP)

    def sign(self) -> None:
        """Sign the log up to its last entry."""
        last = self._state.last_audit()
        if last is not None:
            self._sign(*last)

    def _sign(self, number: int, entry: bytes) -> None:
        payload = cbor.encode([self._device, number, hashlib.sha256(entry).digest()])
        self._state.sign_audit(number, sign(payload, _aad(self._device), self._signer))


def _digest(entry: bytes) -> bytes:
    return hashlib.sha256(entry).digest() if entry else bytes(32)


def _aad(device: str) -> bytes:
    return cbor.encode(["edged.audit.1", device])


@dataclass(frozen=True)
class Verdict:
    """The outcome of :func:`verify`.

    :ivar entries: the readable ones.
    :ivar signed: number of the last entry that a signature vouches for.
    :ivar problems: all that is missing, changed or not trusted; empty if the log holds.
    """

    entries: list[Entry]
    signed: int
    problems: list[str]


def verify(entries: Sequence[bytes], signatures: Sequence[bytes], device: str, *keys: PublicKey) -> Verdict:
    """Check a log: each entry follows the one before, and each signature is of an entry that is there.

    :param keys: those that the board signed with over time.

    What was cut off behind the last signature leaves no trace in the log itself: compare it with an earlier export.
    """
    found: list[Entry] = []
    digests: dict[int, bytes] = {}
    problems: list[str] = []
    before: Entry | None = None
    for data in entries:
        try:
            entry = Entry.parse(data)
        except FormatError as error:
            problems.append(f"behind entry {before.number if before else 0}: {error.message}")
            continue
        if before is not None and entry.number != before.number + 1:
            problems.append(f"entries {before.number + 1} to {entry.number - 1} are missing")
        elif before is not None and entry.before != digests[before.number]:
            problems.append(f"entry {before.number} was changed, or entry {entry.number} put in its place")
        elif before is None and entry.number == 1 and any(entry.before):
            problems.append("entry 1 follows an entry that there never was")
        found.append(entry)
        digests[entry.number] = hashlib.sha256(data).digest()
        before = entry
    signed, bad = _check_signatures(signatures, digests, device, keys)
    return Verdict(found, signed, problems + bad)


def _check_signatures(
    signatures: Sequence[bytes], digests: dict[int, bytes], device: str, keys: Sequence[PublicKey]
) -> tuple[int, list[str]]:
    signed = 0
    problems: list[str] = []
    for data in signatures:
        try:
            with naming("a signature over the log does not stand"):
                signature = Sign1.parse(data)
                key = next((one for one in keys if one.thumbprint == signature.kid), keys[0])
                payload = signature.verify(key, _aad(device))
                match cbor.decode_canonical(payload, _LIMITS):
                    case [str(name), int(number), bytes(digest)] if name == device:
                        pass
                    case _:
                        raise FormatError("it is of something else")
        except EdgedError as error:
            problems.append(error.message)
            continue
        if number not in digests:
            if number > max(digests, default=0):
                problems.append(f"entries up to {number} were signed and are missing")
        elif digests[number] != digest:
            problems.append(f"entry {number} is not the one that was signed")
        else:
            signed = max(signed, number)
    return signed, problems


def export(entries: Sequence[bytes], signatures: Sequence[bytes]) -> bytes:
    """Return a log as one CBOR array ``[[entry, ...], [signature, ...]]``, for a store elsewhere."""
    return cbor.encode([list(entries), list(signatures)])


def parse_export(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """Parse an exported log.

    :raises FormatError: ``data`` is none.
    """
    match cbor.decode(data, _EXPORT_LIMITS):
        case [list(entries), list(signatures)] if all(isinstance(one, bytes) for one in (*entries, *signatures)):
            return entries, signatures
    raise FormatError("not an exported audit log")
