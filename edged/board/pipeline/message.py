"""Values in the pipeline: a message, opened and decoded once, its reading by one model, a job, an answer."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from edged.board.pipeline.stream import Name, Start, Stream, TopicInput
from edged.formats.channel.reading import OpenedReading, ReadingOpener
from edged.formats.channel.result import Answer, Input, Sealed
from edged.model.live import Floats
from edged.model.reading import Decoded, Decoder


class Message:
    """A message as it arrived, with its opened and decoded content.

    :ivar redelivered: True if the broker may have delivered it to an earlier process.
    :ivar qos: with which it came; with 0 the broker keeps no copy.
    """

    __slots__ = ("_decoded", "_decoder", "_digest", "_opened", "payload", "qos", "redelivered", "topic")

    def __init__(self, topic: str, payload: bytes, *, redelivered: bool = False, qos: int = 1) -> None:
        self.topic = topic
        self.qos = qos
        self.payload = payload
        self.redelivered = redelivered
        self._opened: OpenedReading | None = None
        self._digest: bytes | None = None
        self._decoder: Decoder | None = None
        self._decoded: Decoded | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload."""
        if self._digest is None:
            self._digest = hashlib.sha256(self.payload).digest()
        return self._digest

    def open(self, opener: ReadingOpener, limit: int) -> OpenedReading:
        """Return the opened content; one key opens it once.

        :raises FormatError: as :meth:`ReadingOpener.open`.
        :raises TrustError: as :meth:`ReadingOpener.open`.
        """
        opened = self._opened
        if opened is None or opened.key.kid != opener.mark.kid:
            self._opened = opened = opener.open(self.payload, limit)
        if opened.key == opener.mark:
            return opened
        return OpenedReading(opener.mark, opened.count, opened.payload)

    def decode(self, decoder: Decoder, payload: bytes) -> Decoded:
        """Return the decoded content; one decoder decodes it once.

        :raises ReadingError: as :class:`Decoder`.
        """
        if self._decoder is not decoder or self._decoded is None:
            self._decoded = decoder(payload)
            self._decoder = decoder
        return self._decoded


class Reading:
    """A message, opened for one model.

    :ivar topic_input: the way from its topic into its stream.
    :ivar name: its name in results: key id and count if it was sealed, else the SHA-256 of the payload.
    :ivar accepted: True once its count was accepted.
    """

    __slots__ = ("accepted", "message", "name", "payload", "sealed", "topic_input")

    def __init__(
        self,
        message: Message,
        topic_input: TopicInput,
        payload: bytes,
        name: bytes | Sealed,
        sealed: OpenedReading | None,
    ) -> None:
        self.message = message
        self.topic_input = topic_input
        self.payload = payload
        self.name = name
        self.sealed = sealed
        self.accepted = False


class Job(NamedTuple):
    """A window for the model to answer.

    :ivar window: float32 [rows, channels], valid until the next job is taken.
    :ivar restart_state: True if the model must forget the windows before.
    :ivar redelivered: True if it may have been answered before.
    :ivar gives_way: True if it may be left out where the model does not keep up: it came with QoS 0.
    :ivar start: its start in the row log.
    """

    stream: Stream
    window: Floats
    names: list[Name]
    restart_state: bool
    redelivered: bool
    gives_way: bool
    start: Start = (0, 0)

    def kept(self) -> Job:
        """Return the same job with a window that stays valid."""
        return self._replace(window=self.window.copy())


class Answered(NamedTuple):
    """An answer: its readings, whether to publish it, and whether it may have been published before."""

    answer: Answer
    of: Input
    publish: bool
    redelivered: bool
