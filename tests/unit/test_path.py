"""When a message is acknowledged, and what happens to results that nobody takes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from edged.board.delivery import quarantine
from edged.board.delivery.replay import Replay
from edged.board.delivery.row_log import KEPT
from edged.board.state import QuarantineStore, RowStore, State
from edged.broker import Outcome
from edged.formats.channel.reading import ReadingSealer
from edged.formats.channel.receiver import Receiver
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import Encrypt
from edged.formats.cose.keys import ContentKey
from edged.formats.spec import Window
from support.lanes import TOPIC, FakeModel, lane
from support.parties import NOW
from support.serving import RamState, Serving

OTHER = np.ones((4, 2), "<f4").tobytes()
WINDOW = np.zeros((4, 2), "<f4").tobytes()
ROW = np.zeros((1, 2), "<f4").tobytes()


class Running(Serving):
    """A daemon's traffic with one lane, and what came of it."""

    def __init__(
        self,
        *,
        sensor: ContentKey | None = None,
        model: FakeModel | None = None,
        state: State | None = None,
        rate: float | None = None,
        crashes: int = 0,
        **table: Any,
    ) -> None:
        super().__init__(state=state, rate=rate, crashes=crashes)
        self.lane, self.model = lane(model or FakeModel(), sensor=sensor, guard=self.guard, **table)
        self.serve({"c1": self.lane})

    def deliver(self, payload: bytes, topic: str = TOPIC, **flags: Any) -> int:
        number = super().deliver(payload, topic, **flags)
        self.check_books()
        return number

    def replay(self) -> int:
        """Take what the run before left in the row log; ``remembered`` holds what the broker may deliver again."""
        self.remembered: list[bytes] = []
        store = RowStore(self.state)
        replay = Replay(self.path, self.rows, self.quarantine, lambda _topic, payload: self.remembered.append(payload))
        return replay.run(store.readings(), store.windows())

    @property
    def results(self) -> list[tuple[int, bytes]]:
        return self.results_of("c1")


def test_a_window_is_acknowledged_once_the_broker_has_its_result() -> None:
    running = Running(each="window")
    number = running.deliver(WINDOW)
    ((token, _),) = running.results
    assert running.acknowledged == []
    running.taken(token)
    assert running.acknowledged == [number]


def test_a_row_is_acknowledged_once_it_is_in_its_window() -> None:
    running = Running()
    assert [running.deliver(ROW) for _ in range(3)] == running.acknowledged
    assert running.results == []
    assert running.deliver(ROW) in running.acknowledged
    assert len(running.results) == 1


def test_a_sealed_windows_count_is_stored_only_when_its_result_is_safe() -> None:
    """A board that dies in between must take the window when it is handed out again."""
    key = ContentKey.generate(Aead.A256GCM)
    running = Running(each="window", sensor=key)
    running.deliver(ReadingSealer(key, TOPIC).seal(WINDOW))
    assert running.guard.take_settled() == {}
    ((token, _),) = running.results
    running.taken(token)
    assert len(running.guard.take_settled()) == 1


def test_a_replayed_row_is_refused_counted_and_acknowledged() -> None:
    key = ContentKey.generate(Aead.A256GCM)
    running = Running(sensor=key)
    message = ReadingSealer(key, TOPIC).seal(ROW)
    numbers = [running.deliver(message), running.deliver(message)]
    assert running.acknowledged == numbers
    assert running.health.refused == {"ReplayError": 1}


@pytest.mark.parametrize("payload", [b"", b"junk!", bytes(10_000), WINDOW + ROW])
def test_a_message_that_cannot_be_used_is_counted_and_acknowledged(payload: bytes) -> None:
    running = Running(each="window")
    assert running.deliver(payload) in running.acknowledged
    assert running.health.refused.total() == 1
    assert running.results == []


def test_a_runtime_that_fails_on_a_window_stops_nothing() -> None:
    running = Running(each="window")
    running.model.fails = True
    assert running.deliver(WINDOW) in running.acknowledged
    running.model.fails = False
    running.deliver(WINDOW)
    assert len(running.results) == 1
    assert running.health.refused == {"ModelError": 1}


