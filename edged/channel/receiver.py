"""The hub's side of a channel: which announcements to believe, and which results to accept, once each.

No socket and no file here: bytes and topics go in, results or a named refusal come out. What holds:

* only a board whose enrolment record was given is believed, and only on its own topic;
* an announcement older than one already seen is a replay; the same epoch under another key is a second board;
* the newest announcement alone says how far earlier epochs may still be used (``closed``), and only for late results;
* a board that ever announced signed results is not believed without them again;
* each (device, key id, count) is accepted once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from edged.channel.announce import LIMITS, MOST_EPOCHS, NONCE_SIZE, Announcement
from edged.channel.epoch import MAX_COUNT, result_aad, signed_result_aad
from edged.channel.reading import names_of
from edged.channel.result import LIMITS as RESULT_LIMITS
from edged.channel.result import Result
from edged.cose import cbor
from edged.cose.encrypt0 import Box, peek_kid
from edged.cose.keys import Agreement, ContentKey
from edged.cose.sign1 import Sign1
from edged.errors import (
    DuplicateDeviceError,
    ExpiredError,
    FormatError,
    MismatchError,
    NotAllowedError,
    NotYetValidError,
    ReplayError,
    UnknownKeyError,
    UnknownSignerError,
)
from edged.identity import Record

_CLOCK_SKEW = 24 * 3600
"""Seconds by which a board's clock may run ahead of the hub's."""

_ENVELOPE = 1024
_MESSAGE_LIMIT = RESULT_LIMITS.size + _ENVELOPE


class Opened(NamedTuple):
    """A result that was opened and accepted."""

    device: str
    channel: str
    kid: bytes
    count: int
    signed: bool
    result: Result


@dataclass
class _Epoch:
    """What the hub knows of one epoch of one board; ``last`` is the highest count it may still open."""

    number: int
    serial: int
    key: ContentKey
    signs: bool
    last: int = MAX_COUNT
    boxes: dict[str, Box] = field(default_factory=dict)
    seen: bytearray = field(default_factory=bytearray)

    def check_new(self, count: int) -> None:
        byte, bit = divmod(count, 8)
        if byte < len(self.seen) and self.seen[byte] >> bit & 1:
            raise ReplayError(f"count {count} of epoch {self.number} was accepted before")

    def mark(self, count: int) -> None:
        byte, bit = divmod(count, 8)
        if byte >= len(self.seen):
            self.seen.extend(bytes(byte + 1 - len(self.seen)))
        self.seen[byte] |= 1 << bit


@dataclass
class _Device:
    record: Record
    current: _Epoch | None = None
    epochs: dict[bytes, _Epoch] = field(default_factory=dict)
    signs: bool = False
    nonce: bytes = field(default_factory=lambda: os.urandom(NONCE_SIZE))


class Receiver:
    """Opens the results of enrolled boards with one hub's key.

    :param records: enrolment records of the boards to believe.
    """

    def __init__(self, hub: Agreement, records: Iterable[Record]) -> None:
        self._hub = hub
        self._devices: dict[str, _Device] = {}
        for record in records:
            self.enrol(record)

    @property
    def devices(self) -> list[str]:
        """Names of the boards that are believed."""
        return list(self._devices)

    def enrol(self, record: Record) -> None:
        """Believe a board. Where one of its name is known, the new record must continue it.

        :raises UnknownSignerError: its keys changed, and the old key did not sign the change.
        """
        known = self._devices.get(record.id)
        if known is None:
            self._devices[record.id] = _Device(record)
            return
        record.check_replaces(known.record)
        known.record = record

    def nonce(self, device: str) -> bytes:
        """Return what to ask ``device`` to echo, where its announcement lapsed by the hub's clock (16 bytes)."""
        return self._device(device).nonce

    def announce(self, device: str, payload: bytes, now: float) -> None:
        """Take what stands retained on the announce topic of ``device``: a CBOR sequence, newest first.

        :param now: Unix seconds by the hub's clock.
        :raises TrustError: it is not to be believed; what was known stays as it was.
        :raises FormatError: it is not a sequence of announcements.
        """
        known = self._device(device)
        items = cbor.split_sequence(payload, LIMITS, MOST_EPOCHS)
        if not items:
            raise FormatError(f"the announcement of {device} is empty")
        announced = [Announcement.parse(item, device, known.record.sign) for item in items]
        newest = announced[0]
        self._check_fresh(known, newest, now)
        _check_newer(known, newest)
        epochs = {one.kid: self._epoch(known, one, newest) for one in announced if _is_usable(one, newest)}
        known.epochs = epochs
        known.current = epochs[newest.kid]
        known.signs = newest.sign_results

    def _check_fresh(self, known: _Device, newest: Announcement, now: float) -> None:
        if newest.echo.get(self._hub.public.thumbprint) == known.nonce:
            return
        if now > newest.expires:
            raise ExpiredError(
                f"the announcement of {newest.device} lapsed {now - newest.expires:.0f} s ago",
                hint="is the board running, and is its clock right?",
            )
        if newest.issued > now + _CLOCK_SKEW:
            raise NotYetValidError(f"the announcement of {newest.device} was issued in the future")

    def _epoch(self, known: _Device, one: Announcement, newest: Announcement) -> _Epoch:
        """Return the epoch of an announcement: the one already known, brought up to date, or a new one."""
        epoch = known.epochs.get(one.kid)
        if epoch is None:
            epoch = _Epoch(one.epoch, one.serial, one.unwrap(self._hub), one.sign_results)
        epoch.serial = one.serial
        epoch.last = MAX_COUNT if one is newest else min(newest.closed.get(one.kid, 0), MAX_COUNT)
        return epoch

    def open(self, topic: str, payload: bytes) -> Opened:
        """Open and accept the result that arrived on ``topic``.

        :raises UnknownSignerError: the topic is not that of an enrolled board.
        :raises UnknownKeyError: its epoch was not announced (yet): hold it and try again after the next announcement.
        :raises ReplayError: it was accepted before, or its epoch is closed to it.
        :raises DecryptionError: it was altered, or moved from another topic.
        :raises SignatureError: the board's signature inside does not hold.
        :raises FormatError: it is not a result.
        """
        device, channel = names_of(topic)
        known = self._device(device)
        kid = peek_kid(payload)
        epoch = known.epochs.get(kid)
        if epoch is None:
            raise UnknownKeyError(f"{device} has not announced key {kid.hex()}")
        box = epoch.boxes.get(channel) or epoch.boxes.setdefault(channel, Box(epoch.key, result_aad(device, channel)))
        iv, plaintext = box.open(payload, _MESSAGE_LIMIT)
        count = int.from_bytes(iv[:8], "big")
        if not 0 < count <= MAX_COUNT:
            raise FormatError(f"count {count} of a result is out of range")
        epoch.check_new(count)
        if epoch.signs:
            signed = Sign1.parse(plaintext, RESULT_LIMITS)
            plaintext = signed.verify(known.record.sign, signed_result_aad(device, channel, kid, iv))
        result = Result.parse(plaintext)
        if result.count != count:
            raise MismatchError(f"a result of {device} says count {result.count} and was sealed as {count}")
        if epoch is not known.current and not (result.late and count <= epoch.last):
            raise ReplayError(f"a result of {device} came under epoch {epoch.number}, which is closed to it")
        epoch.mark(count)
        return Opened(device, channel, kid, count, epoch.signs, result)

    def _device(self, name: str) -> _Device:
        known = self._devices.get(name)
        if known is None:
            raise UnknownSignerError(f"no enrolment record of {name!r} is known here", hint="give it with --board")
        return known


