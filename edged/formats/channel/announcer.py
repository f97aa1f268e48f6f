"""The board's side of a channel: the epoch that seals, those with results still on their way, and what it announces."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edged.base.errors import DuplicateDeviceError, EdgedError
from edged.formats.channel.announce import (
    LIFETIME,
    LIMITS,
    MOST_EPOCHS,
    NONCE_SIZE,
    RESIGN_AFTER,
    Announcement,
    seal_channel_key,
)
from edged.formats.channel.epoch import ClosedEpoch, Epoch
from edged.formats.channel.result import Answer, Input, ResultEncoder
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import Encrypt
from edged.formats.cose.keys import ContentKey, PublicKey, Signer

_ANSWER_AFTER = 1.0
"""Least seconds between announcements triggered from outside, so that nobody can make us flood the topic."""


@dataclass
class _Running:
    """The epoch that seals.

    :ivar prompt: True if a pending result is not flagged late, so that hubs refuse it once this epoch is closed.
    """

    epoch: Epoch
    sealed_key: Encrypt
    serial: int = 0
    pending: int = 0
    prompt: bool = False

    def closed(self) -> ClosedEpoch:
        """Return the epoch as it is announced and stored."""
        epoch = self.epoch
        return ClosedEpoch(
            epoch.key.kid,
            epoch.number,
            epoch.key.commit,
            epoch.key.aead,
            epoch.signs,
            self.sealed_key,
            epoch.count,
            self.pending,
            self.serial,
        )


class Announcer:
    """Seals results under the current epoch, and begins a new one when it must.

    :param begin_epoch: makes an epoch number durable, above all earlier ones and not below the one given, for a key id.
    :param hubs: keys of the granted hubs (at least one).
    :param max_age: seconds after which an epoch is replaced.
    """

    def __init__(
        self,
        device: str,
        signer: Signer,
        *,
        aead: Aead,
        hubs: Sequence[PublicKey],
        sign_results: bool,
        max_age: float,
        begin_epoch: Callable[[bytes, int], int],
    ) -> None:
        self.device = device
        self._signer = signer
        self._aead = aead
        self._hubs = list(hubs)
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
        return _Running(epoch, seal_channel_key(self.device, epoch.number, epoch.key, self._hubs))

    @property
    def epoch(self) -> int:
        """The current epoch's number."""
        return self._current.epoch.number

    def rotate(self, *, at_least: int = 0) -> None:
        """Begin a new epoch; the announcement that says so is due at once."""
        old = self._current
        self._current = self._new(at_least)
        if old.pending:
            self._closing = [old.closed(), *self._closing][: MOST_EPOCHS - 1]
        self._issued = 0.0

    def restore(self, epochs: Sequence[ClosedEpoch]) -> list[ClosedEpoch]:
        """Announce epochs of earlier runs whose results wait, the newest first; return those that are too many."""
        everything = [*self._closing, *epochs]
        self._closing = everything[: MOST_EPOCHS - 1]
        return everything[MOST_EPOCHS - 1 :]

    def find(self, kid: bytes) -> ClosedEpoch | None:
        """Return the epoch of a key id, as it is announced and stored."""
        epochs = (self._current.closed(), *self._closing)
        return next((one for one in epochs if one.kid == kid), None)

    def set_hubs(self, hubs: Sequence[PublicKey]) -> bool:
        """Grant the channel to other hubs; a changed list begins a new epoch: a removed hub reads nothing more.

        Return whether it has changed.
        """
        changed = {hub.thumbprint for hub in hubs} != {hub.thumbprint for hub in self._hubs}
        if changed:
            self._hubs = list(hubs)
            self.rotate()
        return changed

    def write_down(self) -> None:
        """Make the current epoch's number durable once more: what it was written to is lost."""
        self._begin_epoch(self._current.epoch.key.kid, self.epoch)

    def seal(
        self, channel: str, encoder: ResultEncoder, answer: Answer, of: Input, *, late: bool = False
    ) -> tuple[bytes, int, bytes]:
        """Seal a result; return the key id that :meth:`delivered` wants back, the count under it, and the message.

        :param late: whether it may come under an epoch that is closed by then, or answers readings once more.
        """
        aged = time.monotonic() - self._current.epoch.born > self._max_age
        if self._current.epoch.spent or (aged and not (late and self._current.prompt)):
            self.rotate()
        running = self._current
        epoch = running.epoch
        message = epoch.seal(channel, encoder.encode(answer, epoch.count + 1, time.time(), of, late=late))
        running.pending += 1
        running.prompt = running.prompt or not late
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
        """Note that a broker has a result; a closed epoch that waits for nothing more is forgotten."""
        running = self._current
        if running.epoch.key.kid == kid:
            running.pending -= 1
            running.prompt = running.prompt and running.pending > 0
        if self._closing:
            for closed in self._closing:
                if closed.kid == kid:
                    closed.pending -= 1
            self._closing = [closed for closed in self._closing if closed.pending > 0]

    @property
    def due(self) -> bool:
        """True if a new announcement must be published: the epoch is new, a hub asked, or half a day has passed."""
        age = time.monotonic() - self._issued
        return not self._issued or age > RESIGN_AFTER or (self._asked and age > _ANSWER_AFTER)

    def renew(self) -> None:
        """Make a new announcement due, as after each connection: the broker may have lost what it retained."""
        self._issued = 0.0

    def asked(self, hub: bytes, nonce: bytes) -> None:
        """Take a hub's nonce, which the next announcement echoes; other askers than granted hubs are passed over."""
        if len(nonce) == NONCE_SIZE and any(known.thumbprint == hub for known in self._hubs):
            self._echo[hub] = nonce
            self._asked = True

    def announcement(self, now: float) -> bytes:
        """Return the signed sequence to be retained on the announce topic, newest epoch first.

        :param now: Unix seconds, as well as the board knows.
        """
        self._issued = time.monotonic()
        self._asked = False
        closed = {one.kid: one.last for one in self._closing}
        running = self._current
        running.serial += 1
        current = running.closed()
        for one in self._closing:
            one.serial += 1
        return b"".join(self._sign(one, int(now), closed) for one in (current, *self._closing))

    def _sign(self, one: ClosedEpoch, now: int, closed: dict[bytes, int]) -> bytes:
        return Announcement(
            device=self.device,
            epoch=one.number,
            serial=one.serial,
            issued=now,
            expires=now + LIFETIME,
            kid=one.kid,
            commit=one.commitment,
            aead=one.aead,
            sign_results=one.signs,
            closed=closed,
            echo=self._echo,
            key=one.sealed_key,
        ).encode(self._signer)

    def saw(self, payload: bytes, *, retained: bool) -> None:
        """Look at what stands on this board's own announce topic.

        A retained announcement of this board's that is not older than the current epoch means that the stored state
        was lost: the next epoch begins above it. A fresh one means that somebody else has this board's key. Anything
        else that is fresh took the place of what hubs should find there: this board's own goes there again.

        :raises DuplicateDeviceError: another board announces under this board's identity, now.
        """
        newest = _newest(payload, self.device, self._signer.public)
        if newest is None or newest.epoch < self.epoch:
            self._asked = self._asked or not retained
            return
        if newest.kid == self._current.epoch.key.kid:
            return
        if not retained:
            raise DuplicateDeviceError(
                f"another board announces epoch {newest.epoch} under the identity of {self.device}",
                hint="was an SD card or a key store copied? `edged init` gives one of the two new keys",
            )
        self.rotate(at_least=newest.epoch + 1)


def _newest(payload: bytes, device: str, public: PublicKey) -> Announcement | None:
    """Return the newest announcement of a sequence if it is this board's own, and None for anybody else's."""
    try:
        return Announcement.parse(cbor.split_sequence(payload, LIMITS, MOST_EPOCHS)[0], device, public)
    except (EdgedError, IndexError):
        return None
