"""Windows in, results out: models answer in the main loop or in threads of their own, on trial and in chains."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

from edged.base.errors import EdgedError, FormatError, ModelError, OverloadError, ReadingError, TrialError, TrustError
from edged.base.nothing import nothing
from edged.board.delivery.holds import Hold
from edged.board.delivery.outgoing import Outgoing
from edged.board.health import Health
from edged.board.pipeline import Job, Lane
from edged.model.live import Floats, LiveModel

REFUSALS = (ReadingError, TrustError, FormatError, ModelError)
"""Errors of a message that say nothing about the board."""


class _Task(NamedTuple):
    """A window that waits for a slow model.

    :ivar hold: the reading that waits for its result.
    """

    lane: Lane
    job: Job
    hold: Hold | None


class Inference:
    """Serves lanes: their models answer windows, and the answers are published.

    :param slow: seconds of a window's answer above which a model has a thread of its own.
    :param wake: called from such a thread when it has an answer.
    :ivar lanes: by channel; a lane comes after those whose answers it reads.
    :ivar on_answered: called with each window of a lane that keeps examples, after its answer was published.
    :ivar on_trial: called when a version's trial is over: with the lane, the version, and why it failed, if it did.
    """

    def __init__(self, outgoing: Outgoing, health: Health, *, slow: float, wake: Callable[[], None]) -> None:
        self.lanes: dict[str, Lane] = {}
        self._outgoing = outgoing
        self._health = health
        self._slow = slow
        self._wake = wake
        self._followers: dict[str, list[Lane]] = {}
        self._threads: dict[str, ModelThread[_Task, Floats]] = {}
        self._resting: list[_Task] = []
        self.on_trial: Callable[[Lane, LiveModel, TrialError | None], None] = nothing
        self.on_answered: Callable[[Lane, Job], None] | None = None

    def rest(self) -> None:
        """Stop the threads of models; waiting windows go on with :meth:`set_lanes`."""
        for worker in self._threads.values():
            self._resting += worker.close()
        self.conclude_slow()
        self._threads.clear()

    def set_lanes(self, lanes: Mapping[str, Lane]) -> None:
        """Serve these lanes, by channel; a lane comes after those whose answers it reads."""
        self.rest()
        self.lanes = dict(lanes)
        self._followers = {
            channel: [lane for lane in lanes.values() if lane.config.from_ == channel] for channel in lanes
        }
        for lane in lanes.values():
            self._employ(lane)
            if lane.probation is not None and lane.probation.passed:  # trial.windows is 0: no trial
                self._end_trial(lane, None)
        resting, self._resting = self._resting, []
        for task in resting:
            if self.lanes.get(task.lane.config.channel) is task.lane and task.lane.has(task.job.stream):
                self._hand_over(task)
            elif task.hold is not None:
                task.hold.step_done()

    def _employ(self, lane: Lane) -> None:
        """Start a thread for a slow model."""
        if lane.model.seconds > self._slow:
            self._threads[lane.config.channel] = ModelThread(_ask, self._wake)

    def is_slow(self, channel: str) -> bool:
        """Return True if the model of a lane has a thread of its own."""
        return channel in self._threads

    def run(self, lane: Lane, jobs: Iterable[Job], hold: Hold | None) -> None:
        """Ask the model about each window, now or in its thread."""
        gate = lane.config.when
        slow = lane.config.channel in self._threads
        for job in jobs:
            if gate is not None and self.lanes[gate.channel].says(job.stream.key) not in gate.labels:
                job.stream.restart_state = True  # what comes next does not follow from what the model saw last
            elif slow:
                if hold is not None:
                    hold.hold()
                self._hand_over(_Task(lane, job.kept(), hold))
            else:
                self._conclude(lane, job, self._ask_now(lane, job), hold)

    def _ask_now(self, lane: Lane, job: Job) -> Floats:
        try:
            return lane.ask(job)
        except TrialError as error:
            self._end_trial(lane, error)
            if not lane.has(job.stream):
                raise
            return lane.ask(job)

    def _end_trial(self, lane: Lane, error: TrialError | None) -> None:
        """End the trial of a version. If it failed, the version before it answers again, where there is one."""
        if lane.probation is None:
            return
        tried = lane.model
        if error is None:
            lane.end_trial()
        else:
            lane.roll_back()
        self.on_trial(lane, tried, error)

    def _conclude(self, lane: Lane, job: Job, scores: Floats, hold: Hold | None) -> None:
        """Publish the answer for a window, and feed the scores to the models that read them."""
        if lane.probation is not None and lane.probation.passed:
            self._end_trial(lane, None)
        answered = lane.decide(job, scores)
        if answered.publish:
            self._outgoing.publish(lane, answered, hold)
        for follower in self._followers[lane.config.channel]:
            try:
                self.run(
                    follower,
                    follower.feed(lane, job.stream, scores, answered.of, redelivered=job.redelivered),
                    None,
                )
            except REFUSALS as error:
                name, channel = follower.config.name, follower.config.channel
                self._health.refuse(error, f"{name} from {lane.config.channel}", model=name, channel=channel)
        if lane.example_selector is not None and self.on_answered is not None:
            self.on_answered(lane, job)

    def _hand_over(self, task: _Task) -> None:
        worker = self._threads.get(task.lane.config.channel)
        if worker is None:  # a new version, which is quick
            self._finish(task, _asked(task))
        elif (displaced := worker.submit(task)) is not None:
            self._finish(displaced, OverloadError("the model is slower than its windows come"))

    def conclude_slow(self) -> None:
        """Conclude the windows that slow models have answered since the last call."""
        for worker in list(self._threads.values()):
            self._finish_all(worker.take_done())

    def _finish_all(self, done: list[tuple[_Task, Floats | EdgedError]]) -> None:
        for number, (task, outcome) in enumerate(done):
            if isinstance(outcome, TrialError) and task.lane.probation is not None:
                self._ask_again(task.lane, outcome, [task for task, _ in done[number:]])
                return
            self._finish(task, outcome)

    def _ask_again(self, lane: Lane, error: TrialError, tasks: list[_Task]) -> None:
        """Give the windows of a version that failed its trial to the version before it, in order."""
        worker = self._threads.pop(lane.config.channel)
        waiting = worker.close()
        tasks += [task for task, _ in worker.take_done()] + waiting
        self._end_trial(lane, error)
        self._employ(lane)
        for task in tasks:
            self._hand_over(task)

    def _finish(self, task: _Task, outcome: Floats | EdgedError) -> None:
        try:
            if isinstance(outcome, EdgedError):
                config = task.lane.config
                self._health.refuse(outcome, config.name, model=config.name, channel=config.channel)
            else:
                self._conclude(task.lane, task.job, outcome, task.hold)
        finally:
            if task.hold is not None:
                task.hold.step_done()

    @property
    def busy(self) -> bool:
        """True while windows wait for the thread of a model, or are in it."""
        return bool(self._resting) or any(worker.busy for worker in self._threads.values())

    def progress(self) -> float:
        """Return for how many seconds the slowest of the models' threads has been at its window."""
        return max((worker.busy_for() for worker in self._threads.values()), default=0.0)


