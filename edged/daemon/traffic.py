"""Messages in, answers out, and each message acknowledged when what it is owed has been done.

A row is acknowledged once it is in its window. A whole window is acknowledged once the broker has its result: if the
board dies before, the broker hands the window out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from edged.broker import Delivery
from edged.channel.announcer import Announcer
from edged.channel.reading import ReplayGuard
from edged.cose import cbor
from edged.daemon.debts import Debt, Owed, WindowKey
from edged.daemon.health import Health
from edged.daemon.outgoing import ANNOUNCE, Outgoing
from edged.errors import (
    EdgedError,
    FormatError,
    ModelError,
    OverloadError,
    ReadingError,
    TrialError,
    TrustError,
)
from edged.model import Floats, LiveModel
from edged.pipeline import Job, Lane, Message, Worker

NONCE, STATUS = "nonce", "status"
_NONCE_LIMITS = cbor.Limits(size=128, depth=2, items=3)
_TOPICS_CACHED = 1024
_REFUSALS = (ReadingError, TrustError, FormatError, ModelError)


class _Task(NamedTuple):
    """A window that a slow model is to answer.

    :ivar owed: of the reading that filled it.
    """

    lane: Lane
    job: Job
    owed: Owed | None


class Traffic:
    """Serves lanes over one broker.

    :param base: first levels of this board's topics.
    :param slow: seconds of a window's answer above which a model has a thread of its own.
    :param wake: called from such a thread when it has an answer.
    :ivar on_trial: called when a version's trial is over: with the lane, the version, and why it failed, if it did.
    """

    def __init__(
        self,
        outgoing: Outgoing,
        announcer: Announcer,
        guard: ReplayGuard,
        health: Health,
        *,
        base: str,
        slow: float,
        wake: Callable[[], None],
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self._outgoing = outgoing
        self._announcer = announcer
        self._guard = guard
        self._health = health
        self._base = base
        self._slow = slow
        self._wake = wake
        self._windows: dict[WindowKey, Owed] = {}
        self._matching: dict[str, list[Lane]] = {}
        self._followers: dict[str, list[Lane]] = {}
        self._workers: dict[str, Worker[_Task, Floats]] = {}
        self._resting: list[_Task] = []
        self.on_trial: Callable[[Lane, LiveModel, TrialError | None], None] = _ignore

    def topic(self, level: str) -> str:
        """Return the topic of this board's that ends in ``level``: a channel, or one of the reserved words."""
        return f"{self._base}/{level}"

    def rest(self) -> None:
        """Let no thread use a model any more; what waits goes on with :meth:`set_lanes`."""
        for worker in self._workers.values():
            self._resting += worker.close()
        self.conclude_slow()
        self._workers.clear()

    def set_lanes(self, lanes: Mapping[str, Lane]) -> None:
        """Serve these lanes, by channel; of two, the one that the other stands on comes first."""
        self.rest()
        self.lanes = dict(lanes)
        self._matching.clear()
        self._followers = {
            channel: [lane for lane in lanes.values() if lane.config.from_ == channel] for channel in lanes
        }
        for lane in lanes.values():
            self._employ(lane)
            if lane.probation is not None and lane.probation.passed:  # it is to have no trial
                self._end_trial(lane, None)
        resting, self._resting = self._resting, []
        for task in resting:
            if self.lanes.get(task.lane.config.channel) is task.lane and task.lane.has(task.job.stream):
                self._hand_over(task)
            elif task.owed is not None:
                task.owed.step_done()

    def _employ(self, lane: Lane) -> None:
        """Give a slow model a thread."""
        if lane.model.seconds > self._slow:
            self._workers[lane.config.channel] = Worker(_ask, self._wake)

    def is_slow(self, channel: str) -> bool:
        """Tell whether a lane's model has a thread of its own."""
        return channel in self._workers

    def on_message(self, delivery: Delivery) -> None:
        """Serve one message. Nothing that a message can hold raises."""
        level = delivery.topic.removeprefix(f"{self._base}/")
        if level in (ANNOUNCE, NONCE):
            self._on_own_topic(level, delivery)
            delivery.ack()
            return
        debt = Debt(delivery.ack)
        message = Message(delivery.topic, delivery.payload)
        self._health.messages += 1
        for lane in self._lanes_of(delivery.topic):
            try:
                self._serve(lane, message, debt)
            except _REFUSALS as error:
                self._health.refuse(error, delivery.topic)
        debt.release()

    def _lanes_of(self, topic: str) -> list[Lane]:
        lanes = self._matching.get(topic)
        if lanes is None:
            lanes = [lane for lane in self.lanes.values() if lane.reads(topic)]
            if len(self._matching) >= _TOPICS_CACHED:
                self._matching.clear()
            self._matching[topic] = lanes
        return lanes

    def _serve(self, lane: Lane, message: Message, debt: Debt) -> None:
        reading = lane.open(message)
        key = (lane.config.channel, message.topic, reading.name) if lane.holds_whole_windows else None
        if key is not None and (before := self._windows.get(key)) is not None:
            debt.hold()  # handed out again while its result is on its way: that result settles this copy too
            before.debts.append(debt)
            return
        owed = Owed(key, reading, debt, self._settle)
        if key is not None:
            self._windows[key] = owed
        try:
            self._run(lane, lane.take(reading, clock_synchronised=self._outgoing.clock.synchronised), owed)
        finally:
            owed.release()

    def _run(self, lane: Lane, jobs: Iterable[Job], owed: Owed | None) -> None:
        """Ask the model about each window, now or in its thread."""
        gate = lane.config.when
        slow = lane.config.channel in self._workers
        for job in jobs:
            if gate is not None and self.lanes[gate.channel].says(job.stream.key) not in gate.labels:
                job.stream.anew = True  # what comes next does not follow from what the model saw last
            elif slow:
                if owed is not None:
                    owed.hold()
                self._hand_over(_Task(lane, job.kept(), owed))
            else:
                self._conclude(lane, job, self._ask_now(lane, job), owed)

    def _ask_now(self, lane: Lane, job: Job) -> Floats:
        try:
            return lane.ask(job)
        except TrialError as error:
            self._end_trial(lane, error)
            if not lane.has(job.stream):
                raise
            return lane.ask(job)

    def _end_trial(self, lane: Lane, error: TrialError | None) -> None:
        """End a version's trial. If it failed, the version before it answers again, where there is one."""
        if lane.probation is None:
            return
        tried = lane.model
        if error is None:
            lane.end_trial()
        else:
            lane.roll_back()
        self.on_trial(lane, tried, error)

    def _conclude(self, lane: Lane, job: Job, scores: Floats, owed: Owed | None) -> None:
        """Publish what scores come to, and tell the models that stand on this one."""
        if lane.probation is not None and lane.probation.passed:
            self._end_trial(lane, None)
        answered = lane.decide(job, scores)
        if answered.publish:
            self._outgoing.publish(lane, answered, owed)
        for follower in self._followers[lane.config.channel]:
            try:
                self._run(follower, follower.feed(lane, job.stream.key, scores, answered.of), None)
            except _REFUSALS as error:
                self._health.refuse(error, f"{follower.config.name} from {lane.config.channel}")

    def _hand_over(self, task: _Task) -> None:
        worker = self._workers.get(task.lane.config.channel)
        if worker is None:  # a new version, which is quick
            self._finish(task, _asked(task))
        elif (displaced := worker.submit(task)) is not None:
            self._finish(displaced, OverloadError("the model is slower than its windows come"))

    def conclude_slow(self) -> None:
        """Go on with what slow models have answered since the last call."""
        for worker in list(self._workers.values()):
            self._finish_all(worker.take_done())

    def _finish_all(self, done: list[tuple[_Task, Floats | EdgedError]]) -> None:
        for number, (task, outcome) in enumerate(done):
            if isinstance(outcome, TrialError) and task.lane.probation is not None:
                self._ask_again(task.lane, outcome, [task for task, _ in done[number:]])
                return
            self._finish(task, outcome)

    def _ask_again(self, lane: Lane, error: TrialError, tasks: list[_Task]) -> None:
        """Have the version before a failed trial do what the failed one has not done, in order."""
        worker = self._workers.pop(lane.config.channel)
        waiting = worker.close()
        tasks += [task for task, _ in worker.take_done()] + waiting
        self._end_trial(lane, error)
        self._employ(lane)
        for task in tasks:
            self._hand_over(task)

    def _finish(self, task: _Task, outcome: Floats | EdgedError) -> None:
        try:
            if isinstance(outcome, EdgedError):
                self._health.refuse(outcome, task.lane.config.name)
            else:
                self._conclude(task.lane, task.job, outcome, task.owed)
        finally:
            if task.owed is not None:
                task.owed.step_done()

    def _settle(self, owed: Owed) -> None:
        if owed.key is not None:
            del self._windows[owed.key]
        sealed = owed.reading.sealed
        if sealed is not None and owed.reading.accepted:
            self._guard.settle(sealed.key, sealed.count)

    def _on_own_topic(self, level: str, delivery: Delivery) -> None:
        try:
            if level == ANNOUNCE:
                self._announcer.saw(delivery.payload, retained=delivery.retain)
            else:
                hub, nonce = _parse_nonce(delivery.payload)
                self._announcer.asked(hub, nonce)
            self._outgoing.announce_if_due()
        except EdgedError as error:
            self._health.refuse(error, delivery.topic)


def _ignore(_lane: Lane, _tried: LiveModel, _error: TrialError | None) -> None:
    """Nobody wants to know."""


def _ask(task: _Task) -> Floats:
    return task.lane.ask(task.job)


def _asked(task: _Task) -> Floats | EdgedError:
    try:
        return _ask(task)
    except EdgedError as error:
        return error


def _parse_nonce(payload: bytes) -> tuple[bytes, bytes]:
    value = cbor.decode(payload, _NONCE_LIMITS)
    match value:
        case [bytes(hub), bytes(nonce)]:
            return hub, nonce
    raise FormatError("a hub's question is not an array of its key id and a nonce")
