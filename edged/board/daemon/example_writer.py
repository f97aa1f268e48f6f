"""Writes examples to ``examples.db``: windows are taken after they were answered, and written by a thread.

Nothing here holds up an answer: a window is copied when its turn has come, and all the rest is the thread's, which naps
after each. What the disk does not take waits, up to a bound, and is dropped and counted beyond it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice, takewhile

from edged.base.database import put_aside
from edged.base.errors import EdgedError, ReadingError, StateDamagedError
from edged.base.events import Event
from edged.base.topics import topic_matches
from edged.board.examples import Examples, Intake, Window
from edged.board.installation import Board
from edged.board.pipeline import Example, ExampleSelector, Job, Lane
from edged.broker import Delivery
from edged.keystore import Keystore

_LOG = logging.getLogger(__name__)
GROUP = 64
"""Windows that are written at once, or those of:"""
GROUP_SECONDS = 30.0
_AGAIN_SECONDS = 10.0
_MOST_WINDOWS, _MOST_BYTES = 1024, 8 << 20
"""The most that may wait in RAM."""
_NAP = 0.0005
"""Seconds after each window, in which other threads go on: Python runs one at a time, up to 5 ms."""
_NICENESS = 10
KEPT, DROPPED, REFUSED = "kept", "dropped", "refused"


class ExampleWriter:
    """Takes the windows of all lanes.

    :param open_store: called in the thread, when there is something to write.
    :ivar error: the reason why nothing can be written now; empty while writing works.
    :ivar counts: number of windows whose turn had come, by channel and outcome.
    :ivar sizes: sealed bytes that are stored, by model, as far as this process has added any.
    """

    def __init__(self, open_store: Callable[[], Examples]) -> None:
        self.error = ""
        self.counts: Counter[tuple[str, str]] = Counter()
        self.sizes: Mapping[str, int] = {}
        self._open_store = open_store
        self._selectors: tuple[ExampleSelector, ...] = ()
        self._pending: deque[Example] = deque()
        self._bytes = 0
        self._change = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def set_lanes(self, lanes: Iterable[Lane]) -> None:
        """Listen for the labels of these lanes."""
        found = (lane.example_selector for lane in lanes)
        self._selectors = tuple(one for one in found if one is not None and one.topic is not None)

    def topics(self, read: Iterable[str]) -> set[str]:
        """Return the topics that labels come on, but for those that models ``read`` anyway."""
        topics = {one.topic for one in self._selectors if one.topic is not None}
        read = tuple(read)
        return {topic for topic in topics if topic not in read and not any(topic_matches(one, topic) for one in read)}

    def hear(self, delivery: Delivery) -> None:
        """Take a label, if the message is one. Retained ones are passed over: their age is unknown."""
        if self._selectors and not delivery.retain:
            now = time.monotonic()
            for selector in self._selectors:
                selector.hear(delivery.topic, delivery.payload, now)

    def take(self, lane: Lane, job: Job) -> None:
        """Take a window that was answered, if its turn has come. Never raises."""
        channel = lane.config.channel
        try:
            if lane.example_selector is None or job.redelivered:  # else a window may be taken twice
                return
            taken = lane.example_selector.take(job.window, job.stream.key, time.monotonic())
        except Exception as error:  # noqa: BLE001  it was answered, and that is what counts
            self.counts[channel, REFUSED] += 1
            self._complain(f"a window was not taken: {type(error).__name__}: {error}")
            return
        if isinstance(taken, str):
            self.counts[channel, taken] += 1
        elif taken is not None:
            self._put(taken)

    def _put(self, taken: Example) -> None:
        with self._change:
            if len(self._pending) >= _MOST_WINDOWS or self._bytes + taken.window.nbytes > _MOST_BYTES:
                self.counts[taken.channel, DROPPED] += 1
                return
            self._pending.append(taken)
            self._bytes += taken.window.nbytes
            if len(self._pending) in {1, GROUP}:
                self._change.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="edged-collect", daemon=True)
            self._thread.start()

    def close(self, patience: float = 5.0) -> None:
        """Write all waiting windows; stop waiting for the disk after ``patience`` seconds."""
        with self._change:
            self._closing = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join(patience)

    # --- the thread

    def _run(self) -> None:
        with suppress(PermissionError):  # a system call filter may not allow it
            os.nice(_NICENESS)
        writer = _LazyStore(self._open_store)
        while self._wait():
            self._write(writer, self._next_group())
        writer.close()

    def _wait(self) -> bool:
        """Wait until there is something to write; return False if nothing will come any more."""
        with self._change:
            self._change.wait_for(lambda: self._pending or self._closing)
            seconds = _AGAIN_SECONDS if self.error else GROUP_SECONDS
            enough = _MOST_WINDOWS + 1 if self.error else GROUP
            self._change.wait_for(lambda: self._closing or len(self._pending) >= enough, seconds)
            return bool(self._pending)

    def _next_group(self) -> list[Example]:
        """Return the windows that waited longest and are of one model; they go on waiting until they are settled."""
        with self._change:
            first = self._pending[0]
            alike = takewhile(lambda one: (one.of, one.most) == (first.of, first.most), self._pending)
            return list(islice(alike, GROUP))

    def _write(self, writer: _LazyStore, group: list[Example]) -> None:
        try:
            stored = writer.add(group)
        except EdgedError as error:
            self._complain(error.message)
            if self._closing:
                self._settle(list(self._pending), DROPPED)
        except Exception as error:  # noqa: BLE001  the next windows may go
            self._complain(f"{type(error).__name__}: {error}")
            self._settle(group, REFUSED)
        else:
            self.error = ""
            self.sizes = writer.sizes
            self._settle(group, KEPT, stored)

    def _settle(self, done: list[Example], outcome: str, count: int | None = None) -> None:
        """Drop the windows that waited longest from the queue, and count them.

        :param count: how many of them were stored, where not all may have been.
        """
        with self._change:
            for number, one in enumerate(done):
                self._pending.popleft()
                self._bytes -= one.window.nbytes
                self.counts[one.channel, outcome if count is None or number < count else DROPPED] += 1

    def _complain(self, why: str) -> None:
        if not self.error:
            _LOG.warning("windows to train with are not stored: %s", why, extra=Event.STATE_TROUBLE.about())
        self.error = why


def open_examples(board: Board, keystore: Keystore) -> Examples:
    """Open the examples of a board; a damaged file is renamed and a new one created.

    :raises StateError: it cannot be opened.
    """
    try:
        return board.examples(keystore)
    except StateDamagedError as error:
        _LOG.warning("%s: put aside, and a new one begun", error.message, extra=Event.STATE_TROUBLE.about())
        put_aside(board.directory, Examples.layout.name)
        return board.examples(keystore)


class _LazyStore:
    """The store, opened when it is first written."""

    def __init__(self, open_store: Callable[[], Examples]) -> None:
        self._open_store = open_store
        self._store: Examples | None = None
        self._intake: Intake | None = None
        self.sizes: Mapping[str, int] = {}

    def add(self, group: list[Example]) -> int:
        """Store windows of one model; return how many.

        :raises EdgedError: none of them.
        """
        if self._store is not None and self._store.is_replaced():
            _LOG.warning(
                "%s was removed or replaced: what stands there now is used, or a new one begun",
                self._store.path,
                extra=Event.STATE_TROUBLE.about(),
            )
            self.close()
        if self._store is None or self._intake is None:
            self._store = self._open_store()
            self._intake = Intake(self._store)
            self._intake.renew_keys()
        store, intake = self._store, self._intake
        windows = []
        for one in group:
            with suppress(ReadingError):  # the model has answered it: its chain takes it
                windows.append(Window(one.label, one.at, one.values()))
            time.sleep(_NAP)
        try:
            return intake.add(group[0].of, windows, group[0].most)
        except StateDamagedError:
            store.start_over()
            self.close()  # with its keys, which stood in the damaged file
            raise
        finally:
            self.sizes = dict(intake.sizes)

    def close(self) -> None:
        """Close the store, until there is something to write."""
        if self._store is not None:
            self._store.close()
        self._store = self._intake = None
