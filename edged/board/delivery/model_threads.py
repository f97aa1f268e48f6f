"""Threads of slow models: each answers its windows beside the main loop, one after the other."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

from edged.base.errors import EdgedError, ModelError, OverloadError, TrialError
from edged.board.delivery.hold import Hold
from edged.board.pipeline import Job, Lane
from edged.model.live import Floats

ROOM = 8
"""Windows that wait for a slow model before it has no room. Then those of QoS 0 give way, and others are held back."""
_NICENESS = 10
"""By how much such a thread alone (Linux) is nicer, so that where CPUs are scarce the main loop comes first."""


class Task(NamedTuple):
    """A window for a slow model.

    :ivar hold: lets go once its result is safe; None if nothing waits for it.
    """

    lane: Lane
    job: Job
    hold: Hold | None

    def release(self) -> None:
        """Let go."""
        if self.hold is not None:
            self.hold.release()


Done = tuple[Task, Floats | EdgedError]


class ModelThread:
    """Asks a model in a thread of its own.

    :param ask: called in the thread with each task.
    :param wake: called from the thread when an answer is there.
    """

    def __init__(self, ask: Callable[[Task], Floats], wake: Callable[[], None]) -> None:
        self._ask = ask
        self._wake = wake
        self._waiting: deque[Task] = deque()
        self._done: deque[Done] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="edged-slow-model", daemon=True)
        self._thread.start()

    @property
    def has_room(self) -> bool:
        """True while one more window may wait."""
        return len(self._waiting) < ROOM

    def submit(self, task: Task) -> Task | None:
        """Queue a task; without room, return the oldest one that gives way."""
        with self._change:
            displaced = None
            if not self.has_room:
                displaced = next((one for one in self._waiting if one.job.gives_way), None)
            if displaced is not None:
                self._waiting.remove(displaced)
            self._waiting.append(task)
            self._change.notify()
        return displaced

    def take_done(self) -> list[Done]:
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

    def close(self) -> list[Task]:
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
                answer: Floats | EdgedError = self._ask(task)
            except EdgedError as error:
                answer = error
            self._busy_since = None
            self._done.append((task, answer))
            del task, answer
            self._wake()


class Answering(Protocol):
    """The one who asks for answers, and gets them."""

    def ask_now(self, lane: Lane, job: Job, hold: Hold | None) -> None:
        """Ask a model that is quick."""

    def conclude(self, lane: Lane, job: Job, scores: Floats, hold: Hold | None) -> None:
        """Take an answer."""

    def fail(self, lane: Lane, error: EdgedError) -> None:
        """Take the reason why a window has no answer."""

    def end_trial(self, lane: Lane, error: TrialError | None) -> None:
        """End the trial of a version, which failed if there is an error."""


class ModelThreads:
    """The threads of all slow models, by channel.

    :param slow: seconds of a window's answer above which a model gets one.
    :param wake: called from a thread when it has an answer.
    """

    def __init__(self, answering: Answering, slow: float, wake: Callable[[], None]) -> None:
        self._answering = answering
        self._slow = slow
        self._wake = wake
        self._threads: dict[str, ModelThread] = {}
        self._resting: list[Task] = []

    def serves(self, channel: str) -> bool:
        """Return True if the model of a channel has a thread."""
        return channel in self._threads

    def has_room(self, channel: str) -> bool:
        """Return True if one more window may wait for the model of a channel; quick models always have room."""
        thread = self._threads.get(channel)
        return thread is None or thread.has_room

    def submit(self, task: Task) -> None:
        """Ask the model of a task in its thread; at once where it has none any more."""
        thread = self._threads.get(task.lane.config.channel)
        if thread is None:
            self._answering.ask_now(*task)
            task.release()
        elif (displaced := thread.submit(task)) is not None:
            self._finish(displaced, OverloadError("the model is slower than its windows come"))

    def turn(self) -> None:
        """Pass on the answers since the last turn."""
        for thread in list(self._threads.values()):
            self._finish_all(thread.take_done())

    def _finish_all(self, done: list[Done]) -> None:
        for number, (task, outcome) in enumerate(done):
            if isinstance(outcome, TrialError) and task.lane.probation is not None:
                self._ask_again(task.lane, outcome, [task for task, _ in done[number:]])
                return
            self._finish(task, outcome)

    def _ask_again(self, lane: Lane, error: TrialError, tasks: list[Task]) -> None:
        """Give the windows of a version that failed its trial to the version before it, in order."""
        thread = self._threads.pop(lane.config.channel, None)
        self._answering.end_trial(lane, error)
        if thread is None:  # all rest
            self._resting += tasks
            return
        waiting = thread.close()
        tasks += [task for task, _ in thread.take_done()] + waiting
        self._employ(lane)
        for task in tasks:
            self.submit(task)

    def _finish(self, task: Task, outcome: Floats | EdgedError) -> None:
        try:
            if isinstance(outcome, EdgedError):
                self._answering.fail(task.lane, outcome)
            else:
                self._answering.conclude(task.lane, task.job, outcome, task.hold)
        finally:
            task.release()

    def rest(self) -> None:
        """End all threads; windows that wait go on with :meth:`set_lanes`."""
        threads, self._threads = self._threads, {}
        for thread in threads.values():
            self._resting += thread.close()
            self._finish_all(thread.take_done())

    def set_lanes(self, lanes: Mapping[str, Lane]) -> None:
        """Start a thread for each slow model, and go on with the windows that wait."""
        for lane in lanes.values():
            self._employ(lane)
        resting, self._resting = self._resting, []
        for task in resting:
            if lanes.get(task.lane.config.channel) is task.lane and task.lane.has(task.job.stream):
                self.submit(task)
            else:
                self._finish(task, ModelError("its model is served no more"))

    def _employ(self, lane: Lane) -> None:
        if lane.model.seconds > self._slow:
            self._threads[lane.config.channel] = ModelThread(lambda task: task.lane.ask(task.job), self._wake)

    @property
    def busy(self) -> bool:
        """True while windows wait for a thread, or are in it."""
        return bool(self._resting) or any(thread.busy for thread in self._threads.values())

    def busy_for(self) -> float:
        """Return for how many seconds the slowest of the threads has been at its window."""
        return max((thread.busy_for() for thread in self._threads.values()), default=0.0)