def test_without_a_broker_a_result_is_stored_late_and_its_window_acknowledged_once_it_is_durable() -> None:
    running = Running(each="window")
    receiver: Receiver = running.hub.receiver(running.board)
    running.broker.is_up = False
    number = running.deliver(WINDOW)
    assert running.acknowledged == []
    running.outgoing.outbox.flush(0.0)
    assert running.acknowledged == [number]
    running.broker.is_up = True
    running.outgoing.on_up()
    running.announced()
    running.outgoing.turn(time.monotonic())
    announced = next(payload for topic, payload in running.broker.published if topic.endswith("/announce"))
    receiver.announce("press-07", announced, NOW)
    ((token, payload),) = running.results
    assert receiver.open("edged/press-07/c1", payload, NOW).result.late
    running.taken(token)
    assert running.outgoing.stored == 0


def test_a_result_that_nobody_hears_is_stored_and_one_is_tried_again_from_time_to_time() -> None:
    running = Running(each="window")
    running.deliver(WINDOW)
    ((token, _),) = running.results
    running.taken(token, Outcome.UNHEARD)
    running.deliver(OTHER)
    running.outgoing.turn(time.monotonic())
    assert len(running.results) == 1
    assert running.outgoing.stored == 2
    running.outgoing.on_up()  # what would also happen: five seconds pass
    running.announced()
    running.outgoing.outbox.flush(0.0)
    running.outgoing.turn(time.monotonic())
    assert len(running.results) == 3


def test_equal_windows_are_answered_one_by_one() -> None:
    """An idle machine sends constant windows. Only what the broker delivers again is a repetition."""
    running = Running(each="window")
    numbers = [running.deliver(WINDOW) for _ in range(100)]
    assert len(running.results) == 100
    for token, _ in running.results:
        running.taken(token)
    assert running.acknowledged == numbers
    running.check_books()


def test_a_result_of_a_window_that_was_handed_out_before_says_that_it_is_redelivered() -> None:
    """Another board process may have answered it: hubs tell the two by what they answer."""
    running = Running(each="window")
    receiver: Receiver = running.hub.receiver(running.board)
    running.deliver(WINDOW, dup=True)
    receiver.announce("press-07", running.broker.published[0][1], NOW)
    result = receiver.open("edged/press-07/c1", running.results[0][1], NOW).result
    assert (result.redelivered, result.late) == (True, False)


def test_messages_beyond_the_rate_of_their_topic_are_refused_and_other_topics_go_on() -> None:
    running = Running(rate=5, topic="factory/+/vibration", each="window")
    for number in range(8):
        running.deliver(np.full((4, 2), number, "<f4").tobytes(), "factory/a/vibration")
    running.deliver(WINDOW, "factory/b/vibration")
    assert len(running.results) == 6
    assert running.health.refused == {"RateError": 3}


def test_a_retained_message_is_old_and_is_not_answered() -> None:
    running = Running(each="window")
    assert running.deliver(WINDOW, retain=True) in running.acknowledged
    assert running.results == []
    assert running.health.books.refused == {"RetainedError": 1}
    taken = Running(each="window", retained="reading")
    taken.deliver(WINDOW, retain=True)
    assert len(taken.results) == 1


def test_what_is_on_its_way_when_the_link_falls_is_stored_as_it_was_sealed() -> None:
    running = Running(each="window")
    numbers = [running.deliver(WINDOW), running.deliver(OTHER)]
    sent = [payload for _, payload in running.results]
    running.broker.is_up = False
    running.outgoing.on_down()
    running.outgoing.outbox.flush(time.monotonic())
    assert running.acknowledged == numbers
    running.broker.is_up = True
    running.outgoing.on_up()
    running.announced()
    running.outgoing.turn(time.monotonic())
    assert [payload for _, payload in running.results] == sent * 2
    for token, _ in running.results[2:]:
        running.taken(token)
    assert (running.outgoing.stored, running.outgoing.in_flight) == (0, 0)
    running.check_books()