def _ask(task: _Task) -> Floats:
    return task.lane.ask(task.job)


def _asked(task: _Task) -> Floats | EdgedError:
    try:
        return _ask(task)
    except EdgedError as error:
        return error


_Work = TypeVar("_Work")
_Outcome = TypeVar("_Outcome")

WAITING = 8
"""Windows that wait for a slow model; a further one takes the place of the oldest."""

_NICENESS = 10
"""By how much the thread alone (Linux) is nicer, so that where CPUs are scarce the main loop comes first."""


class ModelThread(Generic[_Work, _Outcome]):
    """Asks a model in a thread of its own, one task after the other.

    :param ask: called in the thread with each task.
    :param wake: called from the thread when an answer is there.
    """

    def __init__(self, ask: Callable[[_Work], _Outcome], wake: Callable[[], None]) -> None:
        self._ask = ask
        self._wake = wake
        self._waiting: deque[_Work] = deque()
        self._done: deque[tuple[_Work, _Outcome | EdgedError]] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="edged-slow-model", daemon=True)
        self._thread.start()

    def submit(self, task: _Work) -> _Work | None:
        """Queue a task; return the oldest one if it has to give way because the model does not keep up."""
        with self._change:
            displaced = self._waiting.popleft() if len(self._waiting) >= WAITING else None
            self._waiting.append(task)
            self._change.notify()
        return displaced

    def take_done(self) -> list[tuple[_Work, _Outcome | EdgedError]]:
        """Return the tasks done since the last call, in order, each with its outcome."""
        done = []
        while self._done:
            done.append(self._done.popleft())
        return done

    @property
    def busy(self) -> bool:
        """True while a task waits or runs."""
        return bool(self._waiting) or self._busy_since is not None

    def busy_for(self) -> float:
        """Return for how many seconds the thread has been at its task."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> list[_Work]:
        """End the thread after the task that it is at, and return those that still waited."""
        with self._change:
            self._closing = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._change.notify()
        self._thread.join()
        return waiting

    def _run(self) -> None:
        with suppress(PermissionError):  # a system call filter may not allow it; the model answers all the same
            os.nice(_NICENESS)
        while True:
            with self._change:
                while not (self._waiting or self._closing):
                    self._change.wait()
                if self._closing:
                    return
                task = self._waiting.popleft()
                self._busy_since = time.monotonic()
            try:
                answer: _Outcome | EdgedError = self._ask(task)
            except EdgedError as error:
                answer = error
            self._busy_since = None
            self._done.append((task, answer))
            del task, answer
            self._wake()
