"""A lane: messages in, answers out, each naming the readings that it rests on."""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Any, cast

import numpy as np
import pytest

from edged.base.errors import (
    ConfigError,
    DecryptionError,
    FormatError,
    ModelError,
    ReadingError,
    ReadingShapeError,
    ReadingSizeError,
    ReadingValueError,
    ReplayError,
    TrustError,
)
from edged.board.pipeline import Message
from edged.board.pipeline.stream import STREAMS
from edged.config.model import Calibration
from edged.formats.channel.reading import ReadingSealer
from edged.formats.channel.result import Input as Named
from edged.formats.channel.result import Plain, Sealed
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import ContentKey
from edged.formats.spec import Decide, Gap, Input, Publish, Window
from edged.model.live import LiveModel
from support.lanes import TOPIC, FakeModel, lane, send


def message(*firsts: float) -> bytes:
    """Return rows of two channels, the second 0."""
    return np.array([[first, 0] for first in firsts], "<f4").tobytes()


def plain(*payloads: bytes) -> Named:
    return Plain(hashlib.sha256(b"".join(hashlib.sha256(payload).digest() for payload in payloads)).digest())


# --- which readings an answer names ----------------------------------------------------------


def test_rows_are_named_one_by_one() -> None:
    serving, model = lane()
    rows = [message(number) for number in range(8)]

    answers = [send(serving, row) for row in rows]

    assert [len(found) for found in answers] == [0, 0, 0, 1, 0, 0, 0, 1]
    assert model.windows == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [found.of for found in answers[3] + answers[7]] == [plain(*rows[:4]), plain(*rows[4:])]


def test_a_message_across_the_border_of_two_windows_belongs_to_both() -> None:
    serving, model = lane(each="rows")
    first, second, third = message(0, 1, 2), message(3, 4, 5), message(6, 7)

    answers = send(serving, first) + send(serving, second) + send(serving, third)

    assert model.windows == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [found.of for found in answers] == [plain(first, second), plain(second, third)]


def test_a_message_of_several_windows_is_named_by_each() -> None:
    serving, model = lane(each="rows")
    first, second = message(0), message(*range(1, 12))

    answers = send(serving, first) + send(serving, second)

    assert len(model.windows) == 3
    assert [found.of for found in answers] == [plain(first, second), plain(second), plain(second)]


def test_overlapping_windows_name_a_reading_again() -> None:
    serving, model = lane(FakeModel(window=Window(size=4, hop=2)))
    rows = [message(number) for number in range(8)]

    answers = [found for row in rows for found in send(serving, row)]

    assert model.windows == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert [found.of for found in answers] == [plain(*rows[at : at + 4]) for at in (0, 2, 4)]


