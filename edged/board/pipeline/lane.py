"""One ``[[model]]`` in use: its streams of rows, its model, the trial of a new version, and the answers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence

from edged.base.errors import (
    EdgedError,
    ReadingShapeError,
    ReadingSizeError,
    ReadingValueError,
    RetainedError,
    TrialError,
)
from edged.base.topics import topic_matches
from edged.board.pipeline.binding import check_binding, check_state, columns_from
from edged.board.pipeline.example_selector import ExampleSelector
from edged.board.pipeline.message import Answered, Job, Message, Reading
from edged.board.pipeline.probation import Probation
from edged.board.pipeline.stream import Decoders, Name, Start, Stream, Streams, Windowed, as_bytes
from edged.config.model import ModelConfig
from edged.formats.channel.reading import ReplayGuard
from edged.formats.channel.result import Answer, Input, Plain, Sealed
from edged.formats.channel.result_encoder import ResultEncoder
from edged.formats.cose.encrypt0 import peek_kid
from edged.formats.cose.keys import ContentKey
from edged.model.live import Floats, LiveModel
from edged.model.signal.rows import Cleaner

_ENVELOPE = 128
"""Bytes by which a sealed reading may be longer than a plain one."""


class Lane:
    """One model in use on this board.

    :param sensors: keys of the sensor, where only sealed readings are taken.
    :param guard: accepts each count of a sensor once.
    :param limit: the longest message that is taken, in bytes.
    :param decoders: those of all lanes.
    :raises ConfigError: the board's table does not fit the model's manifest.
    """

    def __init__(
        self,
        config: ModelConfig,
        model: LiveModel,
        sensors: Sequence[ContentKey],
        guard: ReplayGuard,
        limit: int,
        decoders: Decoders | None = None,
    ) -> None:
        self.config = config
        self.label: str | None = None
        """The last decision of the model."""
        self.probation: Probation | None = None
        """Set while the model is on trial."""
        self.stopped = False
        """True once the model failed its trial and no version may take its place."""
        self.example_selector: ExampleSelector | None = None
        """Set if windows are kept to train the model with."""
        self._sensors = tuple(sensors)
        self._guard = guard
        self._limit = limit
        self._decoders = decoders or Decoders()
        self._check(model)
        self._use(model, None)
        if config.collect is not None:
            self.example_selector = ExampleSelector(config, config.collect, model)

    @property
    def holds_whole_windows(self) -> bool:
        """True if each message is a window of its own, so that its acknowledgement can wait for its result."""
        return self.config.each == "window"

    def reads(self, topic: str) -> bool:
        """Return True if messages of a topic are for this model."""
        return any(topic_matches(one, topic) for one in self.config.filters)

    @property
    def takes_retained(self) -> bool:
        """True if a retained message counts as a new reading."""
        return self.config.retained == "reading"

    def use_sensors(self, sensors: Sequence[ContentKey]) -> None:
        """Use other keys for readings from now on, if the keys have changed."""
        kids = {key.kid for key in sensors}
        if kids != {key.kid for key in self._sensors}:
            self._sensors = tuple(sensors)
            self._streams.use_sensors(self._sensors)

    def swap(self, model: LiveModel, *, proven: bool = False, lowest: int = 1) -> None:
        """Answer with another version from the next window on; the old one stays in memory until the trial is over.

        Windows that are being filled go on, unless the new version needs other windows.

        :param proven: the other version got through its trial before: it has none, and the old one is wiped.
        :param lowest: the lowest version that may be served: an older one does not stay as a fallback.
        :raises ConfigError: the board's table does not fit the new version; the old one goes on.
        """
        self._check(model)
        before, unproven = self.model, None
        if self.probation is not None and self.probation.before is not None:
            before, unproven = self.probation.before, self.model
        self._change(model)
        self.probation = Probation(self.config.trial, before)
        if unproven is not None:
            unproven.close()
        if proven or before.manifest.version < lowest:
            self.end_trial()
            self.begin_trial(proven=proven)

    def begin_trial(self, *, proven: bool) -> None:
        """Put the model on trial, without a version to fall back to; a proven one has no trial."""
        self.probation = None if proven else Probation(self.config.trial, None)

    def end_trial(self) -> None:
        """End the trial, and wipe the version kept for a fallback."""
        probation, self.probation = self.probation, None
        if probation is not None and probation.before is not None:
            probation.before.close()

    def roll_back(self) -> bool:
        """End a trial that went wrong: the version before it, if there is one, answers again.

        Without one, the failed version goes on, or nothing does where its publisher set a ``minimum``.
        """
        probation, self.probation = self.probation, None
        if probation is None or probation.before is None:
            self.stopped = self.model.manifest.minimum is not None
            return False
        failed = self.model
        self._change(probation.before)
        failed.close()
        return True

    def _change(self, model: LiveModel) -> None:
        old = self.model.manifest
        kept = all(getattr(old, name) == getattr(model.manifest, name) for name in ("input", "window", "model"))
        self._use(model, self._streams if kept else None)

    def close(self) -> None:
        """Wipe the model, and the version kept for a fallback."""
        self.end_trial()
        self.model.close()

    def _check(self, model: LiveModel) -> None:
        check_binding(self.config, model.manifest)
        check_state(self.config, keeps_state=model.keeps_state)

    def _use(self, model: LiveModel, kept: Streams | None) -> None:
        """Answer with ``model``; windows that are being filled are ``kept`` or forgotten.

        :raises ConfigError: hubs would not accept its results; nothing has changed then.
        """
        manifest = model.manifest
        named = manifest, manifest.name, manifest.version, model.identity
        self.encoder = ResultEncoder.of(*named, outputs=model.outputs, tune=self.config.tune)
        self.model, self.stopped = model, False
        self._rows = manifest.rows
        self._clean = Cleaner(manifest.input)
        self._columns: tuple[bytes, list[int]] | None = None
        self._streams = kept or Streams(self.config, manifest, self._sensors, self._limit, self._decoders)
        if kept is not None:
            kept.renew(manifest)
        if self.example_selector is not None:
            self.example_selector.use(model)

    def open(self, message: Message) -> Reading:
        """Open one message.

        :raises ReadingSizeError: it is longer than allowed.
        :raises ReadingSourceError: what `+` stands for in its topic does not fit into results.
        :raises TrustError: it is sealed, and not to be believed; its count was not looked at yet.
        :raises FormatError: it should be sealed, and is not.
        """
        topic_input = self._streams.topic_input(message.topic)
        openers = topic_input.openers
        if not openers:
            size = len(message.payload)
            if size > self._limit:
                raise ReadingSizeError(f"a reading is {size} bytes long, more than the {self._limit} allowed")
            return Reading(message, topic_input, message.payload, message.digest, None)
        limit = self._limit + _ENVELOPE
        opener = next(iter(openers.values()))
        if len(openers) > 1:
            opener = openers.get(peek_kid(message.payload, limit), opener)
        opened = message.open(opener, limit)
        # counts of several topics do not compare
        name = message.digest if self.config.topics else Sealed(opened.key.kid, opened.count, opened.count)
        return Reading(message, topic_input, opened.payload, name, opened)

    def hold_value(self, message: Message) -> None:
        """Take a retained message as the value of its topic, if the model joins several; it makes no row.

        :raises RetainedError: the model has no use for it.
        :raises EdgedError: as :meth:`open` and :meth:`take`.
        """
        if self.config.retained == "ignore" or not self.config.topics:
            raise RetainedError("a retained message is old")
        reading = self.open(message)
        stream, place, _, decode = reading.topic_input
        if reading.sealed is not None:
            self._guard.check(reading.sealed.key, reading.sealed.count, clock_synchronised=False)
        rows, times = message.decode(decode, reading.payload)
        stream.hold_value(self._clean(rows), times, reading.name, place, time.monotonic())

    def take(
        self, reading: Reading, *, clock_synchronised: bool, known: bool = False, number: int = 0, skip: int = 0
    ) -> Iterator[Job]:
        """Take a reading into its window, and yield each window that it fills.

        :param known: True if its count was accepted before, and it is taken once more all the same.
        :param number: in the row log.
        :param skip: rows at its beginning to leave out.
        :raises ReplayError: its count was accepted before.
        :raises ReadingError: it cannot be used.
        """
        stream, place, _, decode = reading.topic_input
        if reading.sealed is not None:
            if not known:
                self._guard.check(reading.sealed.key, reading.sealed.count, clock_synchronised=clock_synchronised)
            self._guard.accept(reading.sealed.key, reading.sealed.count)
        reading.accepted = True
        try:
            rows, times = reading.message.decode(decode, reading.payload)
            rows = self._clean(rows)
            decode.keep()
        except ReadingValueError:
            stream.restart()  # a window without this row would differ from what the sensor saw
            raise
        if self.model.manifest.model.reset == "message":
            stream.restart_state = True
        if self.holds_whole_windows:
            yield self._whole(stream, rows, reading)
            return
        for window in stream.push(rows[skip:], times, reading.name, place, time.monotonic(), number):
            yield self._job(stream, window, reading.message.redelivered, not reading.message.qos)

    def _whole(self, stream: Stream, rows: Floats, reading: Reading) -> Job:
        if self._rows is not None and len(rows) != self._rows:
            raise ReadingShapeError(f"a window has {len(rows)} rows, the model wants {self._rows}")
        stream.hear(time.monotonic())
        window = Windowed(rows, [reading.name], (0, 0))
        return self._job(stream, window, reading.message.redelivered, not reading.message.qos)

    def _job(self, stream: Stream, window: Windowed, redelivered: bool, gives_way: bool) -> Job:  # noqa: FBT001
        restart_state, stream.restart_state = stream.restart_state, False
        return Job(stream, window.rows, window.names, restart_state, redelivered, gives_way, window.start)

    def feed(self, above: Lane, job: Job, scores: Floats, of: Input) -> Iterator[Job]:
        """Take another model's scores as a row, and yield each window that it fills.

        :param above: the other model, and ``job`` its window.
        :param of: the readings behind the scores.
        :raises ReadingError: they cannot be used.
        """
        if self._columns is None or self._columns[0] != above.model.identity:
            self._columns = above.model.identity, columns_from(above.model.manifest, self.model.manifest)
        stream = self._streams.get(job.stream.key, job.stream.source)
        row = scores[self._columns[1]].reshape(1, -1)
        try:
            row = self._clean(row)
        except ReadingValueError:
            stream.restart()
            raise
        name = of.digest if isinstance(of, Plain) else of
        for window in stream.push(row, None, name, 0, time.monotonic()):
            yield self._job(stream, window, job.redelivered, job.gives_way)

    def ask(self, job: Job) -> Floats:
        """Return the model's scores for a window.

        :raises ReadingError: the window cannot be used.
        :raises ModelError: the runtime fails on it.
        :raises TrialError: the model is on trial and has failed: :meth:`roll_back`, and ask again.
        """
        if self.stopped:
            raise TrialError("it failed its trial, and its publisher lets boards serve no older version")
        memory = job.stream.memory
        if memory is not None and job.restart_state:
            memory.clear()
        try:
            if self.probation is not None:
                return self.probation.ask(self.model, job.window, memory)
            return self.model.scores(job.window, memory)
        except EdgedError:
            job.stream.restart_state = True
            raise

    def decide(self, job: Job, scores: Floats) -> Answered:
        """Return the answer that follows from the scores of a window."""
        decision = job.stream.decider.step(scores, time.monotonic())
        self.label = job.stream.label = decision.label
        answer = Answer(
            decision.label, decision.score, decision.value, decision.scores, decision.top, job.stream.source
        )
        return Answered(answer, self._input(job.names), decision.publish and self.config.publish, job.redelivered)

    def has(self, stream: Stream) -> bool:
        """Return True if a stream is still in use: a new version may need other windows."""
        return self._streams.find(stream.key) is stream

    def open_from(self, key: str) -> Start | None:
        """As :meth:`Stream.open_from`, of one stream."""
        stream = self._streams.find(key)
        return None if stream is None else stream.open_from()

    def open_windows(self) -> int:
        """Return the number of windows of rows that are being filled."""
        return 0 if self.holds_whole_windows else self._streams.open_windows()

    def says(self, key: str) -> str | None:
        """Return the last decision of the model: on that stream if it exists, else on any."""
        stream = self._streams.find(key)
        return self.label if stream is None else stream.label

    def _input(self, names: list[Name]) -> Input:
        first, last = names[0], names[-1]
        if isinstance(first, Sealed) and isinstance(last, Sealed) and first.kid == last.kid:
            return Sealed(first.kid, first.first, last.last)
        return Plain(hashlib.sha256(b"".join(map(as_bytes, names))).digest())
