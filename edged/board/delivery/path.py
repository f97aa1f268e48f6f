"""The path of a message, from its arrival to its acknowledgement, top to bottom.

Everything is served as it arrives, in the order of arrival: opened, taken into its window, asked about, answered. With
QoS 1 a message is acknowledged once all that needs it has let go: a row once it is in its window, or in the row log
where there is one; a whole window once its result is safe. Nothing is acknowledged for want of room: a reading whose
model has none waits in line, and the broker's own bounds hold back the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from edged.base.errors import (
    EdgedError,
    FormatError,
    ModelError,
    RateError,
    ReadingError,
    ReplayError,
    RetainedError,
    TrialError,
    TrustError,
)
from edged.base.events import Event
from edged.base.nothing import nothing
from edged.board.delivery.hold import Hold
from edged.board.delivery.lines import InLine, Lines
from edged.board.delivery.model_threads import ModelThreads, Task
from edged.board.delivery.quarantine import Quarantine
from edged.board.delivery.rate_limit import RateLimit
from edged.board.delivery.results import Results
from edged.board.delivery.row_log import RowLog
from edged.board.health import Health
from edged.board.pipeline import Job, Lane, Message, Reading
from edged.broker import Delivery
from edged.formats.channel.reading import ReplayGuard
from edged.model.live import Floats, LiveModel

_LOG = logging.getLogger(__name__)
REFUSALS = (ReadingError, TrustError, FormatError, ModelError)
"""Errors of a message that say nothing about the board."""
_TOPICS_CACHED = 1024
_TURN = 0.05
"""Seconds after which a turn leaves the rest of a line to the next one."""


class MessagePath:
    """Serves messages to the models that read them, and their windows to results.

    :param rate: messages a second of each topic that are taken; None for all.
    :param slow: seconds of a window's answer above which a model has a thread of its own.
    :param wake: called from such a thread when it has an answer.
    :ivar lanes: by channel; a lane comes after those whose answers it reads.
    :ivar threads: those of slow models.
    :ivar on_delivery: called with each message of the sensors before models get it.
    :ivar on_answered: called with each window of a lane that keeps examples, after its answer was published.
    :ivar on_trial: called when a version's trial is over: with the lane, the version, and why it failed, if it did.
    """

    def __init__(
        self,
        results: Results,
        guard: ReplayGuard,
        health: Health,
        quarantine: Quarantine,
        rows: RowLog,
        *,
        rate: float | None,
        slow: float,
        wake: Callable[[], None],
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.on_delivery: Callable[[Delivery], None] = nothing
        self.on_answered: Callable[[Lane, Job], None] = nothing
        self.on_trial: Callable[[Lane, LiveModel, TrialError | None], None] = nothing
        self._results = results
        self._guard = guard
        self._health = health
        self._books = health.books
        self._quarantine = quarantine
        self._rows = rows
        self._rate = None if rate is None else RateLimit(rate)
        self.threads = ModelThreads(self, slow, wake)
        self._followers: dict[str, list[Lane]] = {}
        self._reading: dict[str, list[Lane]] = {}
        self._lines = Lines()

    # --- a message

    def on_message(self, delivery: Delivery) -> None:
        """Serve one message. No content of a message makes this raise."""
        if self._results.announcing.is_own(delivery.topic):
            self._results.announcing.on_own_topic(delivery)
            delivery.ack()
            return
        self.on_delivery(delivery)
        self._health.messages += 1
        topic, lanes = delivery.topic, self._lanes_of(delivery.topic)
        self._books.readings += len(lanes)
        message = Message(topic, delivery.payload, redelivered=delivery.dup, qos=delivery.qos)
        hold = Hold(delivery.ack)
        if self._rate is not None and not self._rate.admits(topic):
            for _ in lanes:
                self.refuse(RateError("more messages a second than limits.rate"), topic)
        elif not self._quarantine.admits(message):
            self._books.set_aside += len(lanes)
        else:
            for lane in lanes:
                if delivery.retain and not lane.takes_retained:
                    self._hold_value(lane, message)
                else:
                    self._serve(lane, message, hold)
        self.note_served()
        hold.release()

    def on_repeated(self, delivery: Delivery) -> None:
        """Count a message that the broker delivered again, after it was handed in here."""
        self._health.messages += 1
        lanes = len(self._lanes_of(delivery.topic))
        self._books.readings += lanes
        self._books.repeated += lanes

    def _lanes_of(self, topic: str) -> list[Lane]:
        lanes = self._reading.get(topic)
        if lanes is None:
            if len(self._reading) >= _TOPICS_CACHED:
                self._reading.clear()
            lanes = self._reading[topic] = [lane for lane in self.lanes.values() if lane.reads(topic)]
        return lanes

    def _hold_value(self, lane: Lane, message: Message) -> None:
        """Take a retained message for what it is: old. At most it is the value of its topic until a newer one comes."""
        try:
            lane.hold_value(message)
        except RetainedError as error:
            self._books.refused[type(error).__name__] += 1  # not logged: it is nobody's fault
        except REFUSALS as error:
            self.refuse(error, message.topic)
        else:
            self._books.accepted += 1

    def _serve(self, lane: Lane, message: Message, hold: Hold) -> None:
        """Serve a message to one model; let it wait in line while that model has no room, if its broker waits, too."""
        channel = lane.config.channel
        if message.qos and (self._lines.has(channel) or not self._has_room(channel)):
            self._lines.add(InLine(channel, message, hold.hold(), 1))
        else:
            self._attempt(lane, message, hold, 1)

    def _has_room(self, channel: str) -> bool:
        """Return True if a model, and those that read its answers, can answer one more window."""
        if self._results.congested or not self.threads.has_room(channel):
            return False
        return all(self._has_room(one.config.channel) for one in self._followers.get(channel, ()))

    def _attempt(self, lane: Lane, message: Message, hold: Hold, attempt: int) -> None:
        """Take a message; after an unforeseen error retry later, and quarantine it in the end."""
        try:
            self._take(lane, message, hold, known=attempt > 1)
        except ReplayError as error:
            if message.redelivered:
                self._books.repeated += 1
            else:
                self.refuse(error, message.topic)
        except REFUSALS as error:
            self.refuse(error, message.topic)
        except Exception as error:  # noqa: BLE001  one reading must not stop the others
            self._health.last_error = f"{message.topic}: {type(error).__name__}"
            failed = InLine(lane.config.channel, message, hold.hold(), attempt)
            self._books.set_aside += self._quarantine.failed(lane, failed, error)
        else:
            self._books.accepted += 1

    def refuse(self, error: EdgedError, topic: str) -> None:
        """Count a reading that cannot be used."""
        self._books.refused[type(error).__name__] += 1
        self._health.refuse(error, topic)

    def _take(self, lane: Lane, message: Message, hold: Hold, *, known: bool) -> None:
        """Open a message and take it into its window; ask the model about each window that it fills.

        :param known: True if its count was accepted before.
        """
        reading = lane.open(message)
        hold.hold()
        if reading.sealed is not None:
            hold = Hold(partial(self.settle, reading, hold))
        journal, now = lane.config.journal, time.monotonic()
        number = self._rows.next_number() if journal else 0
        jobs = lane.take(
            reading, clock_synchronised=self._results.announcing.clock.synchronised, known=known, number=number
        )
        try:
            if journal:
                self.ask_about_rows(lane, jobs)
                key = (lane.config.channel, message.topic)
                self._rows.add(key, number, message, hold, now)
                self._rows.window_begins(key, lane.open_from(message.topic), now)
            else:
                self._ask_about(lane, jobs, hold if lane.holds_whole_windows else None)
        finally:
            hold.release()

    def settle(self, reading: Reading, hold: Hold) -> None:
        """Accept the count of a sealed reading for good: what it was read for is done."""
        if reading.sealed is not None and reading.accepted:
            self._guard.settle(reading.sealed.key, reading.sealed.count)
        hold.release()

    # --- its windows

    def ask_about_rows(self, lane: Lane, jobs: Iterable[Job]) -> None:
        """Ask about windows whose rows are in the row log; they stay there until the results are safe."""
        for job in jobs:
            hold = self._rows.keep_window((lane.config.channel, job.stream.key), job.start)
            self._ask_about(lane, (job,), hold)
            hold.release()

    def _ask_about(self, lane: Lane, jobs: Iterable[Job], hold: Hold | None) -> None:
        """Ask the model about each window, now or in its thread.

        :param hold: lets go once the results are safe; None if nothing waits for them.
        """
        gate = lane.config.when
        for job in jobs:
            if gate is not None and self.lanes[gate.channel].says(job.stream.key) not in gate.labels:
                job.stream.restart_state = True  # what comes next does not follow from what the model saw last
                self._books.windows += 1
                self._books.silent += 1
            elif self.threads.serves(lane.config.channel):
                self.threads.submit(Task(lane, job.kept(), None if hold is None else hold.hold()))
            else:
                self.ask_now(lane, job, hold)

    def ask_now(self, lane: Lane, job: Job, hold: Hold | None) -> None:
        """Ask the model about one window in this thread."""
        try:
            scores = self._scores(lane, job)
        except REFUSALS as error:
            self.fail(lane, error)
        except Exception as error:
            if lane.holds_whole_windows:
                raise  # it is tried again
            _LOG.exception("model %s: a window", lane.config.name, extra=Event.READING_FAILED.about())
            self.fail(lane, ModelError(f"unforeseen: {type(error).__name__}"))
        else:
            self.conclude(lane, job, scores, hold)

    def _scores(self, lane: Lane, job: Job) -> Floats:
        try:
            return lane.ask(job)
        except TrialError as error:
            self.end_trial(lane, error)
            if not lane.has(job.stream):
                raise
            return lane.ask(job)

    def fail(self, lane: Lane, error: EdgedError) -> None:
        """Count a window that has no answer."""
        config = lane.config
        self._books.windows += 1
        self._books.failed[type(error).__name__] += 1
        self._health.refuse(error, config.name, model=config.name, channel=config.channel)

    def conclude(self, lane: Lane, job: Job, scores: Floats, hold: Hold | None) -> None:
        """Publish the answer for a window, and feed the scores to the models that read them."""
        if lane.probation is not None and lane.probation.passed:
            self.end_trial(lane, None)
        answered = lane.decide(job, scores)
        self._books.windows += 1
        if answered.publish:
            self._results.publish(lane.config.channel, lane.encoder, answered, hold)
        else:
            self._books.silent += 1
        for follower in self._followers[lane.config.channel]:
            self._books.readings += 1
            try:
                fed = follower.feed(lane, job, scores, answered.of)
                self._ask_about(follower, fed, None)
            except REFUSALS as error:
                self._books.refused[type(error).__name__] += 1
                name, channel = follower.config.name, follower.config.channel
                self._health.refuse(error, f"{name} from {lane.config.channel}", model=name, channel=channel)
            else:
                self._books.accepted += 1
        if lane.example_selector is not None:
            self.on_answered(lane, job)

    def end_trial(self, lane: Lane, error: TrialError | None) -> None:
        """End the trial of a version. If it failed, the version before it answers again, where there is one."""
        if lane.probation is None:
            return
        tried = lane.model
        if error is None:
            lane.end_trial()
        else:
            lane.roll_back()
        self.on_trial(lane, tried, error)

    # --- time

    @property
    def waiting(self) -> int:
        """Number of readings whose outcome is not known yet."""
        return len(self._lines) + self._quarantine.retries

    def due_in(self, now: float) -> float:
        """Return the seconds until :meth:`turn` has work to do."""
        return 0.0 if self._lines.is_due(self._has_room) else self._quarantine.due_in(now)

    def turn(self, now: float) -> None:
        """Take the answers of slow models, retry failed messages, and serve those in line that have room now."""
        self.threads.turn()
        for retry in self._quarantine.due(now):
            self._once_more(retry)
        for first in self._lines.take_due(self._has_room, now + _TURN):
            self._once_more(first)
        self.note_served()
        self._quarantine.turn()

    def _once_more(self, one: InLine) -> None:
        """Take a message that waited, unless its model has left meanwhile."""
        lane = self.lanes.get(one.channel)
        if lane is not None and lane.reads(one.message.topic):
            self._attempt(lane, one.message, one.hold, one.attempt)
        else:
            self.refuse(ModelError("its model is served no more"), one.message.topic)
        one.hold.release()

    def note_served(self) -> None:
        """Clear the messages in hand of suspicion, once no thread of a model works on any of them."""
        if self._quarantine.watching and not self.threads.busy:
            self._quarantine.all_served()

    # --- lanes

    def set_lanes(self, lanes: Mapping[str, Lane]) -> None:
        """Serve these lanes, by channel, once the threads rest; a lane comes after those whose answers it reads."""
        self.lanes = dict(lanes)
        self._reading.clear()
        self._followers = {
            channel: [lane for lane in lanes.values() if lane.config.from_ == channel] for channel in lanes
        }
        for lane in lanes.values():
            if lane.probation is not None and lane.probation.passed:  # trial.windows is 0: no trial
                self.end_trial(lane, None)
        self.threads.set_lanes(lanes)