def _check_newer(known: _Device, newest: Announcement) -> None:
    current = known.current
    if known.signs and not newest.sign_results:
        raise NotAllowedError(f"{newest.device} announced signed results before, and now announces unsigned ones")
    if current is None or newest.epoch > current.number:
        return
    if newest.epoch < current.number:
        raise ReplayError(f"{newest.device} announced epoch {current.number} before, and now epoch {newest.epoch}")
    if newest.kid != current.key.kid:
        raise DuplicateDeviceError(
            f"two boards announce epoch {newest.epoch} of {newest.device} under different keys",
            hint="was an SD card or a key store copied? give one of the two boards new keys",
        )
    if newest.serial < current.serial:
        raise ReplayError(f"an older announcement of epoch {newest.epoch} of {newest.device} came again")


def _is_usable(one: Announcement, newest: Announcement) -> bool:
    """Return whether an epoch of the sequence may be used at all.

    A hub that was removed since knows the key of an earlier epoch: unless results are signed, anything that comes
    under it may be that hub's forgery.
    """
    if one is newest:
        return True
    granted_then = {recipient.kid for recipient in one.key.recipients}
    granted_now = {recipient.kid for recipient in newest.key.recipients}
    return one.epoch < newest.epoch and (one.sign_results or granted_then <= granted_now)
