"""What passes along the pipeline: a message, opened and decoded once; a reading of it; a job; an answer."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from edged.board.pipeline.stream import Name, Start, Stream, TopicInput
from edged.formats.channel.reading import OpenedReading, ReadingOpener
from edged.formats.channel.result import Answer, Input, Sealed
from edged.model.live import Floats
from edged.model.signal.decode import Decoded, Decoder


class Message:
    """A message as it arrived, and what was made of it so far.

    :ivar redelivered: whether it may have been handed out before.
    """

    __slots__ = ("_decoded", "_decoder", "_digest", "_opened", "payload", "redelivered", "topic")

    def __init__(self, topic: str, payload: bytes, *, redelivered: bool = False) -> None:
        self.topic = topic
        self.payload = payload
        self.redelivered = redelivered
        self._opened: OpenedReading | None = None
        self._digest: bytes | None = None
        self._decoder: Decoder | None = None
        self._decoded: Decoded | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 of its bytes."""
        if self._digest is None:
            self._digest = hashlib.sha256(self.payload).digest()
        return self._digest

    def open(self, opener: ReadingOpener, limit: int) -> OpenedReading:
        """Open it, or hand out what the same key has opened already.

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
        """Decode its content, or hand out what the same decoder has made of it already.

        :raises ReadingError: as :class:`Decoder`.
        """
        if self._decoder is not decoder or self._decoded is None:
            self._decoded = decoder(payload)
            self._decoder = decoder
        return self._decoded


class Reading:
    """A message that one model has opened and not yet decoded.

    :ivar topic_input: its topic's way into its stream.
    :ivar name: what a result calls it: key id and count if it was sealed, else the SHA-256 of its bytes.
    :ivar accepted: whether its count is new and was taken.
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
    """A window that the model is to be asked about.

    :ivar window: float32 [rows, channels], valid until the next job is taken.
    :ivar restart_state: whether the model has to forget the windows before.
    :ivar redelivered: whether it may have been answered before.
    :ivar start: where it begins, in the journal.
    """

    stream: Stream
    window: Floats
    names: list[Name]
    restart_state: bool
    redelivered: bool
    start: Start = (0, 0)

    def kept(self) -> Job:
        """Return the same job with a window that stays valid."""
        return self._replace(window=self.window.copy())


class Answered(NamedTuple):
    """An answer, the readings that it is of, whether it is to be published, and may have been before."""

    answer: Answer
    of: Input
    publish: bool
    redelivered: bool
