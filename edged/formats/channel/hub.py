"""A hub without a broker: messages of boards go in; results, refusals and questions to boards come out.

:class:`Opener` is the order in which messages are opened: a message that comes ahead of the announcement of its key is
held until that comes. It changes nothing but itself, its receiver and the ledger, so that a caller can open messages
within a transaction. :class:`Hub` is the whole for a caller that has none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple

from edged.base.errors import EdgedError, ExpiredError, FormatError, KeystoreError, StateError, UnknownKeyError
from edged.formats.channel.held import HeldMessages, M, Message
from edged.formats.channel.inventory import Inventory
from edged.formats.channel.ledger import Ledger
from edged.formats.channel.receiver import Opened, Receiver
from edged.formats.channel.report import Report
from edged.formats.cose.keys import Keys
from edged.formats.identity import Record, Role

_ASK_EVERY = 10.0
_ECHO_SECONDS = 1.0
"""An announcement that arrives twice within this time came through two subscriptions: those to it overlap."""

NOT_ANNOUNCED = UnknownKeyError("its key was not announced in time")
"""The refusal of a message that was held, and is given up."""


class Announced(NamedTuple):
    """An announcement that was believed.

    :ivar epoch: its number if that is new, else None.
    :ivar opens: True if messages that are held may open now.
    """

    epoch: int | None
    opens: bool


class Status(NamedTuple):
    """A board's status topic, which anybody can write."""

    online: bool


class Question(NamedTuple):
    """A message to publish at QoS 1, not retained: its board answers with an announcement that proves it is alive."""

    topic: str
    payload: bytes


Outcome = Opened | Report | Inventory | Status | Announced | EdgedError | None
"""Outcome of a message: an error where it was refused, None where it asks nothing of this hub."""


class Opener(Generic[M]):
    """Opens the messages of boards, in the order in which they arrive.

    :ivar held: messages that wait for the announcement of their key. The caller bounds them: ``surplus``, ``expired``.
    """

    def __init__(self, receiver: Receiver) -> None:
        self.held: HeldMessages[M] = HeldMessages()
        self._receiver = receiver
        self._asked: dict[str, float] = {}
        self._refused: dict[str, tuple[bytes, float]] = {}

    def open(self, message: M, now: float) -> Iterator[tuple[M, Outcome]]:
        """Yield a message with its outcome; behind an announcement, also the messages that waited for it.

        A message whose outcome is an :class:`UnknownKeyError` is held.

        :param now: Unix seconds.
        :raises StateError: the receiver's ledger fails.
        """
        outcome = self._open(message, now)
        if isinstance(outcome, UnknownKeyError):
            self.held.add(message)
        yield message, outcome
        if isinstance(outcome, Announced) and outcome.opens:
            for waited in self.held.take(message.device):
                yield from self.open(waited, now)

    def _open(self, message: M, now: float) -> Outcome:
        topic, payload, level = message.topic, message.payload, message.level
        outcome: Outcome = None  # as of a question, which other hubs ask
        try:
            match level:
                case "announce":
                    outcome = self._announce(message.device, payload, now)
                case "inventory":
                    outcome = self._receiver.open_inventory(topic, payload, now)
                case "health":
                    outcome = self._receiver.open_report(topic, payload, now)
                case "status":
                    outcome = Status(payload == b"online")
                case "nonce":
                    pass
                case _ if message.retained:
                    outcome = FormatError("a retained message is no result: boards retain none")
                case _:
                    outcome = self._receiver.open(topic, payload, now)
        except StateError:
            raise
        except EdgedError as error:
            says_more = level == "health" and isinstance(error, UnknownKeyError)  # the next report does
            return None if says_more else error
        return outcome

    def _announce(self, device: str, payload: bytes, now: float) -> Announced:
        before = self._receiver.epoch(device)
        opens = self._receiver.announce(device, payload, now)
        epoch = self._receiver.epoch(device)
        return Announced(None if epoch == before else epoch, opens)

    def is_echo(self, message: M) -> bool:
        """Return True if a refused message is an announcement that was refused just now: it counts once."""
        if message.level != "announce" or message.device not in self._receiver:
            return False
        now = time.monotonic()
        before, at = self._refused.get(message.device, (b"", -math.inf))
        self._refused[message.device] = message.payload, now
        return message.payload == before and now - at < _ECHO_SECONDS

    def question(self, message: M, error: EdgedError) -> Question | None:
        """Return the question that a refusal leads to, one in ten seconds for each board; None where there is none."""
        now = time.monotonic()
        if not isinstance(error, ExpiredError) or now - self._asked.get(message.device, -math.inf) <= _ASK_EVERY:
            return None
        self._asked[message.device] = now
        return Question(f"{message.topic.rpartition('/')[0]}/nonce", self._receiver.question(message.device))


