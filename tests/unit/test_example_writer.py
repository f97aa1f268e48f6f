"""Which windows are kept, under which label, and that keeping them never holds up an answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from edged.base.errors import ConfigError, StateError
from edged.board.daemon import example_writer as module
from edged.board.daemon.example_writer import ExampleWriter
from edged.board.examples import Examples, Of, StoreKeys, Window
from edged.board.pipeline import Lane, Message
from edged.broker import Delivery
from edged.config.model import CollectTable, ModelConfig, RuleTable
from edged.formats.cose.keys import PrivateKey
from edged.formats.spec import ModelTable, Output
from support.lanes import TOPIC, FakeModel, lane
from support.serving import Serving
from support.waiting import wait_until

STATE = f"{TOPIC}/state"
EACH = {"each": "window"}


def window(value: float, second: float = 0.0) -> bytes:
    return np.tile(np.array([value, second], "<f4"), (4, 1)).tobytes()


def collecting(model: FakeModel | None = None, **table: Any) -> Lane:
    """Return a lane that keeps each window."""
    fields = {"label": "operator", "at_most_every": "1 us", **table}
    return lane(model, **EACH, collect=CollectTable(**fields))[0]


class Kept:
    """A store that takes what it is given."""

    layout = Examples.layout

    def __init__(self) -> None:
        self.windows: list[tuple[Of, Window]] = []
        self.error: StateError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def __call__(self) -> Examples:
        return cast("Examples", self)

    def close(self) -> None:
        self.closed = True

    def is_replaced(self) -> bool:
        return False


class FakeIntake:
    def __init__(self, store: Kept) -> None:
        self._store = store
        self.sizes = {"gearbox": 1}

    def renew_keys(self) -> None:
        pass

    def add(self, of: Of, windows: list[Window], _most: int) -> int:
        self._store.gate.wait(10)
        if self._store.error is not None:
            raise self._store.error
        self._store.windows += [(of, one) for one in windows]
        return len(windows)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(module, "Intake", FakeIntake)
    monkeypatch.setattr(module, "GROUP_SECONDS", 0.05)
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.05)
    return Kept()


class Running(Serving):
    """One lane, and what keeps its windows."""

    def __init__(self, kept: Kept, served: Lane, **options: Any) -> None:
        super().__init__(**options)
        self.example_writer = ExampleWriter(kept)
        self.path.on_answered = self.example_writer.take
        self.path.on_delivery = self.example_writer.hear
        self.serve({"c1": served})
        self.example_writer.set_lanes([served])

    def outcomes(self) -> Counter[str]:
        return Counter({outcome: count for (_, outcome), count in self.example_writer.counts.items()})


Run = Callable[..., Running]


@pytest.fixture
def run(kept: Kept) -> Iterator[Run]:
    running: list[Running] = []

    def start(served: Lane, **options: Any) -> Running:
        running.append(Running(kept, served, **options))
        return running[-1]

    yield start
    kept.gate.set()
    for one in running:
        one.example_writer.close()


def values(kept: Kept) -> list[float]:
    return [np.frombuffer(one.values, "<f4")[0] for _, one in kept.windows]


def labels(kept: Kept) -> list[int | None]:
    return [one.label for _, one in kept.windows]


# --- which ones ------------------------------------------------------------------------------


def test_windows_are_kept_as_the_model_was_fed(kept: Kept, run: Run) -> None:
    running = run(collecting())
    for value in (1, 2, 3):
        running.deliver(window(value), TOPIC)
    running.example_writer.close()
    assert values(kept) == [1, 2, 3]
    assert kept.closed
    assert running.outcomes() == {"kept": 3}
    assert running.example_writer.sizes == {"gearbox": 1}


def test_one_window_of_so_many_is_kept(kept: Kept, run: Run) -> None:
    running = run(collecting(every=3))
    for value in range(7):
        running.deliver(window(value), TOPIC)
    running.example_writer.close()
    assert values(kept) == [0, 3, 6]


def test_none_is_kept_sooner_than_wanted(kept: Kept, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    running = run(collecting(at_most_every="10 s"))
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now)
        for value in range(30):
            running.deliver(window(value), TOPIC)
            now += 1
    running.example_writer.close()
    assert values(kept) == [0, 10, 20]


def test_a_window_that_is_handed_out_again_is_not_kept_twice(kept: Kept, run: Run) -> None:
    running = run(collecting())
    running.deliver(window(1), TOPIC)
    running.deliver(window(2), TOPIC, dup=True)
    running.example_writer.close()
    assert values(kept) == [1]


def test_a_window_that_the_model_did_not_answer_is_not_kept(kept: Kept, run: Run) -> None:
    model = FakeModel()
    running = run(collecting(model))
    model.fails = True
    running.deliver(window(1), TOPIC)
    running.example_writer.close()
    assert values(kept) == []


def test_a_new_version_goes_on_with_what_was_heard_and_with_its_own_chain(kept: Kept, run: Run) -> None:
    served = collecting(label="sensor", topic=STATE)
    running = run(served)
    running.deliver(b"broken", STATE)
    served.swap(FakeModel(2, output=Output(kind="classifier", labels=("broken", "healthy"))), proven=True)  # type: ignore[arg-type]
    running.deliver(window(1), TOPIC)
    running.example_writer.close()
    assert labels(kept) == [0]


# --- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("of", "over"), [("mean", 2.5), ("max", 3.5), ("min", 0.5), ("last", 3.9)])
def test_a_rule_looks_at_one_column_of_the_window(kept: Kept, run: Run, of: str, over: float) -> None:
    rule = RuleTable(column="a2", over=over, then="broken", otherwise="healthy", of=of)  # type: ignore[arg-type]
    running = run(collecting(label="rule", rule=rule))
    for shift in (0.0, 0.2):
        rows = np.array([[9, 2], [9, 3], [9, 1], [9, 4]], "<f4") + np.float32(shift)
        running.deliver(rows.tobytes(), TOPIC)
    running.example_writer.close()
    assert labels(kept) == [int(value > over) for value in {"mean": (2.5, 2.7), "max": (4, 4.2), "min": (1, 1.2), "last": (4, 4.2)}[of]]  # fmt: skip


def test_a_rule_may_leave_windows_out(kept: Kept, run: Run) -> None:
    rule = RuleTable(column="a1", over=5.0, then="broken")
    running = run(collecting(label="rule", rule=rule))
    for value in (4, 6):
        running.deliver(window(value), TOPIC)
    running.example_writer.close()
    assert labels(kept) == [1]
    assert running.outcomes() == {"kept": 1, "no-label": 1}


@pytest.mark.parametrize(
    ("table", "said", "label"),
    [
        ({}, b" broken\n", 1),
        ({}, b"smoke", "unknown-label"),
        ({}, b"\xff\xfe", "no-label"),
        ({}, b"", "unknown-label"),
        ({"names": {"1": "broken"}}, b"1", 1),
        ({"field": "/state"}, b'{"state": "broken"}', 1),
        ({"field": "/state/0", "names": {"true": "broken"}}, b'{"state": [true]}', 1),
        ({"field": "/state", "names": {"2": "healthy"}}, b'{"state": 2}', 0),
        ({"field": "/state"}, b'{"other": "broken"}', "no-label"),
        ({"field": "/state"}, b"{", "no-label"),
        ({"field": "/state"}, b"[" * 60_000, "no-label"),
        ({}, bytes(65 * 1024), "no-label"),
    ],
)
def test_what_a_second_sensor_says(kept: Kept, run: Run, table: dict[str, Any], said: bytes, label: int | str) -> None:
    running = run(collecting(label="sensor", topic=STATE, **table))
    running.deliver(said, STATE)
    running.deliver(window(1), TOPIC)
    running.example_writer.close()
    assert labels(kept) == ([label] if isinstance(label, int) else [])
    assert running.outcomes() == {"kept" if isinstance(label, int) else label: 1}


def test_an_old_label_labels_nothing_and_neither_does_one_of_an_unknown_age(
    kept: Kept, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    running = run(collecting(label="sensor", topic=STATE, within="10 s"))
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now)
        running.deliver(window(1), TOPIC)
        running.deliver(b"broken", STATE, retain=True)
        running.deliver(window(2), TOPIC)
        running.deliver(b"broken", STATE)
        now += 9
        running.deliver(window(3), TOPIC)
        now += 2
        running.deliver(window(4), TOPIC)
    running.example_writer.close()
    assert values(kept) == [3]
    assert running.outcomes() == {"kept": 1, "no-label": 3}


def test_with_plus_a_label_is_of_the_windows_of_its_own_machine(kept: Kept, run: Run) -> None:
    topics = {name: f"factory/{name}/vibration" for name in ("press-07", "press-08", "press-09")}
    served = lane(
        **EACH,
        topic="factory/+/vibration",
        collect=CollectTable(label="sensor", topic="site/+/state", at_most_every="1 us"),
    )[0]
    running = run(served)
    running.deliver(b"broken", "site/press-07/state")
    running.deliver(b"healthy", "site/press-08/state")
    for topic in topics.values():
        running.deliver(window(1), topic)
    running.example_writer.close()
    assert labels(kept) == [1, 0]
    assert running.outcomes() == {"kept": 2, "no-label": 1}


def test_labels_come_on_their_own_subscription_unless_a_model_reads_the_topic_anyway() -> None:
    example_writer = ExampleWriter(Kept())
    example_writer.set_lanes([collecting(label="sensor", topic=STATE)])
    assert example_writer.topics([TOPIC]) == {STATE}
    assert example_writer.topics([TOPIC, STATE]) == set()
    assert example_writer.topics(["factory/press-07/+/state"]) == set(), "it would come twice"


# --- the store is slow, full, or gone --------------------------------------------------------


def test_a_store_that_takes_long_holds_up_no_answer(kept: Kept, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And holds no more than so much in RAM."""
    monkeypatch.setattr(module, "_MOST_WINDOWS", 100)
    kept.gate.clear()
    running = run(collecting())
    began = time.monotonic()
    for value in range(500):
        running.deliver(window(value), TOPIC)
    assert time.monotonic() - began < 5
    assert len(running.results_of("c1")) == 500
    assert running.outcomes() == {"dropped": 400}
    kept.gate.set()
    running.example_writer.close()
    assert values(kept) == list(range(100))
    assert running.outcomes() == {"dropped": 400, "kept": 100}


