"""One message and several models, joined topics, gates and feeds, slow models: within one process, with models at hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import numpy as np
import pytest

from edged.base.errors import ConfigError, ReadingGapError, ReadingOrderError, ReadingValueError
from edged.board.pipeline import Decoders, Lane, check_chain
from edged.config.model import Gate, ModelConfig, TimeField
from edged.formats.channel.reading import ReadingOpener, ReadingSealer, ReplayGuard
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import ContentKey
from edged.formats.spec import Decide, Features, Gap, Image, Input, Join, Output, Window
from edged.model.author import Author
from edged.model.live import LiveModel, Model
from edged.model.reading import Decoder
from edged.model.runtime import Interpreter, choose
from support.lanes import TOPIC, FakeModel, Floats, lane, send
from support.serving import Serving
from support.waiting import wait_until

STATE = Path(__file__).resolve().parents[1] / "models"


def rows(*values: tuple[float, float]) -> bytes:
    return np.array(values, "<f4").tobytes()


# --- one message, several models -------------------------------------------------------------


class Running(Serving):
    """A daemon's traffic with several lanes, by channel."""

    def __init__(self, **lanes: Lane) -> None:
        super().__init__(slow=0.5)
        self.serve(lanes)

    def deliver(self, payload: bytes, topic: str = TOPIC, **flags: Any) -> int:
        return super().deliver(payload, topic, **flags)

    def results(self, channel: str) -> int:
        return len(self.results_of(channel))

    def delivered(self, channel: str) -> None:
        """The broker has every result of a channel."""
        for token, _ in self.results_of(channel):
            self.taken(token)

    def conclude(self, channel: str, count: int) -> None:
        """Wait until so many results of a slow model are out."""

        def concluded() -> bool:
            self.path.threads.turn()
            return self.results(channel) >= count

        wait_until(concluded)
        assert self.results(channel) == count


@pytest.mark.parametrize("sealed", [False, True])
def test_a_message_is_opened_and_decoded_once_for_all_models(monkeypatch: pytest.MonkeyPatch, *, sealed: bool) -> None:
    calls = {"open": 0, "decode": 0}
    for owner, name, key in ((ReadingOpener, "open", "open"), (Decoder, "__call__", "decode")):
        original = getattr(owner, name)

        def counted(
            self: object, *arguments: object, original: Callable[..., object] = original, key: str = key
        ) -> object:
            calls[key] += 1
            return original(self, *arguments)

        monkeypatch.setattr(owner, name, counted)
    sensor = ContentKey.generate(Aead.A256GCM) if sealed else None
    guard, decoders = ReplayGuard({}), Decoders()
    lanes = {}
    for number in range(3):
        model = FakeModel(number + 1, input=Input(channels=("a1", "a2"), range=(-100.0, 100.0 + number)))
        config = ModelConfig(name="gearbox", channel=f"c{number}", topic=TOPIC, format="f32le", each="row")
        lanes[f"c{number}"] = Lane(
            config, cast("LiveModel", model), () if sensor is None else (sensor,), guard, 1000, decoders
        )
    running = Running(**lanes)

    for number in range(4):
        payload = rows((number, 0))
        running.deliver(ReadingSealer(sensor, TOPIC).seal(payload) if sensor else payload, TOPIC)

    assert calls == {"open": 4 if sealed else 0, "decode": 4}
    assert [running.results(channel) for channel in lanes] == [1, 1, 1]
    assert [cast("FakeModel", one.model).windows for one in lanes.values()] == [[[0, 1, 2, 3]]] * 3
    assert not running.health.refused


def test_models_that_read_a_topic_otherwise_decode_it_themselves() -> None:
    plain, first = lane(FakeModel(1, window=Window(size=1)), format="json", each="row")
    config = ModelConfig(
        name="m", channel="c2", topic=TOPIC, format="json", each="row", fields={"a1": "/b", "a2": "/c"}
    )
    second = FakeModel(2, window=Window(size=1))
    other = Lane(config, cast("LiveModel", second), (), ReplayGuard({}), 1000)
    running = Running(c1=plain, c2=other)

    running.deliver(b'{"a1": 1, "a2": 2, "b": 3, "c": 4}')

    assert (first.windows, second.windows) == ([[1.0]], [[3.0]])


def test_a_gate_opens_and_closes_with_the_other_models_decision_on_that_topic() -> None:
    """Rows are collected while it is closed; only the model is not asked."""
    above, _ = lane(FakeModel(1, window=Window(size=1)), topic="m/+", channel="c1")
    config = ModelConfig(
        name="m", channel="c2", topic="m/+", format="f32le", each="row", when=Gate(channel="c1", label="broken")
    )
    gated = FakeModel(2, window=Window(size=2, hop=1))
    running = Running(c1=above, c2=Lane(config, cast("LiveModel", gated), (), ReplayGuard({}), 1000))

    for value, topic in (
        (0.0, "m/a"),
        (0.0, "m/a"),
        (3.0, "m/a"),
        (0.0, "m/b"),
        (0.0, "m/b"),
        (3.0, "m/a"),
        (0.0, "m/a"),
    ):
        running.deliver(rows((value, value)), topic)

    assert gated.windows == [[0.0, 3.0], [3.0, 3.0]]