@pytest.mark.parametrize("hop", [1, 3, 4])
@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7])
def test_readings_are_named_as_a_series_of_numbers_would_have_it(hop: int, cut: int) -> None:
    serving, model = lane(FakeModel(window=Window(size=4, hop=hop)), each="rows")
    messages = [message(*range(at, at + cut)) for at in range(0, 60, cut)]

    answers = [found for one in messages for found in send(serving, one)]

    expected = [messages[int(window[0]) // cut : int(window[-1]) // cut + 1] for window in model.windows]
    assert [found.of for found in answers] == [plain(*names) for names in expected]
    assert len(answers) == (cut * len(messages) - 4) // hop + 1


def test_a_whole_window_is_named_alone() -> None:
    serving, model = lane(each="window")
    first, second = message(0, 1, 2, 3), message(4, 5, 6, 7)

    assert serving.holds_whole_windows
    assert [found.of for found in send(serving, first)] == [plain(first)]
    assert [found.of for found in send(serving, second)] == [plain(second)]
    assert model.windows == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_sealed_readings_are_named_by_their_counts() -> None:
    key = ContentKey.generate(Aead.A256GCM)
    serving, _ = lane(sensor=key)
    sealer = ReadingSealer(key, TOPIC)
    messages = [sealer.seal(message(number)) for number in range(8)]
    counts = [name for one in messages if isinstance(name := serving.open(Message(TOPIC, one)).name, Sealed)]

    answers = [found for one in messages for found in send(serving, one)]

    assert [found.of for found in answers] == [
        Sealed(key.kid, counts[0].first, counts[3].last),
        Sealed(key.kid, counts[4].first, counts[7].last),
    ]


def test_what_a_refused_reading_is_called_does_not_matter() -> None:
    serving, model = lane()
    rows = [message(number) for number in range(4)]
    for row in rows[:2]:
        send(serving, row)
    for bad in (b"", b"x", message(1, 2)):
        with pytest.raises(ReadingError):
            send(serving, bad)

    answers = send(serving, rows[2]) + send(serving, rows[3])

    assert model.windows == [[0, 1, 2, 3]]
    assert [found.of for found in answers] == [plain(*rows)]


def test_a_refused_value_takes_its_window_with_it() -> None:
    """A window without that row would not be what the sensor saw."""
    serving, model = lane()
    for number in range(3):
        send(serving, message(number))
    with pytest.raises(ReadingValueError):
        send(serving, message(float("nan")))

    answers = [found for number in range(4, 8) for found in send(serving, message(number))]

    assert model.windows == [[4, 5, 6, 7]]
    assert [found.of for found in answers] == [plain(*map(message, range(4, 8)))]


@pytest.mark.parametrize("rows", [3, 5, 100_000])
def test_a_whole_window_of_another_size_is_refused(rows: int) -> None:
    serving, model = lane(each="window", limit=10**6)

    with pytest.raises(ReadingShapeError, match=f"a window has {rows} rows, the model wants 4"):
        send(serving, message(*range(rows)))

    assert model.windows == []


# --- what an answer says ---------------------------------------------------------------------


def test_answers_and_the_manifests_wish_to_publish() -> None:
    serving, _ = lane(
        FakeModel(
            window=Window(size=1), decide=Decide(watch="broken", enter=0.4, leave=0.2), publish=Publish(when="change")
        )
    )

    labels = [[found.answer.label for found in send(serving, message(first))] for first in (0, 0.2, 1, 0.6, 0.2, 0)]

    assert labels == [["healthy"], [], ["broken"], [], ["healthy"], []]


def test_a_pause_forgets_the_window_that_is_being_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("edged.board.pipeline.lane.time.monotonic", lambda: now)
    serving, model = lane(FakeModel(input=Input(channels=("a1", "a2"), gap=Gap(over="50 ms"))))
    rows = [message(number) for number in range(8)]
    for row in rows[:3]:
        now += 0.05
        assert not send(serving, row)
    now += 0.051

    answers = [found for row in rows[3:7] for found in send(serving, row)]

    assert model.windows == [[3, 4, 5, 6]]
    assert [found.of for found in answers] == [plain(*rows[3:7])]


def test_a_model_that_fails_on_a_window_leaves_a_gap() -> None:
    serving, model = lane()
    rows = [message(number) for number in range(8)]
    model.fails = True
    for row in rows[:3]:
        send(serving, row)
    with pytest.raises(ModelError):
        send(serving, rows[3])
    model.fails = False

    answers = [found for row in rows[4:] for found in send(serving, row)]

    assert model.windows == [[4, 5, 6, 7]]
    assert [found.of for found in answers] == [plain(*rows[4:])]


# --- topics ----------------------------------------------------------------------------------


def test_each_topic_has_a_window_and_held_values_of_its_own() -> None:
    serving, model = lane(
        FakeModel(input=Input(channels=("a1", "a2"), missing="hold"), window=Window(size=2)),
        format="json",
        topic="factory/+/vibration",
    )
    one, two = "factory/1/vibration", "factory/2/vibration"
    send(serving, b'{"a1": 1, "a2": 1}', one)
    send(serving, b'{"a1": 2, "a2": 2}', two)

    assert len(send(serving, b'{"a2": 0}', one)) == len(send(serving, b'{"a2": 0}', two)) == 1
    assert model.windows == [[1, 1], [2, 2]]
    with pytest.raises(ReadingValueError, match="a reading lacks a1"):
        send(serving, b'{"a2": 0}', "factory/3/vibration")


def test_topics_are_bounded_and_the_quietest_goes_first() -> None:
    serving, model = lane(topic="factory/+/vibration")
    topics = [f"factory/{number}/vibration" for number in range(STREAMS + 1)]
    for topic in topics[:STREAMS]:
        send(serving, message(0), topic)
    send(serving, message(1), topics[0])  # now topic 1 is the quietest
    send(serving, message(0), topics[STREAMS])

    for topic, begins in ((topics[0], [0, 1]), (topics[1], []), (topics[STREAMS], [0])):
        model.windows.clear()
        for value in (7, 7, 7, 7):
            send(serving, message(value), topic)
        assert model.windows[0] == [*begins, 7, 7, 7, 7][:4]


# --- another version -------------------------------------------------------------------------


def test_a_swap_keeps_the_window_that_is_being_filled_and_closes_the_old_model() -> None:
    serving, old = lane()
    rows = [message(number) for number in range(4)]
    for row in rows[:2]:
        send(serving, row)

    new = FakeModel(2)
    serving.swap(cast("LiveModel", new))
    answers = [found for row in rows[2:] for found in send(serving, row)]

    assert (old.closed, new.closed, old.windows, new.windows) == (False, False, [], [[0, 1, 2, 3]])
    serving.end_trial()
    assert (old.closed, new.closed) == (True, False)
    assert [found.of for found in answers] == [plain(*rows)]
    serving.close()
    assert new.closed


def test_a_swap_begins_to_decide_anew() -> None:
    fields: dict[str, Any] = {
        "window": Window(size=1),
        "decide": Decide(watch="broken", enter=0.4, leave=0.2),
        "publish": Publish(when="change"),
    }
    serving, _ = lane(FakeModel(**fields))
    assert [found.answer.label for found in send(serving, message(1))] == ["broken"]

    serving.swap(cast("LiveModel", FakeModel(2, **fields)))

    assert [found.answer.label for found in send(serving, message(0.6))] == ["healthy"]


@pytest.mark.parametrize(
    "fields", [{"window": Window(size=3)}, {"window": Window(size=4, hop=1)}, {"input": Input(channels=("a2", "a1"))}, {"input": Input(channels=("a1", "a2"), nan=0.0)}]
)  # fmt: skip
def test_a_swap_to_other_windows_begins_them_anew(fields: dict[str, Any]) -> None:
    serving, _ = lane()
    for first in (1, 2, 3):
        send(serving, message(first))
    new = FakeModel(2, **fields)

    serving.swap(cast("LiveModel", new))
    for first in (4, 5, 6, 7):
        send(serving, message(first))

    assert new.windows[0] == [4, 5, 6, 7][: new.manifest.window.size]


def test_a_version_that_does_not_fit_the_board_leaves_the_old_one_serving() -> None:
    serving, old = lane(fields={"a1": "/x"}, format="json")

    with pytest.raises(ConfigError):
        serving.swap(cast("LiveModel", FakeModel(2, input=Input(channels=("b1", "b2")))))

    send(serving, b'{"x": 1, "a2": 2}')
    assert not old.closed


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said", "hint"),
    [
        ({"fields": {"a3": "/x"}}, "fields.a3: the model has no such channel", "it has a1, a2"),
        ({"calibrate": {"b1": Calibration()}}, "calibrate.b1: the model has no such channel", "it has a1, a2"),
        ({"tune": {"decide.leave": 0.5}}, "tune.decide.leave: the publisher does not let a site set it", "it may set decide.enter"),
        ({"tune": {"decide.enter": 0.6}}, "tune.decide.enter: 0.6 is out of bounds", "from 0.7 to 0.9, says the publisher"),
        ({"tune": {"decide.enter": float("nan")}}, "tune.decide.enter: nan is out of bounds", "from 0.7 to 0.9, says the publisher"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_the_manifest_is_refused_by_key(table: dict[str, Any], said: str, hint: str) -> None:
    model = FakeModel(decide=Decide(watch="broken", enter=0.8), tunable={"decide.enter": (0.7, 0.9)})

    with pytest.raises(ConfigError) as caught:
        lane(model, **table)

    assert (caught.value.message, caught.value.hint) == (f"[[model]] gearbox: {said}", hint)


def test_a_field_that_is_no_pointer_is_refused_with_its_table() -> None:
    with pytest.raises(ConfigError, match=r"^\[\[model\]\] gearbox.*'vib' is no JSON pointer"):
        lane(fields={"a1": "vib"})


def test_a_message_that_is_too_long_is_refused() -> None:
    serving, _ = lane(limit=8)

    send(serving, message(1))
    with pytest.raises(ReadingSizeError, match="a reading is 9 bytes long, more than the 8 allowed"):
        serving.open(Message(TOPIC, message(1) + b"x"))


def test_a_sealed_reading_is_accepted_once_and_on_its_topic() -> None:
    key = ContentKey.generate(Aead.CHACHA20_POLY1305)
    serving, model = lane(sensor=key, topic="factory/+/vibration")
    sealed = ReadingSealer(key, TOPIC).seal(message(0))

    send(serving, sealed)
    with pytest.raises(ReplayError):
        send(serving, sealed)
    with pytest.raises(DecryptionError):
        serving.open(Message("factory/press-08/vibration", sealed))
    with pytest.raises(FormatError):
        serving.open(Message(TOPIC, message(1)))
    for at in range(len(sealed)):
        with pytest.raises((TrustError, FormatError)):
            send(serving, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
    assert model.windows == []


def test_a_window_of_another_size_is_refused() -> None:
    serving, _ = lane(each="window")

    for rows in (1, 3, 5):
        with pytest.raises(ReadingShapeError, match=f"a window has {rows} rows, the model wants 4"):
            send(serving, message(*[0.0] * rows))


def test_numbers_of_a_long_run_stay_right() -> None:
    serving, model = lane(each="rows")
    numbers = count()
    for cut in [1, 3, 4, 2, 7] * 40:
        send(serving, message(*[next(numbers) for _ in range(cut)]))

    assert [number for window in model.windows for number in window] == list(range(4 * len(model.windows)))
    assert len(serving._streams.find(TOPIC)._readings) <= 5
