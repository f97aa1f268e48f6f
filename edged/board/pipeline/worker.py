"""A thread for one slow model, so that it delays neither the other models nor the broker's keepalive."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from edged.base.errors import EdgedError

_Task = TypeVar("_Task")
_Answer = TypeVar("_Answer")

WAITING = 8
"""Windows that wait for a slow model; a further one takes the place of the oldest."""

_NICENESS = 10
"""By how much the thread alone (Linux) is nicer, so that where CPUs are scarce the main loop comes first."""


class Worker(Generic[_Task, _Answer]):
    """Asks a model in a thread of its own, one task after the other.

    :param ask: what the thread does with a task.
    :param wake: called from the thread when an answer is there.
    """

    def __init__(self, ask: Callable[[_Task], _Answer], wake: Callable[[], None]) -> None:
        self._ask = ask
        self._wake = wake
        self._waiting: deque[_Task] = deque()
        self._done: deque[tuple[_Task, _Answer | EdgedError]] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="edged-slow-model", daemon=True)
        self._thread.start()

    def submit(self, task: _Task) -> _Task | None:
        """Have a task done; return the one that has to give way because the model does not keep up."""
        with self._change:
            displaced = self._waiting.popleft() if len(self._waiting) >= WAITING else None
            self._waiting.append(task)
            self._change.notify()
        return displaced

    def take_done(self) -> list[tuple[_Task, _Answer | EdgedError]]:
        """Return what was answered since the last call, in order."""
        done = []
        while self._done:
            done.append(self._done.popleft())
        return done

    @property
    def busy(self) -> bool:
        """Whether a task waits, or is being done."""
        return bool(self._waiting) or self._busy_since is not None

    def busy_for(self) -> float:
        """Return for how many seconds the thread has been at its task."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> list[_Task]:
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
                answer: _Answer | EdgedError = self._ask(task)
            except EdgedError as error:
                answer = error
            self._busy_since = None
            self._done.append((task, answer))
            del task, answer
            self._wake()