def test_one_models_scores_are_anothers_rows_over_several_levels() -> None:
    first, _ = lane(FakeModel(1, window=Window(size=1)))
    levels = {"c1": first}
    for number, above in ((2, "c1"), (3, "c2")):
        model = FakeModel(number, input=Input(channels=("broken", "healthy")), window=Window(size=1))
        config = ModelConfig(name="m", channel=f"c{number}", from_=above)
        levels[f"c{number}"] = Lane(config, cast("LiveModel", model), (), ReplayGuard({}), 1000)
    running = Running(**levels)

    running.deliver(rows((0.25, 0.25)))

    second, third = (cast("FakeModel", levels[channel].model).windows for channel in ("c2", "c3"))
    assert (second, third) == ([[0.25]], [[0.5]])
    assert [running.results(channel) for channel in levels] == [1, 1, 1]


def test_a_chain_that_does_not_fit_is_refused() -> None:
    source = FakeModel().manifest
    follower = FakeModel(input=Input(channels=("worn",))).manifest
    fed = ModelConfig(name="m", channel="c2", from_="c1")
    gated = ModelConfig(name="m", channel="c2", topic="t", when=Gate(channel="c1", label=("broken", "worn")))

    with pytest.raises(ConfigError, match=r"from: input\.channels: 'worn' is no label of the model"):
        check_chain(fed, follower, {"c1": source})
    with pytest.raises(ConfigError, match=r"when\.label: 'worn' is no label of gearbox"):
        check_chain(gated, source, {"c1": source})
    with pytest.raises(ConfigError, match="from: the model on channel 'c1' cannot be used"):
        check_chain(fed, source, {})


@pytest.mark.parametrize(
    ("kind", "outputs", "channels", "said"),
    [
        ("regressor", 3, 3, None),
        ("regressor", 2, 3, "takes 3 channels, and gearbox gives 2 scores"),
        ("regressor", 4, 3, "takes 3 channels, and gearbox gives 4 scores"),
        ("regressor", None, 1, "gives an unknown number of scores"),
        ("anomaly", None, 1, None),
        ("anomaly", None, 2, "takes 2 channels, and gearbox gives 1 scores"),
    ],
)
def test_a_chain_of_other_sizes_is_refused_before_it_runs(
    kind: Literal["regressor", "anomaly"], outputs: int | None, channels: int, said: str | None
) -> None:
    """Each window of the follower would end in an IndexError, or its rows would lack what the source gives."""
    labels, decide = (("good", "bad"), Decide(enter=0.5)) if kind == "anomaly" else ((), None)
    source = FakeModel(output=Output(kind=kind, labels=labels), decide=decide).manifest
    source = msgspec.structs.replace(source, outputs=outputs)
    follower = FakeModel(input=Input(channels=tuple(f"c{number}" for number in range(channels)))).manifest

    with nullcontext() if said is None else pytest.raises(ConfigError, match=f"from: .*{said}"):
        check_chain(ModelConfig(name="m", channel="c2", from_="c1"), follower, {"c1": source})


def test_a_model_that_takes_pictures_takes_no_scores() -> None:
    follower = FakeModel(input=Input(channels=("grey",), image=Image(width=1, height=1)), window=Window()).manifest

    with pytest.raises(ConfigError, match="takes pictures, and scores are rows of numbers"):
        check_chain(ModelConfig(name="m", channel="c2", from_="c1"), follower, {"c1": FakeModel().manifest})


# --- slow models -----------------------------------------------------------------------------


class Slow(FakeModel):
    """Answers when it is let."""

    seconds = 1.0

    def __init__(self, version: int = 1, **fields: Any) -> None:
        super().__init__(version, **fields)
        self.may = threading.Semaphore(0)

    def scores(self, window: Floats, _memory: object = None) -> Floats:
        assert self.may.acquire(timeout=10)
        return super().scores(window)


def test_a_slow_model_holds_up_nobody_and_its_windows_wait_for_their_results() -> None:
    slow, fast = Slow(1, window=Window(size=1)), FakeModel(2, window=Window(size=1))
    config = ModelConfig(name="m", channel="c2", topic=TOPIC, format="f32le", each="window")
    first, _ = lane(slow, each="window")
    running = Running(c1=first, c2=Lane(config, cast("LiveModel", fast), (), ReplayGuard({}), 1000))

    number = running.deliver(rows((1, 1)))

    assert (running.results("c1"), running.results("c2"), running.acknowledged) == (0, 1, [])
    running.delivered("c2")
    assert running.acknowledged == []
    slow.may.release()
    running.conclude("c1", 1)
    assert running.acknowledged == []
    running.delivered("c1")
    assert running.acknowledged == [number]


