"""The hub's side of a channel: which announcements to believe, and which results to accept, once each.

No socket and no file here: bytes and topics go in, results or a named refusal come out. What holds:

* only a board whose enrolment record was given is believed, and only on its own topic;
* an announcement older than one already seen is a replay; the same epoch under another key is a second board;
* the newest announcement alone says how far earlier epochs may still be used (``closed``);
* a board that ever announced signed results is not believed without them again;
* each (device, key id, count) is accepted once, for as long as the ledger remembers;
* where a board died between publishing and acknowledging, it answers the same readings again, ``redelivered`` and under
  another key: such a result is accepted once, too (:func:`edged.formats.channel.ledger.is_repeated`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import pairwise

import msgspec

from edged.base.errors import (
    DuplicateDeviceError,
    ExpiredError,
    FormatError,
    MismatchError,
    NotAllowedError,
    NotARecipientError,
    NotYetValidError,
    RepeatedError,
    ReplayError,
    UnknownKeyError,
    UnknownSignerError,
)
from edged.base.names import is_channel
from edged.formats.channel import MOST_CHANNELS, Believed
from edged.formats.channel.announce import LIFETIME, NONCE_SIZE, Announcement, split
from edged.formats.channel.epoch import (
    MAX_COUNT,
    health_aad,
    inventory_aad,
    result_aad,
    signed_inventory_aad,
    signed_report_aad,
    signed_result_aad,
)
from edged.formats.channel.inventory import LIMITS as INVENTORY_LIMITS
from edged.formats.channel.inventory import Inventory
from edged.formats.channel.ledger import KnownDevice, KnownEpoch, Ledger, RamLedger, count_of
from edged.formats.channel.reading import names_of
from edged.formats.channel.report import LIMITS as REPORT_LIMITS
from edged.formats.channel.report import Report
from edged.formats.channel.result import LIMITS as RESULT_LIMITS
from edged.formats.channel.result import Result
from edged.formats.cose import cbor
from edged.formats.cose.encrypt0 import Box, peek_kid
from edged.formats.cose.keys import Agreement
from edged.formats.cose.sign1 import Sign1
from edged.formats.identity import Record

_CLOCK_SKEW = 24 * 3600
"""Seconds by which a board's clock may run ahead of the hub's."""

_ENVELOPE = 1024
_MESSAGE_LIMIT = RESULT_LIMITS.size + _ENVELOPE


class Opened(msgspec.Struct, frozen=True):
    """A result that was opened and accepted.

    :ivar epoch: number of the epoch that it came under.
    """

    device: str
    channel: str
    kid: bytes
    count: int
    epoch: int
    signed: bool
    result: Result

    def to_json(self) -> dict[str, object]:
        """Return what people and scripts read."""
        names = {"device": self.device, "channel": self.channel}
        return {**names, **self.result.to_json(), "kid": self.kid.hex(), "signed": self.signed}


class Receiver:
    """Opens the results of enrolled boards with one hub's key.

    :param hub: the key that channel keys are sealed to.
    :param name: thumbprint of the hub's signing key, by which announcements and questions call it.
    :param records: enrolment records of the boards to believe.
    :param ledger: the memory that outlives this object; by default there is none.
    """

    def __init__(self, hub: Agreement, name: bytes, records: Iterable[Record], ledger: Ledger | None = None) -> None:
        self._hub = hub
        self._name = name
        self._ledger: Ledger = RamLedger() if ledger is None else ledger
        self._devices: dict[str, KnownDevice] = {}
        for record in records:
            self.enrol(record)

    def __contains__(self, device: str) -> bool:
        return device in self._devices

    @property
    def devices(self) -> list[str]:
        """Names of the boards that are believed."""
        return list(self._devices)

    def epoch(self, device: str) -> int | None:
        """Return the epoch that ``device`` has announced; None before its first announcement that was believed."""
        current = self._device(device).current
        return None if current is None else current.number

    def enrol(self, record: Record) -> None:
        """Believe a board. Where one of its name is known, the new record must continue it.

        :raises UnknownSignerError: its keys changed, and the old key did not sign the change.
        """
        known = self._devices.get(record.id)
        if known is None:
            self._devices[record.id] = KnownDevice(record)
            return
        record.check_replaces(known.record)
        known.record = record

    def forget(self, device: str) -> None:
        """Believe a board no more; what the ledger knows of it stays, should it come back."""
        self._devices.pop(device, None)

    def nonce(self, device: str) -> bytes:
        """Return what to ask ``device`` to echo, where its announcement lapsed by the hub's clock (16 bytes)."""
        return self._device(device).nonce

    def question(self, device: str) -> bytes:
        """Return the message for the nonce topic of ``device``, whose next announcement then echoes :meth:`nonce`."""
        return cbor.encode([self._name, self.nonce(device)])

    def announce(self, device: str, payload: bytes, now: float) -> bool:
        """Take what stands retained on the announce topic of ``device``: a CBOR sequence, newest first.

        Return True if it names keys that were not known: messages that were held may open now.

        :param now: Unix seconds by the hub's clock.
        :raises TrustError: it is not to be believed; what was known stays as it was.
        :raises FormatError: it is not a sequence of announcements.
        """
        known = self._device(device)
        if payload == known.payload and now <= known.lapses:
            return False  # the same retained message, through another subscription or after a reconnect
        announced = [Announcement.parse(item, device, known.record.sign) for item in split(payload)]
        if any(later.epoch >= earlier.epoch for earlier, later in pairwise(announced)):
            raise FormatError(f"the epochs that {device} announces do not go from newest to oldest")
        if len({one.kid for one in announced}) != len(announced):
            raise FormatError(f"two epochs that {device} announces have one key")
        newest = announced[0]
        if self._name not in newest.hubs:
            raise NotARecipientError(f"{device} does not name this hub among those that it grants its results")
        lapses = self._check_fresh(known, newest, now)
        signed = self._check_newer(newest)
        usable = [one for one in announced if self._is_usable(one, newest)]
        epochs = {one.kid: known.epochs.get(one.kid) or self._epoch(one) for one in usable}
        for one in usable:
            last = MAX_COUNT if one is newest else min(newest.closed.get(one.kid, 0), MAX_COUNT)
            epochs[one.kid].last = last
        gained = epochs.keys() - known.epochs.keys()
        known.epochs = epochs
        known.current = epochs[newest.kid]
        known.lapses = lapses
        known.payload = payload
        self._ledger.believe(device, Believed(newest.epoch, newest.serial, newest.kid, signed or newest.sign_results))
        # an epoch that the newest closes may be missing behind it: who carries it can cut that off, and bring it later
        self._ledger.forget_epochs(device, {newest.kid, *newest.closed})
        return bool(gained)

    def _check_newer(self, newest: Announcement) -> bool:
        """Refuse an announcement that takes something back; return whether one promised signed results before."""
        device, before = newest.device, self._ledger.believed(newest.device)
        if before is None:
            return False
        if before.signs and not newest.sign_results:
            raise NotAllowedError(f"{device} announced signed results before, and now announces unsigned ones")
        if newest.epoch < before.epoch:
            raise ReplayError(f"{device} announced epoch {before.epoch} before, and now epoch {newest.epoch}")
        if newest.epoch == before.epoch and newest.kid != before.kid:
            raise DuplicateDeviceError(
                f"two boards announce epoch {newest.epoch} of {device} under different keys",
                hint="was an SD card or a key store copied? give one of the two boards new keys",
            )
        if newest.epoch == before.epoch and newest.serial < before.serial:
            raise ReplayError(f"an older announcement of epoch {newest.epoch} of {device} came again")
        return before.signs

    def _check_fresh(self, known: KnownDevice, newest: Announcement, now: float) -> float:
        """Return until when an announcement holds: by its dates, or because it echoes what this hub asked lately."""
        in_future = newest.issued > now + _CLOCK_SKEW
        if not in_future and now <= newest.expires:
            return newest.expires
        echoes = newest.echo.get(self._name) == known.nonce
        if in_future and not echoes:
            raise NotYetValidError(f"the announcement of {newest.device} was issued in the future")
        lapses = known.asked + LIFETIME if echoes else newest.expires  # the dates of a wrong clock bind nobody
        _check_not_lapsed(known, lapses, now)
        return lapses

    def _is_usable(self, one: Announcement, newest: Announcement) -> bool:
        """Return whether an epoch of the sequence may be used at all.

        A hub that was added since was not granted the earlier epochs, and passes them over. A hub that was removed
        since knows their keys: unless results are signed, anything that comes under them may be that hub's forgery.
        """
        if one is newest:
            return True
        granted = self._name in one.hubs and any(to.kid == self._hub.public.thumbprint for to in one.key.recipients)
        return granted and (one.sign_results or set(one.hubs) <= set(newest.hubs))

    def _epoch(self, one: Announcement) -> KnownEpoch:
        return KnownEpoch(one.epoch, one.unwrap(self._hub), one.sign_results)

    def open(self, topic: str, payload: bytes, now: float) -> Opened:
        """Open and accept the result that arrived on ``topic``.

        :param now: Unix seconds by the hub's clock.
        :raises ExpiredError: the board's announcement has lapsed: ask it for a new one.
        :raises UnknownSignerError: the topic is not that of an enrolled board.
        :raises UnknownKeyError: its epoch was not announced (yet): hold it and try again after the next announcement.
        :raises RepeatedError: its readings were answered before, by a process of the board that died.
        :raises ReplayError: it was accepted before, or its epoch is closed to it.
        :raises DecryptionError: it was altered, or moved from another topic.
        :raises SignatureError: the board's signature inside does not hold.
        :raises FormatError: it is not a result.
        """
        device, channel = names_of(topic)
        known = self._device(device)
        believed, current = self._ledger.believed(device), known.current
        if believed is not None and (current is None or current.number != believed.epoch):
            raise UnknownKeyError(f"another process of this hub has heard {device} announce epoch {believed.epoch}")
        if not is_channel(channel):
            raise FormatError(f"a board has no channel {channel!r}")
        if channel not in known.channels and len(known.channels) >= MOST_CHANNELS:
            raise FormatError(f"{device} has more than {MOST_CHANNELS} channels")
        kid, epoch = self._find(known, payload, now)
        box = epoch.boxes.get(channel) or Box(epoch.key, result_aad(device, channel))
        iv, plaintext = box.open(payload, _MESSAGE_LIMIT)
        count = self._new_count(device, epoch, iv)
        if epoch.signs:
            signed = Sign1.parse(plaintext, RESULT_LIMITS)
            plaintext = signed.verify(known.record.sign, signed_result_aad(device, channel, kid, iv))
        result = Result.parse(plaintext)
        if result.count != count:
            raise MismatchError(f"a result of {device} says count {result.count} and was sealed as {count}")
        if count > epoch.last:
            raise ReplayError(f"a result of {device} came under epoch {epoch.number}, which is closed to it")
        self._ledger.mark(device, kid, count)
        epoch.boxes[channel] = box  # only now: anybody can make up channels
        known.channels.add(channel)
        what = cbor.encode([channel, result.source, *result.input])
        if not self._ledger.answer(device, what, epoch.number, redelivered=result.redelivered):
            raise RepeatedError(f"the readings of a result of {device} were answered before")
        return Opened(device, channel, kid, count, epoch.number, epoch.signs, result)

    def open_report(self, topic: str, payload: bytes, now: float) -> Report:
        """Open and accept what a board says of itself, under its current epoch.

        Its count is used up only once all else holds: otherwise another hub could shut out results with it.

        :raises EdgedError: as :meth:`open`.
        """
        device, _ = names_of(topic)
        known = self._device(device)
        kid, epoch = self._find(known, payload, now)
        iv, plaintext = Box(epoch.key, health_aad(device)).open(payload, _MESSAGE_LIMIT)
        count = self._new_count(device, epoch, iv)
        if epoch is not known.current:
            raise ReplayError(f"a report of {device} came under epoch {epoch.number}, which is closed")
        if epoch.signs:
            signed = Sign1.parse(plaintext, REPORT_LIMITS)
            plaintext = signed.verify(known.record.sign, signed_report_aad(device, kid, iv))
        report = Report.parse(plaintext)
        self._ledger.mark(device, kid, count)
        return report

    def open_inventory(self, topic: str, payload: bytes, now: float) -> Inventory:
        """Open what a board serves, which stands retained: the newest of its current epoch, as often as it comes.

        :raises EdgedError: as :meth:`open`.
        """
        device, _ = names_of(topic)
        known = self._device(device)
        kid, epoch = self._find(known, payload, now)
        iv, plaintext = Box(epoch.key, inventory_aad(device)).open(payload, INVENTORY_LIMITS.size + _ENVELOPE)
        count = count_of(iv)
        if epoch is not known.current or count < epoch.inventory:
            raise ReplayError(f"an older inventory of {device} came again")
        if epoch.signs:
            signed = Sign1.parse(plaintext, INVENTORY_LIMITS)
            plaintext = signed.verify(known.record.sign, signed_inventory_aad(device, kid, iv))
        inventory = Inventory.parse(plaintext)
        epoch.inventory = count
        known.keep_channels(model.channel for model in inventory.models)
        return inventory

    def _new_count(self, device: str, epoch: KnownEpoch, iv: bytes) -> int:
        """Return the count of a message, which was not accepted before."""
        count = count_of(iv)
        if self._ledger.is_marked(device, epoch.key.kid, count):
            raise ReplayError(f"count {count} of epoch {epoch.number} was accepted before")
        return count

    @staticmethod
    def _find(known: KnownDevice, payload: bytes, now: float) -> tuple[bytes, KnownEpoch]:
        """Return the key id of a message, and its epoch."""
        kid = peek_kid(payload, _MESSAGE_LIMIT)
        epoch = known.epochs.get(kid)
        if epoch is None:
            raise UnknownKeyError(f"{known.record.id} has not announced key {kid.hex()}")
        _check_not_lapsed(known, known.lapses, now)
        return kid, epoch

    def _device(self, name: str) -> KnownDevice:
        known = self._devices.get(name)
        if known is None:
            raise UnknownSignerError(f"no enrolment record of {name!r} is known here", hint="give it with --board")
        return known


def _check_not_lapsed(known: KnownDevice, lapses: float, now: float) -> None:
    """Refuse what an announcement vouched for until ``lapses``; then there is a nonce to ask the board with."""
    if now <= lapses:
        return
    if now - known.asked > LIFETIME:
        known.nonce, known.asked = os.urandom(NONCE_SIZE), now
    raise ExpiredError(
        f"the announcement of {known.record.id} lapsed {now - lapses:.0f} s ago",
        hint="is the board running, and is its clock right?",
    )