def test_what_waits_is_bounded_in_bytes_too(kept: Kept, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 5 * 32)
    kept.gate.clear()
    running = run(collecting())
    for value in range(20):
        running.deliver(window(value), TOPIC)
    assert running.outcomes() == {"dropped": 15}


def test_a_store_that_fails_is_tried_again(kept: Kept, run: Run) -> None:
    kept.error = StateError("disk full")
    running = run(collecting())
    running.deliver(window(1), TOPIC)
    wait_until(lambda: running.example_writer.error)
    assert running.example_writer.error == "disk full"
    running.deliver(window(2), TOPIC)
    kept.error = None
    wait_until(lambda: len(kept.windows) == 2)
    wait_until(lambda: not running.example_writer.error)
    assert values(kept) == [1, 2]


def test_at_the_end_a_store_that_fails_is_not_waited_for(kept: Kept, run: Run) -> None:
    kept.error = StateError("disk full")
    running = run(collecting())
    running.deliver(window(1), TOPIC)
    began = time.monotonic()
    running.example_writer.close()
    assert time.monotonic() - began < 4
    assert running.outcomes() == {"dropped": 1}


def test_what_nobody_foresaw_costs_a_window_and_no_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the main loop and in the thread."""
    served = collecting()
    running = run(served)
    assert served.example_selector is not None
    with monkeypatch.context() as patched:
        patched.setattr(served.example_selector, "take", _trip)
        running.deliver(window(1), TOPIC)
    monkeypatch.setattr(FakeIntake, "add", _trip)
    running.deliver(window(2), TOPIC)
    running.example_writer.close()
    assert running.outcomes() == {"refused": 2}
    assert len(running.results_of("c1")) > 0


def _trip(*_: object) -> None:
    raise ZeroDivisionError


def test_without_collecting_there_is_no_thread_and_no_store(run: Run) -> None:
    running = run(lane(**EACH)[0])
    running.deliver(window(1), TOPIC)
    assert running.example_writer._thread is None
    running.example_writer.hear(Delivery(STATE, b"broken", 0, retain=False, dup=False, ack=lambda: None))


def test_the_real_store_takes_what_the_thread_brings(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    sign, ecdh = PrivateKey.generate(), PrivateKey.generate()
    keys = StoreKeys(sign, ecdh.public, opener=lambda _: ecdh, signers=[])
    served = collecting()
    example_writer = ExampleWriter(lambda: Examples(state, keys))
    for value in (1, 2):
        reading = served.open(Message(TOPIC, window(value)))
        for job in served.take(reading, clock_synchronised=True):
            example_writer.take(served, job)
    example_writer.close()
    with closing(Examples(state, None)) as examples:
        assert [one.windows for one in examples.classes()] == [2]
    assert example_writer.sizes == {"gearbox": examples_size(state)}


def examples_size(state: Path) -> int:
    with closing(Examples(state, None)) as examples:
        return sum(one.size for one in examples.classes())


# --- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"every": 0}, "every: at least 1"),
        ({"size": "lots"}, "size: 'lots' is not a size"),
        ({"at_most_every": "never"}, "at_most_every"),
        ({"label": "rule"}, "rule: goes with label = 'rule'"),
        ({"label": "sensor"}, "topic: goes with label = 'sensor'"),
        ({"topic": "a"}, "topic: goes with label = 'sensor'"),
        ({"field": "/a"}, "field and names are of the messages"),
        ({"label": "sensor", "topic": "a/#"}, "'a/#' is no topic filter"),
        ({"label": "sensor", "topic": "a/+"}, "as many [+] as the model's own topics"),
        ({"label": "sensor", "topic": "a", "field": "state"}, "'state' is no JSON pointer"),
        ({"label": "input"}, "'input' goes with output.kind 'anomaly'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        collecting(**table)


def test_only_models_that_the_window_alone_feeds_are_taught() -> None:
    model = FakeModel(model=ModelTable(feedback={"in": "out"}, reset="gap"))
    with pytest.raises(ConfigError, match="one input, which the window fills"):
        collecting(model)
    with pytest.raises(
        ConfigError, match=r"'operator' goes with output\.kind 'classifier', the model's is 'regressor'"
    ):
        collecting(FakeModel(output=Output(kind="regressor")))


def test_a_rule_is_over_a_finite_number() -> None:
    with pytest.raises(ConfigError, match="finite"):
        RuleTable(column="a1", over=float("nan"), then="broken")


def test_labels_of_joined_topics_may_come_by_what_plus_stands_for() -> None:
    ModelConfig(
        name="comfort",
        channel="c1",
        topics={"a": "home/+/a", "b": "home/+/b"},
        collect=CollectTable(label="sensor", topic="home/+/state"),
    )
