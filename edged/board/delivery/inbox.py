"""Messages in, and each acknowledged when all that needs it is done.

A row is acknowledged once it is in its window, or in the row log where there is one. A whole window is acknowledged
once its result is safe: if the board dies before, the broker delivers the window once more.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from edged.base.errors import EdgedError, OverloadError, RateError, ReplayError
from edged.board.delivery.holds import MessageAck, PendingReading, Postponed, WindowKey
from edged.board.delivery.inference import REFUSALS, Inference
from edged.board.delivery.outgoing import Outgoing
from edged.board.delivery.quarantine import Quarantine
from edged.board.delivery.row_log import RowHold, RowLog
from edged.board.health import Health
from edged.board.pipeline import Job, Lane, Message, Reading, Start
from edged.board.state import StoredReading
from edged.broker import Delivery
from edged.config.board import Limits
from edged.formats.channel.reading import ReplayGuard

_TOPICS_CACHED = 1024
_ANSWERED = 4096


class Inbox:
    """Serves messages to all models that read them, and acknowledges each.

    :ivar on_delivery: called with each message of the sensors before models get it.
    """

    def __init__(
        self,
        inference: Inference,
        outgoing: Outgoing,
        guard: ReplayGuard,
        health: Health,
        quarantine: Quarantine,
        rows: RowLog,
        limits: Limits,
    ) -> None:
        self._inference = inference
        self._outgoing = outgoing
        self._guard = guard
        self._health = health
        self._quarantine = quarantine
        self._rows = rows
        self._rate = None if limits.rate is None else RateLimit(limits.rate)
        self._most_windows = limits.windows
        self._windows: dict[WindowKey, PendingReading] = {}
        self._waiting: dict[str, int] = {}
        self._answered: OrderedDict[WindowKey, None] = OrderedDict()
        self._unacknowledged: deque[MessageAck] = deque()
        self._postponed = Postponed()
        self._lanes: dict[str, Lane] = {}
        self._matching: dict[str, list[Lane]] = {}
        self.on_delivery: Callable[[Delivery], None] | None = None

    def on_message(self, delivery: Delivery) -> None:
        """Serve one message. No content of a message makes this raise."""
        if self._outgoing.is_own(delivery.topic):
            try:
                self._outgoing.on_own_topic(delivery)
            except EdgedError as error:
                self._health.refuse(error, delivery.topic)
            delivery.ack()
            return
        if self.on_delivery is not None:
            self.on_delivery(delivery)
        ack = MessageAck(delivery.ack, can_wait=delivery.qos > 0)
        message = Message(delivery.topic, delivery.payload, redelivered=delivery.dup)
        self._health.messages += 1
        if self._rate is not None and not self._rate.admits(message.topic):
            self._health.refuse(RateError("more messages a second than limits.rate"), message.topic)
        elif self._quarantine.admits(message):
            behind = self._postponed.holds(delivery.topic)
            for lane in self._lanes_of(delivery.topic):
                if not (behind and self._postpone(lane, message, ack)):
                    self._attempt(lane, message, ack)
            self._note_served()
        if self._outgoing.congested:
            self._unacknowledged.append(ack)
        else:
            ack.release()

    def _attempt(self, lane: Lane, message: Message, ack: MessageAck, attempt: int = 1) -> None:
        """Serve a message to one model; after an unforeseen error retry later, and quarantine it in the end."""
        try:
            self._serve(lane, message, ack, known=attempt > 1)
        except ReplayError as error:
            if message.redelivered:
                self._health.repeated += 1
            else:
                self._health.refuse(error, message.topic)
        except REFUSALS as error:
            if not (isinstance(error, OverloadError) and self._postpone(lane, message, ack, attempt)):
                self._health.refuse(error, message.topic)
        except Exception as error:  # noqa: BLE001  one reading must not stop the others
            ack.hold()
            self._health.last_error = f"{message.topic}: {type(error).__name__}"
            self._quarantine.failed(lane, message, error, ack.release, attempt)

    def _postpone(self, lane: Lane, message: Message, ack: MessageAck, attempt: int = 1) -> bool:
        """Postpone a message if its broker waits for the acknowledgement; return True if it was postponed."""
        return ack.can_wait and self._postponed.add(lane.config.channel, message, ack, attempt)

    def _has_room(self, topic: str) -> bool:
        return self._waiting.get(topic, 0) < self._most_windows

    def turn(self, now: float) -> None:
        """Retry failed messages, and serve postponed ones that have room now."""
        for one in self._quarantine.due(now):
            ack = MessageAck(one.done)
            if self._inference.lanes.get(one.lane.config.channel) is one.lane:
                self._attempt(one.lane, one.message, ack, one.attempt)
            ack.release()
        for waiting in self._postponed.due(self._has_room):
            lane, ack = self._inference.lanes.get(waiting.channel), MessageAck(waiting.release)
            if lane is not None and lane.reads(waiting.message.topic):
                self._attempt(lane, waiting.message, ack, waiting.attempt)
            ack.release()
        self._note_served()
        self._quarantine.turn()
        while self._unacknowledged and not self._outgoing.congested:
            self._unacknowledged.popleft().release()

    def _note_served(self) -> None:
        """Clear the messages in hand of suspicion, once no thread of a model works on any of them."""
        if self._quarantine.watching and not self._inference.busy:
            self._quarantine.all_served()

    def _lanes_of(self, topic: str) -> list[Lane]:
        if self._lanes is not self._inference.lanes:
            self._lanes = self._inference.lanes
            self._matching.clear()
        lanes = self._matching.get(topic)
        if lanes is None:
            lanes = [lane for lane in self._lanes.values() if lane.reads(topic)]
            if len(self._matching) >= _TOPICS_CACHED:
                self._matching.clear()
            self._matching[topic] = lanes
        return lanes

    def _serve(self, lane: Lane, message: Message, ack: MessageAck, *, known: bool = False) -> None:
        reading = lane.open(message)
        name = (lane.config.channel, message.topic, reading.name)
        if message.redelivered and name in self._answered:
            self._health.repeated += 1
            return
        key, waiting = name if lane.holds_whole_windows else None, 0
        if key is not None:
            if (before := self._windows.get(key)) is not None:
                ack.hold()  # redelivered while its result is on its way: that result settles this copy too
                before.acks.append(ack)
                return
            waiting = self._waiting.get(message.topic, 0)
            if waiting >= self._most_windows:
                raise OverloadError(f"{self._most_windows} windows of it wait for their results (limits.windows)")
        pending = PendingReading(key, name, reading, ack, self._settle)
        if key is not None:
            self._windows[key] = pending
            self._waiting[message.topic] = waiting + 1
        try:
            if lane.config.journal:
                self._take_row(lane, reading, pending, known=known)
            else:
                jobs = lane.take(reading, clock_synchronised=self._outgoing.clock.synchronised, known=known)
                self._inference.run(lane, jobs, pending if key is not None else None)
        finally:
            pending.release()

    def _take_row(self, lane: Lane, reading: Reading, pending: PendingReading, *, known: bool) -> None:
        """Take rows that go to the row log: the log acknowledges them."""
        number = self._rows.next_number()
        jobs = lane.take(reading, clock_synchronised=self._outgoing.clock.synchronised, known=known, number=number)
        self._run_journalled(lane, jobs)
        key = (lane.config.channel, reading.message.topic)
        now = time.monotonic()
        self._rows.add(key, number, reading.message, pending, now)
        self._rows.window_begins(key, lane.open_from(reading.message.topic), now)

    def replay(self, stored: Iterable[StoredReading], windows: Mapping[tuple[str, str], Start]) -> int:
        """Take the readings that the last crash left in the row log; return their number.

        :param windows: the start of each stream's open window: reading, and rows before it there.
        """
        count = 0
        for one in stored:
            lane = self._inference.lanes.get(one.channel)
            message = Message(one.topic, one.payload, redelivered=True)
            key = (one.channel, one.topic)
            first, skip = windows.get(key, (0, 0))
            journalled = lane is not None and lane.config.journal and lane.reads(one.topic)
            if lane is None or not journalled or not self._quarantine.admits(message, replayed=True):
                self._rows.retire(one.number)
                continue
            if one.number < first:
                self._rows.retire(one.number)
                self._note_replayed(lane, message)
                continue
            count += 1
            self._rows.keep(key, one.number)
            try:
                reading = lane.open(message)
                self._note_answered((one.channel, one.topic, reading.name))
                jobs = lane.take(
                    reading,
                    clock_synchronised=False,
                    known=True,
                    number=one.number,
                    skip=skip if one.number == first else 0,
                )
                self._run_journalled(lane, jobs)
                if reading.sealed is not None:
                    self._guard.settle(reading.sealed.key, reading.sealed.count)
            except REFUSALS as error:
                self._health.refuse(error, one.topic)
            self._rows.window_begins(key, lane.open_from(one.topic), time.monotonic())
            self._note_served()
        self._quarantine.turn()
        return count

    def _note_replayed(self, lane: Lane, message: Message) -> None:
        """Remember a stored reading that no window needs: its acknowledgement may not have been sent."""
        with suppress(*REFUSALS):
            self._note_answered((lane.config.channel, message.topic, lane.open(message).name))

    def _run_journalled(self, lane: Lane, jobs: Iterable[Job]) -> None:
        for job in jobs:
            hold = RowHold(self._rows, (lane.config.channel, job.stream.key), job.start)
            hold.hold()
            self._inference.run(lane, (job,), hold)
            hold.step_done()

    def _settle(self, pending: PendingReading) -> None:
        if pending.key is not None:
            del self._windows[pending.key]
            topic = pending.reading.message.topic
            waiting = self._waiting.pop(topic) - 1
            if waiting:
                self._waiting[topic] = waiting
        sealed = pending.reading.sealed
        if sealed is None:
            self._note_answered(pending.name)
        elif pending.reading.accepted:
            self._guard.settle(sealed.key, sealed.count)

    def _note_answered(self, name: WindowKey) -> None:
        """Remember a reading that is dealt with: a broker that crashed may redeliver it."""
        self._answered[name] = None
        if len(self._answered) > _ANSWERED:
            self._answered.popitem(last=False)

    def open_windows(self) -> int:
        """Return the number of windows that a crash would lose: those that are being filled without a row log."""
        return sum(lane.open_windows() for lane in self._inference.lanes.values() if not lane.config.journal)


_MOST_TOPICS = 4096


class _Bucket:
    """The tokens of one topic, and their time."""

    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at


class RateLimit:
    """Lets ``rate`` messages a second of each topic through; a second's worth may come at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._topics: dict[str, _Bucket] = {}

    def admits(self, topic: str) -> bool:
        """Return True if one more message of a topic is let through."""
        now = time.monotonic()
        bucket = self._topics.get(topic)
        if bucket is None:
            if len(self._topics) >= _MOST_TOPICS:
                del self._topics[next(iter(self._topics))]
            bucket = self._topics[topic] = _Bucket(self._rate, now)
        tokens = min(self._rate, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        admits = tokens >= 1
        bucket.tokens = tokens - 1 if admits else tokens
        return admits