def test_a_slow_model_that_does_not_keep_up_gives_up_its_oldest_window_of_qos_0_and_counts_it() -> None:
    slow = Slow(1, window=Window(size=1))
    serving, _ = lane(slow, each="window")
    running = Running(c1=serving)
    running.deliver(rows((0, 0)), qos=0)
    wait_until(
        lambda: slow.may._value or not running.path.threads._threads["c1"]._waiting
    )  # the thread is at the first

    for number in range(1, 11):
        running.deliver(rows((number, 0)), qos=0)

    assert running.health.books.failed == {"OverloadError": 2}
    slow.may.release(100)
    running.conclude("c1", 9)
    assert [window[0] for window in slow.windows] == [0, 3, 4, 5, 6, 7, 8, 9, 10]
    running.check_books()


def test_a_slow_model_that_does_not_keep_up_holds_back_readings_of_qos_1_and_answers_each() -> None:
    slow = Slow(1, window=Window(size=1))
    serving, _ = lane(slow, each="window")
    running = Running(c1=serving)
    numbers = [running.deliver(rows((number, 0))) for number in range(50)]
    assert (running.acknowledged, running.path.waiting > 30) == ([], True)
    running.check_books()
    slow.may.release(100)

    def all_answered() -> bool:
        running.path.turn(time.monotonic())
        return running.results("c1") == len(numbers)

    wait_until(all_answered)
    running.delivered("c1")

    assert [window[0] for window in slow.windows] == list(range(50))
    assert running.acknowledged == numbers
    assert running.health.refused == {}
    running.check_books()


def test_windows_that_wait_go_on_with_the_next_version() -> None:
    slow = Slow(1, window=Window(size=1))
    serving, _ = lane(slow, each="window")
    running = Running(c1=serving)
    for number in range(4):
        running.deliver(rows((number, 0)))
    slow.may.release()

    running.path.threads.rest()
    following = FakeModel(2, window=Window(size=1))
    serving.swap(cast("LiveModel", following))
    running.path.set_lanes({"c1": serving})

    assert running.results("c1") == 4
    assert slow.windows + following.windows == [[0], [1], [2], [3]]


# --- joined topics, time ---------------------------------------------------------------------


def joined(**fields: Any) -> tuple[Lane, FakeModel]:
    model = FakeModel(input=Input(channels=("a1", "a2"), **fields), window=Window(size=2))
    topics = {"a1": "home/+/left", "a2": "home/+/right"}
    return lane(model, topic=None, topics=topics, format="text")


def test_what_plus_stands_for_tells_which_values_belong_together() -> None:
    serving, model = joined()
    for place, value in (("left", b"1"), ("right", b"10"), ("left", b"2"), ("right", b"20")):
        for room in ("a", "b"):
            send(serving, value, f"home/{room}/{place}")

    assert model.windows == [[1, 2], [1, 2]]


def test_a_retained_value_of_a_joined_topic_is_used_and_makes_no_row() -> None:
    """The setpoint of a machine is published once, and retained: it is the value until a newer one comes."""
    serving, model = joined()
    running = Running(c1=serving)
    running.deliver(b"10", "home/a/right", retain=True)
    for value in (b"1", b"2"):
        running.deliver(value, "home/a/left", retain=True)
    assert model.windows == []

    running.deliver(b"3", "home/a/left")
    running.deliver(b"20", "home/a/right")
    running.deliver(b"4", "home/a/left")

    assert model.windows == [[3, 4]]
    assert running.health.refused == {}
    running.check_books()


def test_a_retained_value_whose_age_matters_is_not_used() -> None:
    serving, model = joined(join=Join(when="any", within="5 s"))
    running = Running(c1=serving)
    running.deliver(b"10", "home/a/right", retain=True)
    for value in (b"1", b"2"):
        running.deliver(value, "home/a/left")

    assert model.windows == []


def test_joined_rows_wait_for_no_topic_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("edged.board.pipeline.lane.time.monotonic", lambda: now[0])
    serving, model = joined(join=Join(when="any", within="5 s"))
    send(serving, b"1", "home/a/left")
    now[0] = 6.0
    send(serving, b"10", "home/a/right")
    send(serving, b"2", "home/a/left")
    send(serving, b"3", "home/a/left")

    assert model.windows == [[2, 3]]


