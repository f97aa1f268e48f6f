"""The board's own record of what ran when: entries chained by their hashes, and signed from time to time.

An entry is deterministic CBOR ``[number, SHA-256 of the entry before, time, kind, facts]``. A signature is a COSE_Sign1
by the device over ``[device, number, SHA-256 of that entry, first, SHA-256 of the first entry]``: it vouches for the
entry, for all before it, and for where the log begins. The newest signature counts; a board keeps no other.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from edged.base.errors import EdgedError, FormatError, error_context
from edged.board.state import AuditRow, State
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
_UNSIGNED = f"no signature over entries {{}} to {{}}, though boards sign every {SIGN_EVERY}th"


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

        if self._state.append_audit(make) % SIGN_EVERY == 0:
            self.sign()

    def sign(self) -> None:
        """Remove entries beyond :data:`KEEP`, and sign the rest up to the last.

        :raises StateError: it cannot be written.
        """

        def make(first: AuditRow, last: AuditRow) -> bytes:
            payload = [self._device, last.number, _digest(last.entry), first.number, _digest(first.entry)]
            return sign(cbor.encode(payload), _aad(self._device), self._signer)

        self._state.sign_audit(KEEP, make)


def _digest(entry: bytes) -> bytes:
    return hashlib.sha256(entry).digest() if entry else bytes(32)


def _aad(device: str) -> bytes:
    return cbor.encode(["edged.audit.1", device])


class Verdict(msgspec.Struct, frozen=True):
    """The outcome of :func:`verify`.

    :ivar entries: the readable ones.
    :ivar signed: number of the last entry that a signature vouches for.
    :ivar problems: all that is missing, changed or not trusted; empty if the log holds.
    """

    entries: list[Entry]
    signed: int
    problems: list[str]


def verify(entries: Sequence[bytes], signatures: Sequence[bytes], device: str, *keys: PublicKey) -> Verdict:
    """Check a log: each entry follows the one before, and the newest signature vouches for its beginning and its end.

    :param keys: those that the board signed with over time.

    The entries behind the last signature, and a whole log that was put back to an earlier state of itself, leave no
    trace of what was cut off: compare the log with an earlier export.
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
    newest, bad = _newest_signature(signatures, device, keys)
    bad += _check_reach(newest, found[0].number if found else 1, found[-1].number if found else 0, digests)
    return Verdict(found, newest.number if newest and not bad else 0, problems + bad)


class _Signed(NamedTuple):
    """The content of a signature: the entry up to which it reaches, and the entry that the log begins with."""

    number: int
    digest: bytes
    first: int
    first_digest: bytes


def _newest_signature(
    signatures: Sequence[bytes], device: str, keys: Sequence[PublicKey]
) -> tuple[_Signed | None, list[str]]:
    """Return the signature that reaches farthest, and why others are none."""
    found: list[_Signed] = []
    problems: list[str] = []
    for data in signatures:
        try:
            with error_context("a signature over the log does not stand"):
                found.append(_open_signature(data, device, keys))
        except EdgedError as error:
            problems.append(error.message)
    return max(found, default=None), problems


def _open_signature(data: bytes, device: str, keys: Sequence[PublicKey]) -> _Signed:
    signature = Sign1.parse(data)
    key = next((one for one in keys if one.thumbprint == signature.kid), keys[0])
    match cbor.decode_canonical(signature.verify(key, _aad(device)), _LIMITS):
        case [str(name), int(number), bytes(digest), int(first), bytes(first_digest)] if name == device:
            return _Signed(number, digest, first, first_digest)
    raise FormatError("it is of something else")


def _check_reach(newest: _Signed | None, first: int, last: int, digests: dict[int, bytes]) -> list[str]:
    """Return what the entries ``first`` to ``last`` lack of what was signed, and what lacks a signature."""
    if newest is None:
        if first > 1:  # a board removes old entries only while it signs
            return [f"entries 1 to {first - 1} are missing, and no signature says that the board removed them"]
        return [_UNSIGNED.format(1, last)] if last >= 2 * SIGN_EVERY else []
    problems = []
    if newest.first < first:
        problems.append(f"entries {newest.first} to {first - 1} were signed and are missing")
    elif newest.first > first:
        problems.append(f"entries {first} to {newest.first - 1} had been removed when the log was signed")
    elif digests.get(first, newest.first_digest) != newest.first_digest:
        problems.append(f"entry {first} is not the one that was signed")
    if newest.number > last:
        problems.append(f"entries up to {newest.number} were signed and are missing")
    elif digests.get(newest.number, newest.digest) != newest.digest:
        problems.append(f"entry {newest.number} is not the one that was signed")
    elif last - newest.number >= 2 * SIGN_EVERY:  # fewer: another writer may be about to sign
        problems.append(_UNSIGNED.format(newest.number + 1, last))
    return problems


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
