"""A board, its hubs and a broker's worth of trouble, without any broker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edged.formats.channel.announcer import Announcer
from edged.formats.channel.receiver import Opened, Receiver
from edged.formats.channel.result import Answer, Input, Plain
from edged.formats.channel.result_encoder import ResultEncoder
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.identity import Record, Role

NOW = 1_800_000_000.0
ANSWER = Answer("broken", 0.75, None, (0.25, 0.75))
INPUT = Plain(bytes(32))


def encoder() -> ResultEncoder:
    """Return the encoder of a model with two labels."""
    return ResultEncoder("gearbox", 3, bytes(32), labels=("healthy", "broken"), scores=2, tune={})


def epochs(first: int = 1) -> Callable[[bytes, int], int]:
    """Return a store of epoch numbers that lives as long as the test."""
    numbers = itertools.count(first)
    last = first - 1

    def begin(_kid: bytes, at_least: int) -> int:
        nonlocal last
        last = max(next(numbers), last + 1, at_least)
        return last

    return begin


@dataclass
class Hub:
    """A hub's keys and what it believes."""

    key: PrivateKey = field(default_factory=PrivateKey.generate)
    sign: PrivateKey = field(default_factory=PrivateKey.generate)

    @property
    def name(self) -> bytes:
        """The name of this hub in announcements and questions: its signing key's thumbprint."""
        return self.sign.public.thumbprint

    @property
    def record(self) -> Record:
        """Its record."""
        unsigned = Record(Role.HUB, "home", self.sign.public, self.key.public, None, int(NOW))
        return Record.parse(unsigned.encode(self.sign))

    def receiver(self, *boards: Board) -> Receiver:
        """Return a receiver that believes ``boards``."""
        return Receiver(self.key, self.name, [board.record for board in boards])


@dataclass
class Board:
    """A board's keys; :meth:`announcer` is its running daemon."""

    name: str = "press-07"
    sign: PrivateKey = field(default_factory=PrivateKey.generate)
    ecdh: PrivateKey = field(default_factory=PrivateKey.generate)

    @property
    def record(self) -> Record:
        """Its enrolment record."""
        unsigned = Record(Role.DEVICE, self.name, self.sign.public, self.ecdh.public, Aead.A256GCM, int(NOW))
        return Record.parse(unsigned.encode(self.sign))

    def announcer(
        self, *hubs: Hub, first: int = 1, sign_results: bool = False, max_age: float = 86_400, aead: Aead = Aead.A256GCM
    ) -> Announcer:
        """Start the board's daemon: a new epoch, granted to ``hubs``."""
        return Announcer(
            self.name,
            self.sign,
            aead=aead,
            hubs=[hub.record for hub in hubs],
            sign_results=sign_results,
            max_age=max_age,
            begin_epoch=epochs(first),
        )


def seal(announcer: Announcer, channel: str = "c1", of: Input = INPUT, **flags: bool) -> bytes:
    """Seal one result; ``flags`` are those of the announcer's ``seal``."""
    return announcer.seal(channel, encoder(), ANSWER, of, **flags)[2]


def hear(receiver: Receiver, announcer: Announcer, now: float = NOW) -> bytes:
    """Hand the board's newest announcement to a hub; return it."""
    payload = announcer.announcement(now)
    receiver.announce(announcer.device, payload, now)
    return payload


def open_all(receiver: Receiver, messages: Sequence[bytes], topic: str = "edged/press-07/c1") -> list[Opened]:
    """Open several results."""
    return [receiver.open(topic, message, NOW) for message in messages]