def test_rows_bring_their_own_time() -> None:
    source = Input(channels=("a1", "a2"), rate="10 Hz", resample="linear", gap=Gap(over="1 s", then="refuse"))
    serving, model = lane(FakeModel(input=source), format="json", time=TimeField(at="/t", unit="ms"))
    for milliseconds, value in ((0, 0), (150, 15), (310, 31)):
        send(serving, b'{"t": %d, "a1": %d, "a2": 0}' % (milliseconds, value))
    assert model.windows == [pytest.approx([0, 10, 20, 30], abs=1e-4)]

    with pytest.raises(ReadingOrderError):
        send(serving, b'{"t": 300, "a1": 0, "a2": 0}')
    send(serving, b'{"t": 410, "a1": 41, "a2": 0}')
    with pytest.raises(ReadingGapError):
        send(serving, b'{"t": 5000, "a1": 0, "a2": 0}')


def test_times_are_judged_where_a_site_brings_them_though_the_manifest_asks_nothing() -> None:
    serving, _ = lane(format="json", time=TimeField(at="/t"))
    send(serving, b'{"t": 2, "a1": 1, "a2": 0}')

    with pytest.raises(ReadingOrderError):
        send(serving, b'{"t": 1, "a1": 1, "a2": 0}')


def test_a_window_by_time_holds_what_came_in_it() -> None:
    model = FakeModel(input=Input(channels=("a1", "a2")), window=Window(size="1 s"), features=Features(use=("mean",)))
    serving, _ = lane(model, format="json", time=TimeField(at="/t"))
    for tenths in (0, 3, 9, 11, 25):
        send(serving, b'{"t": %f, "a1": %d, "a2": 0}' % (tenths / 10, tenths))

    assert model.windows == [[0, 3, 9], [11]]


# --- state -----------------------------------------------------------------------------------


def real(name: str, table: str, **site: Any) -> Lane:
    """Return a lane with one of the small models that keep state."""
    text = f'name = "m"\nversion = 1\n[input]\nchannels = ["x"]\ngap = {{ over = "1 s" }}\n[output]\nkind = "regressor"\n{table}'
    path = Path(site.pop("folder")) / "m.toml"
    path.write_text(text)
    author = Author.read(path)
    model = Model(author, Interpreter(choose("auto"), str(STATE / f"{name}.tflite")))
    fake = FakeModel(input=author.input, window=author.window, output=author.output, model=author.model)
    cast("Any", model).manifest, cast("Any", model).identity = fake.manifest, fake.identity
    config = ModelConfig(name="m", channel="c1", **{"topic": "s/+", "format": "text", **site})
    return Lane(config, cast("LiveModel", model), (), ReplayGuard({}), 1000)


FEEDBACK = '[model]\noutput = "total"\nfeedback = { state = "total" }\nreset = "gap"'


def values(serving: Lane, *messages: bytes, topic: str = "s/a") -> list[float | None]:
    return [answered.answer.value for one in messages for answered in send(serving, one, topic)]


def test_state_in_tensors_is_each_streams_own(tmp_path: Path) -> None:
    serving = real("feedback", FEEDBACK, folder=tmp_path)

    assert values(serving, b"1", b"2") == [1, 3]
    assert values(serving, b"10", topic="s/b") == [10]
    assert values(serving, b"4") == [7]


def test_state_begins_anew_after_a_gap_and_after_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("edged.board.pipeline.lane.time.monotonic", lambda: now[0])
    serving = real("feedback", FEEDBACK, folder=tmp_path)
    assert values(serving, b"1", b"2") == [1, 3]
    now[0] = 2.0
    assert values(serving, b"5", b"1") == [5, 6]
    with pytest.raises(ReadingValueError):
        values(serving, b"nan")
    assert values(serving, b"7") == [7]


@pytest.mark.parametrize(
    ("reset", "expected"), [("window", [1, 1, 1, 1, 1]), ("message", [1, 2, 1, 2, 3]), ("gap", [1, 2, 3, 3, 3])]
)
def test_state_inside_the_model_begins_anew_when_the_manifest_says(
    tmp_path: Path, reset: str, expected: list[float]
) -> None:
    """It sums its last three inputs."""
    serving = real("moving_sum", f'[model]\nreset = "{reset}"', folder=tmp_path, topic="s/a", each="rows")

    assert values(serving, b"1 1", b"1 1 1") == expected


def test_resource_variables_are_cleared_by_loading_the_model_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("edged.board.pipeline.lane.time.monotonic", lambda: now[0])
    serving = real("counter", '[model]\nreset = "gap"', folder=tmp_path, topic="s/a")
    assert values(serving, b"1", b"1", b"1") == [1, 2, 3]
    now[0] = 5.0
    assert values(serving, b"1", b"1") == [1, 2]


def test_state_inside_the_model_is_for_one_stream(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keeps its state inside the runtime, for one stream"):
        real("moving_sum", '[model]\nreset = "gap"', folder=tmp_path)