def test_what_a_broker_leaves_without_an_answer_is_stored_by_time_and_not_by_traffic() -> None:
    """A link that is half open: the broker seems to be there, and says nothing."""
    running = Running(each="window")
    number = running.deliver(WINDOW)
    running.broker.drained_at = time.monotonic() + 60.0
    running.outgoing.turn(time.monotonic())
    running.outgoing.outbox.flush(time.monotonic())
    assert running.acknowledged == [number]
    assert "uplink" in running.health.faults
    later = running.deliver(OTHER)
    running.outgoing.outbox.flush(time.monotonic())
    assert running.acknowledged == [number, later]
    ((token, _),) = running.results
    running.taken(token)  # it was there after all
    running.outgoing.turn(time.monotonic())
    assert "uplink" not in running.health.faults
    running.check_books()


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.TOO_LARGE])
def test_a_result_that_the_broker_never_takes_is_counted_and_shown_until_one_is_taken(outcome: Outcome) -> None:
    running = Running(each="window")
    number = running.deliver(WINDOW)
    ((token, _),) = running.results
    running.taken(token, outcome)
    assert running.acknowledged == [number]
    assert running.health.books.dropped.total() == 1
    assert running.health.degraded
    running.deliver(OTHER)
    running.taken(running.results[1][0])
    assert running.health.degraded == []
    running.check_books()


def test_a_result_that_the_broker_takes_later_is_stored_and_its_reading_waits_for_that() -> None:
    running = Running(each="window")
    number = running.deliver(WINDOW)
    ((token, _),) = running.results
    running.taken(token, Outcome.POSTPONED)
    assert running.acknowledged == []
    running.outgoing.outbox.flush(time.monotonic())
    assert running.acknowledged == [number]
    assert (running.outgoing.stored, running.health.books.dropped) == (1, {})
    running.check_books()


# --- quarantine ------------------------------------------------------------------------------


def test_a_message_that_a_stage_trips_over_three_times_is_set_aside_and_others_flow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = Running(each="window")
    monkeypatch.setattr(quarantine, "_RETRY_AFTER", 0.0)
    running.model.raises = RuntimeError("nobody foresaw this")
    number = running.deliver(WINDOW)
    running.model.raises = None
    running.deliver(OTHER)
    assert len(running.results) == 1
    running.model.raises = RuntimeError("nobody foresaw this")
    running.path.turn(time.monotonic())
    assert number not in running.acknowledged
    running.path.turn(time.monotonic())
    assert number in running.acknowledged
    (aside,) = QuarantineStore(running.state).all()
    assert (aside.topic, aside.size) == (TOPIC, len(WINDOW))
    assert "nobody foresaw this" in aside.why
    opened = Encrypt.parse(cbor.decode_canonical(aside.sealed), 4)
    key = opened.unwrap(running.hub.key, None)
    assert opened.open(key, quarantine.quarantine_aad(aside.digest)) == WINDOW


class Death(BaseException):
    """The end of the process, at just this place."""


def test_a_message_that_killed_the_process_twice_is_touched_once_more_and_then_set_aside() -> None:
    state = RamState()
    for crashes in (1, 2):
        running = Running(each="window", state=state, crashes=crashes)
        running.deliver(OTHER, dup=True)
        running.model.raises = Death()
        with pytest.raises(Death):
            running.deliver(WINDOW, dup=True)
    running = Running(each="window", state=state, crashes=3)
    assert running.deliver(WINDOW, dup=True) in running.acknowledged
    assert running.results == []
    running.deliver(OTHER, dup=True)
    assert len(running.results) == 1
    (aside,) = QuarantineStore(state).all()
    assert aside.size == len(WINDOW)


def test_a_message_that_waits_while_the_process_is_killed_again_and_again_is_not_blamed() -> None:
    state = RamState()
    for crashes in range(1, 6):
        running = Running(each="window", state=state, crashes=crashes)
        assert running.deliver(WINDOW, dup=True) not in running.acknowledged
        running.path.turn(time.monotonic())
        assert len(running.results) == 1  # on its way; here the power goes
    assert QuarantineStore(state).all() == []


# --- the journal of rows ---------------------------------------------------------------------


def row(number: float) -> bytes:
    return np.full((1, 2), number, "<f4").tobytes()


def test_a_journalled_row_is_acknowledged_once_it_is_durable() -> None:
    running = Running(journal=True)
    numbers = [running.deliver(row(number)) for number in range(2)]
    assert running.acknowledged == []
    running.rows.turn(1e12)
    assert running.acknowledged == numbers
    assert [one.payload for one in RowStore(running.state).readings()] == [row(0), row(1)]


