"""The board's side of a channel: the epoch that seals, those with results still on their way, and what it announces."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from edged.base.errors import DuplicateDeviceError, EdgedError
from edged.formats.channel import MOST_HUBS, StoredEpoch
from edged.formats.channel.announce import (
    LIFETIME,
    LIMITS,
    MOST_EPOCHS,
    NONCE_SIZE,
    RESIGN_AFTER,
    Announcement,
    seal_channel_key,
)
from edged.formats.channel.epoch import Epoch
from edged.formats.channel.result import Answer, Input
from edged.formats.channel.result_encoder import ResultEncoder
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import Encrypt
from edged.formats.cose.keys import ContentKey, PublicKey, Signer
from edged.formats.cose.sign1 import Sign1
from edged.formats.identity import Record

_ANSWER_AFTER = 1.0
"""Least seconds between announcements triggered from outside, so that nobody can make us flood the topic."""
_NEWEST, _PER_HUB, _PER_CLOSED = 512, 96, 16
"""Bytes of the newest announcement beside its key at most; in ``hubs`` and ``echo``; of an entry of ``closed``."""


class _Running(msgspec.Struct):
    """The epoch that seals.

    :ivar hubs: thumbprints of its hubs, sorted.
    """

    epoch: Epoch
    sealed_key: Encrypt
    hubs: tuple[bytes, ...]
    serial: int = 0
    pending: int = 0

    def stored(self) -> StoredEpoch:
        """Return the epoch as it is stored."""
        epoch = self.epoch
        key = cbor.encode(self.sealed_key.cose())
        return StoredEpoch(
            epoch.key.kid, epoch.number, epoch.key.commit, int(epoch.key.aead), epoch.signs, key, b"".join(self.hubs)
        )


class ClosedEpoch(msgspec.Struct):
    """An epoch that seals nothing more.

    :ivar last: count of the last result that was sealed under it.
    :ivar pending: results sealed under it whose way has not ended: no broker has them, or they are still stored.
    :ivar signed: its announcement, signed once it is needed. Dated 1970, it holds only behind a newer one.
    """

    stored: StoredEpoch
    last: int
    pending: int
    signed: bytes = b""


class Announcer:
    """Seals results under the current epoch, and begins a new one when it must.

    Any number of closed epochs may wait for their results to leave. The announcement holds the newest epoch, and
    those whose results are sent next.

    :param begin_epoch: makes an epoch number durable, above all earlier ones and not below the one given, for a key id.
    :param hubs: records of the granted hubs (at least one).
    :param max_age: seconds after which an epoch is replaced.
    :ivar most_bytes: bytes that an announcement may have at the broker; it holds fewer closed epochs then.
    :ivar announced: key ids of the epochs in the last announcement.
    """

    def __init__(
        self,
        device: str,
        signer: Signer,
        *,
        aead: Aead,
        hubs: Sequence[Record],
        sign_results: bool,
        max_age: float,
        begin_epoch: Callable[[bytes, int], int],
    ) -> None:
        self.device = device
        self.most_bytes = math.inf
        self.announced: frozenset[bytes] = frozenset()
        self._signer = signer
        self._aead = aead
        self._hubs = _sealing_keys(hubs)
        self._sign_results = sign_results
        self._max_age = max_age
        self._begin_epoch = begin_epoch
        self._echo: dict[bytes, bytes] = {}
        self._closing: list[ClosedEpoch] = []
        self._issued = 0.0
        self._asked = False
        self._current = self._new(at_least=0)

    def _new(self, at_least: int) -> _Running:
        key = ContentKey.generate(self._aead)
        number = self._begin_epoch(key.kid, at_least)
        epoch = Epoch(self.device, number, key, self._signer if self._sign_results else None)
        keys = {one.thumbprint: one for one in self._hubs.values()}
        sealed_key = seal_channel_key(self.device, epoch.number, epoch.key, keys.values())
        return _Running(epoch, sealed_key, tuple(sorted(self._hubs)))

    @property
    def epoch(self) -> int:
        """The current epoch's number."""
        return self._current.epoch.number

    def rotate(self, *, at_least: int = 0) -> None:
        """Begin a new epoch; the announcement that says so is due at once."""
        old = self._current
        self._current = self._new(at_least)
        if old.pending:
            self._closing.append(ClosedEpoch(old.stored(), old.epoch.count, old.pending))
        self._issued = 0.0

    def restore(self, epochs: Iterable[tuple[StoredEpoch, int, int]]) -> None:
        """Take the epochs of earlier runs whose results wait, in the order in which these are sent.

        :param epochs: each with its last count and the number of its results.
        :raises EdgedError: what was stored is not one.
        """
        restored = [ClosedEpoch(stored, last, pending) for stored, last, pending in epochs]
        for one in restored:
            _parse_key(one.stored)
        self._closing = restored + self._closing

    def find(self, kid: bytes) -> StoredEpoch | None:
        """Return the epoch of a key id, as it is stored."""
        if kid == self._current.epoch.key.kid:
            return self._current.stored()
        return next((one.stored for one in self._closing if one.stored.kid == kid), None)

    def set_hubs(self, hubs: Sequence[Record]) -> bool:
        """Grant the channel to other hubs; a changed list begins a new epoch: a removed hub reads nothing more.

        Return whether it has changed.
        """
        keys = _sealing_keys(hubs)
        changed = keys != self._hubs
        if changed:
            self._hubs = keys
            self._echo = {hub: nonce for hub, nonce in self._echo.items() if hub in keys}
            self.rotate()
        return changed

    def write_down(self) -> None:
        """Make the current epoch's number durable once more: what it was written to is lost."""
        self._begin_epoch(self._current.epoch.key.kid, self.epoch)

    def seal(
        self,
        channel: str,
        encoder: ResultEncoder,
        answer: Answer,
        of: Input,
        *,
        late: bool = False,
        redelivered: bool = False,
    ) -> tuple[bytes, int, bytes]:
        """Seal a result; return the key id that :meth:`delivered` wants back, the count under it, and the message.

        :param late: True if no broker takes it now, or nobody subscribes to it.
        :param redelivered: True if the reading was handed out before, and nobody knows whether it was answered.
        """
        if self._current.epoch.spent or time.monotonic() - self._current.epoch.born > self._max_age:
            self.rotate()
        running = self._current
        epoch = running.epoch
        result = encoder.encode(answer, epoch.count + 1, time.time(), of, late=late, redelivered=redelivered)
        message = epoch.seal(channel, result)
        running.pending += 1
        return epoch.key.kid, epoch.count, message

    def seal_health(self, report: bytes) -> bytes:
        """Seal a report; it takes a count as a result does."""
        if self._current.epoch.spent:
            self.rotate()
        return self._current.epoch.seal_health(report)

    def seal_inventory(self, inventory: bytes) -> bytes:
        """Seal an inventory; it takes a count as a result does."""
        if self._current.epoch.spent:
            self.rotate()
        return self._current.epoch.seal_inventory(inventory)

    def delivered(self, kid: bytes) -> None:
        """Note that the way of a result has ended for good; a closed epoch that waits for nothing more is forgotten.

        A stored result's way ends when its removal is durable. Otherwise the board could die after the epoch has left
        its announcement, and send the result once more to hubs that have forgotten what they accepted under its key.
        """
        running = self._current
        if running.epoch.key.kid == kid:
            running.pending -= 1
            return
        for closed in self._closing:
            if closed.stored.kid == kid:
                closed.pending -= 1
                if closed.pending <= 0:
                    self._closing.remove(closed)
                return

    @property
    def due(self) -> bool:
        """True if a new announcement must be published: the epoch is new, a hub asked, or half a day has passed."""
        age = time.monotonic() - self._issued
        return not self._issued or age > RESIGN_AFTER or (self._asked and age > _ANSWER_AFTER)

    def renew(self) -> None:
        """Make a new announcement due, as after each connection: the broker may have lost what it retained."""
        self._issued = 0.0

    def asked(self, hub: bytes, nonce: bytes) -> None:
        """Take a hub's nonce, which the next announcement echoes; other askers than granted hubs are passed over.

        :param hub: thumbprint of the hub's signing key.
        """
        if len(nonce) == NONCE_SIZE and hub in self._hubs:
            self._echo[hub] = nonce
            self._asked = True

    def announcement(self, now: float) -> bytes:
        """Return the signed sequence to be retained on the announce topic, newest epoch first.

        :param now: Unix seconds, as well as the board knows.
        """
        self._issued = time.monotonic()
        self._asked = False
        window = self._window()
        running = self._current
        running.serial += 1
        closed = {one.stored.kid: one.last for one in window}
        newest = self._sign(running.stored(), running.serial, int(now), LIFETIME, closed, self._echo)
        self.announced = frozenset((running.epoch.key.kid, *(one.stored.kid for one in window)))
        window.sort(key=lambda one: one.stored.number, reverse=True)
        return b"".join((newest, *(one.signed for one in window)))

    def has_room_for(self, kid: bytes) -> bool:
        """Return True if the next announcement holds an epoch."""
        return kid == self._current.epoch.key.kid or any(one.stored.kid == kid for one in self._window())

    def is_too_large(self) -> bool:
        """Return True if closed epochs wait, and the broker takes no announcement that holds any of them."""
        return bool(self._closing) and not self._window()

    def _window(self) -> list[ClosedEpoch]:
        """Return the closed epochs to announce, those first whose results are sent first."""
        window: list[ClosedEpoch] = []
        key = cbor.encode(self._current.sealed_key.cose())
        room = self.most_bytes - len(key) - _NEWEST - _PER_HUB * len(self._hubs)
        for one in self._closing[: MOST_EPOCHS - 1]:
            one.signed = one.signed or self._sign(one.stored)
            room -= len(one.signed) + _PER_CLOSED
            if room < 0:
                break
            window.append(one)
        return window

    def _sign(
        self,
        one: StoredEpoch,
        serial: int = 0,
        issued: int = 0,
        lifetime: int = 0,
        closed: Mapping[bytes, int] = MappingProxyType({}),
        echo: Mapping[bytes, bytes] = MappingProxyType({}),
    ) -> bytes:
        size = len(self._signer.public.thumbprint)
        return Announcement(
            device=self.device,
            epoch=one.number,
            serial=serial,
            issued=issued,
            expires=issued + lifetime,
            kid=one.kid,
            commit=one.commitment,
            aead=Aead.parse(one.aead),
            sign_results=one.signs,
            closed=closed,
            hubs=tuple(one.hubs[at : at + size] for at in range(0, len(one.hubs), size)),
            echo=echo,
            key=_parse_key(one),
        ).encode(self._signer)

    def saw(self, payload: bytes, *, retained: bool) -> None:
        """Look at what stands on this board's own announce topic.

        A retained announcement of this board's that is not older than the current epoch means that the stored state
        was lost: the next epoch begins above it. The current key under a serial that this process has not signed means
        that a snapshot of it runs elsewhere, with the same key and counts: a new epoch begins. A fresh one under
        another key means that somebody else has this board's key. Anything else that is fresh took the place of what
        hubs should find there: this board's own goes there again.

        :raises DuplicateDeviceError: another board announces under this board's identity, now.
        """
        newest = _newest(payload, self.device, self._signer.public)
        if newest is None or newest.epoch < self.epoch:
            self._asked = self._asked or not retained
            return
        if newest.kid == self._current.epoch.key.kid:
            if newest.serial > self._current.serial:
                self.rotate(at_least=newest.epoch + 1)
            return
        if not retained:
            raise DuplicateDeviceError(
                f"another board announces epoch {newest.epoch} under the identity of {self.device}",
                hint="was an SD card or a key store copied? `edged init` gives one of the two new keys",
            )
        self.rotate(at_least=newest.epoch + 1)


def _sealing_keys(hubs: Iterable[Record]) -> dict[bytes, PublicKey]:
    """Return the keys to seal to, by the thumbprints of the hubs' signing keys."""
    return {hub.sign.thumbprint: hub.sealing_key for hub in hubs}


def _parse_key(epoch: StoredEpoch) -> Encrypt:
    return Encrypt.parse(cbor.decode_canonical(epoch.key, LIMITS), MOST_HUBS)


def _newest(payload: bytes, device: str, public: PublicKey) -> Announcement | None:
    """Return the newest announcement of a sequence if it is this board's own, and None for anybody else's."""
    try:
        return Announcement.parse(Sign1.cut(payload, 0, LIMITS.size)[0], device, public)
    except EdgedError:
        return None