class Refused(NamedTuple):
    """A message that was refused.

    :ivar error: the reason: its class says which rule, ``error.message`` says it in words.
    """

    topic: str
    error: EdgedError


class Taken(NamedTuple):
    """The outcome of a message, and of those that waited for it.

    :ivar opened: results that were accepted.
    :ivar questions: messages to publish.
    :ivar reports: reports of boards on their own state, with the boards' names.
    :ivar announced: numbers of new epochs, with the boards' names.
    """

    opened: list[Opened]
    refused: list[Refused]
    questions: list[Question]
    reports: list[tuple[str, Report]]
    announced: list[tuple[str, int]]


class Hub:
    """Opens what boards publish, each result once, for as long as it lives.

    :param keys: the hub's: boards call it by its signing key, and seal results to the other.
    :param records: enrolment records of the boards to believe.
    :param prefix: the boards' ``results.prefix``.
    :param ledger: remembers across restarts what was accepted; by default there is no such memory.
    :raises KeystoreError: the keys are a publisher's, which open nothing.
    :raises MismatchError: a record is not a board's.
    """

    def __init__(
        self,
        keys: Keys,
        records: Iterable[Record],
        *,
        prefix: str = "edged",
        ledger: Ledger | None = None,
    ) -> None:
        if keys.agreement is None:
            raise KeystoreError("a publisher's key opens nothing", hint="give the hub's keys")
        boards = [record.check_role(Role.DEVICE) for record in records]
        self._receiver = Receiver(keys.agreement, keys.signer.public.thumbprint, boards, ledger)
        self._opener: Opener[Message] = Opener(self._receiver)
        self._prefix = prefix

    @property
    def topics(self) -> list[str]:
        """The topics to subscribe to at QoS 1, announce topics by name: some brokers retain for no wildcard."""
        levels = ("announce", "+")
        return [f"{self._prefix}/{device}/{level}" for device in self._receiver.devices for level in levels]

    def take(self, topic: str, payload: bytes, *, retained: bool = False, now: float | None = None) -> Taken:
        """Handle one message; no content of a message raises.

        A result that comes ahead of the announcement of its key is held: some 500 for ten minutes at most.

        :param retained: True if the broker kept it.
        :param now: Unix seconds; default: this machine's clock.
        """
        now, since = time.time() if now is None else now, time.monotonic()
        message = Message(topic=topic, payload=payload, retained=retained, since=since)
        taken = Taken([], [], [], [], [])
        for one, outcome in self._opener.open(message, now):
            match outcome:
                case Opened():
                    taken.opened.append(outcome)
                case Report():
                    taken.reports.append((one.device, outcome))
                case Announced(int(epoch), _):
                    taken.announced.append((one.device, epoch))
                case EdgedError() if not isinstance(outcome, UnknownKeyError):
                    self._refuse(taken, one, outcome)
        for given_up in (*self._opener.held.expired(since), *self._opener.held.surplus()):
            taken.refused.append(Refused(given_up.topic, NOT_ANNOUNCED))
        return taken

    def _refuse(self, taken: Taken, message: Message, error: EdgedError) -> None:
        if (question := self._opener.question(message, error)) is not None:
            taken.questions.append(question)
        if not self._opener.is_echo(message):
            taken.refused.append(Refused(message.topic, error))