@pytest.mark.parametrize("hop", [1, 2, 3, 4])
@pytest.mark.parametrize("crash_after", range(1, 10))
@pytest.mark.parametrize("safe", [False, True])
def test_a_crash_loses_no_journalled_row_and_windows_stay_as_they_were(
    hop: int, crash_after: int, *, safe: bool
) -> None:
    """The same windows under the same names, whether their results were safe before the crash or not."""
    model = {"model": FakeModel(window=Window(size=4, hop=hop))}
    whole = Running(journal=True, **model)
    for number in range(13):
        whole.deliver(row(number))
    state = RamState()
    before = Running(journal=True, state=state, model=FakeModel(window=Window(size=4, hop=hop)))
    for number in range(crash_after):
        before.deliver(row(number))
    if safe:
        for token, _ in before.results:
            before.taken(token)
    before.rows.turn(1e12)
    after = Running(journal=True, state=state, model=FakeModel(window=Window(size=4, hop=hop)))
    after.replay()
    for number in range(crash_after, 13):
        after.deliver(row(number))
    seen = before.model.windows + after.model.windows
    assert [one for number, one in enumerate(seen) if one not in seen[:number]] == whole.model.windows
    if safe:
        assert seen == whole.model.windows


def test_a_journalled_rows_count_is_settled_only_when_it_is_durable() -> None:
    """A board that dies in between must take the row when it is handed out again."""
    key = ContentKey.generate(Aead.A256GCM)
    running = Running(journal=True, sensor=key)
    running.deliver(ReadingSealer(key, TOPIC).seal(row(0)))
    assert running.guard.take_settled() == {}
    running.rows.turn(1e12)
    assert len(running.guard.take_settled()) == 1


def test_rows_that_no_window_needs_leave_the_journal_but_for_those_that_may_be_handed_out_again() -> None:
    running = Running(journal=True)
    for number in range(KEPT + 50):
        running.deliver(row(number))
        for token, _ in running.results[-1:]:
            running.taken(token)
    running.rows.turn(1e12)
    assert len(RowStore(running.state).readings()) <= KEPT + 64


def test_a_row_whose_window_is_done_enters_no_other_after_a_crash() -> None:
    """It was durable, its result was out, and its acknowledgement was not."""
    state = RamState()
    before = Running(journal=True, state=state)
    for number in range(4):
        before.deliver(row(number))
    for token, _ in before.results:
        before.taken(token)
    before.rows.turn(1e12)
    after = Running(journal=True, state=state)
    assert after.replay() == 0
    assert after.remembered == [row(number) for number in range(4)]
    for number in range(4, 8):
        after.deliver(row(number))
    assert after.model.windows == [[4.0, 5.0, 6.0, 7.0]]


def test_a_row_of_the_journal_is_one_that_the_broker_may_deliver_again() -> None:
    """The process died after it was durable and before its acknowledgement was out."""
    state = RamState()
    before = Running(journal=True, state=state)
    before.deliver(row(0))
    before.rows.turn(1e12)
    after = Running(journal=True, state=state)
    assert after.replay() == 1
    assert after.remembered == [row(0)]
    for number in range(1, 4):
        after.deliver(row(number))
    assert after.model.windows == [[0.0, 1.0, 2.0, 3.0]]


# --- announcements and questions -------------------------------------------------------------


def test_the_announcement_stands_before_the_first_result_of_its_epoch() -> None:
    running = Running(each="window")
    running.deliver(WINDOW)
    running.announcer.rotate()
    running.deliver(np.ones((4, 2), "<f4").tobytes())
    assert [topic.rsplit("/", 1)[1] for topic, _ in running.broker.published] == ["announce", "c1", "announce", "c1"]


def test_a_hubs_question_is_answered_and_junk_in_its_place_is_counted() -> None:
    running = Running()
    running.deliver(b"junk", "edged/press-07/nonce")
    assert running.health.refused == {"FormatError": 1}
    question = cbor.encode([running.hub.name, bytes(16)])
    running.deliver(question, "edged/press-07/nonce")
    assert running.announcer.announcement(NOW).count(bytes(16)) == 1
