"""A recorded self-test: by every engine, with a tolerance that fits the scores, and labels that wrong weights miss."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import ConfigError, SelfTestError
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey
from edged.formats.package.pack import pack
from edged.formats.package.verify import Package
from edged.formats.spec import Chain, Decide, Input, Needed, Output, Smooth, Window
from edged.model import live
from edged.model.author import Author
from edged.model.dry_run import Recorded, check_weights, open_model, record_self_test, try_samples
from edged.model.known_answers import Judge, clear_ones, make_self_test, spread
from edged.model.live import Model
from edged.model.runtime import Engine, choose, installed
from edged.model.samples import Samples
from support.engines import ENGINES
from support.packages import pin
from support.tiny import dense

Floats = npt.NDArray[np.float32]
FAN = """name = "fan"
version = 1
[input]
channels = ["a", "b", "c", "d"]
[output]
kind = "anomaly"
labels = ["normal", "fault"]
[decide]
enter = 0.0001
"""
NOISE = np.random.default_rng(5).normal(size=(4, 4)).astype(np.float32)
RIGHT = np.eye(4, dtype=np.float32) + NOISE * 1e-6
WRONG = np.eye(4, dtype=np.float32) + NOISE * 1e-3
HEALTHY = np.random.default_rng(6).uniform(0.5, 1.5, (20, 4)).astype(np.float32)


class Fan:
    """A fan's autoencoder: it gives readings of a healthy fan back to 1e-6, with ``RIGHT`` weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "fan.toml").write_text(FAN)
        self.weights = folder / "fan.tflite"
        self.weights.write_bytes(dense(RIGHT))

    @property
    def author(self) -> Author:
        return Author.read(self.folder / "fan.toml")

    def record(self, rows: Floats) -> Recorded:
        model = open_model(self.author, self.weights, choose("auto"))
        tried = list(try_samples(model, self.author, Samples(rows)))
        recorded = record_self_test(model, self.author, tried, self.folder / "st.npz")
        model.close()
        (self.folder / "fan.toml").write_text(FAN + '[self_test]\nfile = "st.npz"\n')
        return recorded


@pytest.fixture
def fan(tmp_path: Path) -> Fan:
    return Fan(tmp_path)


@pytest.mark.parametrize("faulty", [0, 1, 10], ids=["healthy alone", "one fault", "half of them"])
def test_wrong_weights_that_would_always_cry_wolf_fail(fan: Fan, faulty: int) -> None:
    """Errors of healthy readings are 1e-6; with wrong weights 1e-3, which is far beyond the threshold."""
    rows = HEALTHY.copy()
    rows[:faulty] = 1e6  # which float32 does not give back to the last digit
    fan.record(rows)
    check_weights(fan.author, fan.folder, fan.weights)

    fan.weights.write_bytes(dense(WRONG))

    with pytest.raises(SelfTestError):
        check_weights(fan.author, fan.folder, fan.weights)


def test_a_detectors_windows_near_its_threshold_are_left_out(fan: Fan) -> None:
    judge = Judge(fan.author)
    near = np.array([0.0001], np.float32)

    assert not judge.is_clear(near, np.array([1e-6], np.float32))
    assert judge.is_clear(near * 2, np.array([1e-6], np.float32))


# --- several engines -------------------------------------------------------------------------


class Shifted:
    """An engine whose scores lie a little beside another's."""

    def __init__(self, model: Model, shift: Floats | float, *, only: slice = slice(None)) -> None:
        self._model, self._shift, self._only, self._asked = model, shift, only, -1

    def scores(self, window: Floats) -> Floats:
        self._asked += 1
        return self._model.scores(window) + (self._shift if self._asked in range(64)[self._only] else 0.0)


CLASSES = Chain(
    input=Input(channels=("a", "b")), output=Output(kind="classifier", labels=("x", "y")), window=Window(size=1)
)


@pytest.fixture
def classifier(tmp_path: Path) -> Iterator[Model]:
    (tmp_path / "m.tflite").write_bytes(dense(np.eye(2, dtype=np.float32)))
    model = open_model(CLASSES, tmp_path / "m.tflite", choose("auto"))
    yield model
    model.close()


def recorded(
    model: Model, rows: Sequence[Sequence[float]], other: Shifted, path: Path
) -> tuple[Recorded, dict[str, Any]]:
    tried = list(try_samples(model, CLASSES, Samples(np.array(rows, np.float32))))
    found = record_self_test(model, CLASSES, tried, path, engines={"litert 2.3.0": model, "other 1.0": other})
    with np.load(path) as archive:
        return found, {name: archive[name] for name in archive.files}


def test_the_tolerance_is_twice_what_lies_between_the_engines(classifier: Model, tmp_path: Path) -> None:
    rows = [[0.0, 1.0], [1.0, 0.0]] * 4

    found, archive = recorded(
        classifier, rows, Shifted(classifier, np.array([0.03, 0.0], np.float32)), tmp_path / "s.npz"
    )

    assert found.apart == pytest.approx(0.03)
    assert found.tolerance == float(archive["tolerance"]) == pytest.approx(0.06)
    assert archive["engines"].tolist() == ["litert 2.3.0", "other 1.0"]


def test_windows_on_which_the_engines_agree_come_first(classifier: Model, tmp_path: Path) -> None:
    rows = [[0.0, 1.0], [1.0, 0.0]] * 8

    found, archive = recorded(classifier, rows, Shifted(classifier, 0.3, only=slice(8)), tmp_path / "s.npz")

    assert (found.written, found.apart, found.tolerance) == (8, 0.0, 0.02)
    assert float(archive["tolerance"]) == 0.02


def test_windows_on_which_the_engines_come_to_other_labels_are_left_out(classifier: Model, tmp_path: Path) -> None:
    rows = [[0.0, 1.0], [0.4, 0.6]]

    found, archive = recorded(
        classifier, rows, Shifted(classifier, np.array([0.3, 0.0], np.float32)), tmp_path / "s.npz"
    )

    assert (found.written, found.unclear, found.doubtful) == (1, 1, False)
    assert archive["windows"].tolist() == [[[0.0, 1.0]]]


def test_windows_whose_labels_are_level_are_recorded_where_there_are_no_others(
    classifier: Model, tmp_path: Path
) -> None:
    """A model that gives its input back, asked about ones, has no clearer window; that is said."""
    found, archive = recorded(classifier, [[1.0, 1.0]] * 2, Shifted(classifier, 0.0), tmp_path / "s.npz")

    assert (found.written, found.unclear, found.doubtful) == (2, 2, True)
    assert archive["scores"].tolist() == [[1.0, 1.0]] * 2


def test_windows_on_which_no_two_engines_come_to_one_label_are_not_recorded(classifier: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of 1 windows has one label in all of litert 2.3.0, other 1.0"):
        recorded(classifier, [[0.4, 0.6]], Shifted(classifier, np.array([0.3, 0.0], np.float32)), tmp_path / "s.npz")


def test_what_was_recorded_is_used_unless_the_manifest_says_otherwise(fan: Fan) -> None:
    fan.record(HEALTHY)
    with np.load(fan.folder / "st.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(fan.folder / "st.npz", **{**arrays, "tolerance": 0.25, "engines": np.array(["elsewhere 1.0"])})

    test, engines = fan.author.read_recording(fan.folder)
    assert (test.tolerance, engines) == (0.25, ("elsewhere 1.0",))
    (fan.folder / "fan.toml").write_text(FAN + '[self_test]\nfile = "st.npz"\ntolerance = 0.5\n')
    assert fan.author.read_self_test(fan.folder).tolerance == 0.5
    np.savez(fan.folder / "st.npz", windows=arrays["windows"], scores=arrays["scores"])
    (fan.folder / "fan.toml").write_text(FAN + '[self_test]\nfile = "st.npz"\n')
    assert fan.author.read_self_test(fan.folder).tolerance == 0.02


def test_every_engine_here_and_of_the_recording_is_named(fan: Fan) -> None:
    fan.record(HEALTHY)

    checked = check_weights(fan.author, fan.folder, fan.weights)

    assert sorted(checked.tested) == sorted(engine.title for engine in installed())
    assert {title.split()[0] for title in checked.tested} == set(ENGINES)
    assert not checked.failures


def test_values_of_a_regressor_are_recorded_from_the_lowest_to_the_highest(tmp_path: Path) -> None:
    """The first eight of a slow series lie so close together that no other engine would be within their spread."""
    chain = Chain(input=Input(channels=("x",)), output=Output(kind="regressor"), window=Window(size=1))
    (tmp_path / "m.tflite").write_bytes(dense(np.ones((1, 1), np.float32)))
    model = open_model(chain, tmp_path / "m.tflite", choose("auto"))
    tried = list(try_samples(model, chain, Samples(np.linspace(0, 1, 1000, dtype=np.float32)[:, None])))

    record_self_test(model, chain, tried, tmp_path / "st.npz")

    model.close()
    with np.load(tmp_path / "st.npz") as archive:
        assert archive["scores"].min() == 0.0
        assert archive["scores"].max() == 1.0


# --- labels of single windows ----------------------------------------------------------------

three = st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3).map(lambda scores: np.array(scores, np.float32))
DECISIONS = [
    None,
    Decide(watch="b", enter=0.7, leave=0.2, needed=Needed(n=3, of=4), smooth=Smooth(method="mean", over=5)),
    Decide(thresholds={"a": 0.6, "c": 0.3}, otherwise="none"),
    Decide(thresholds={"a": 0.6}, otherwise="c"),
]


@given(three, st.floats(0, 0.2), st.sampled_from(DECISIONS), st.data())
def test_no_change_within_the_tolerance_turns_a_clear_label_over(
    scores: Floats, within: float, decide: Decide | None, data: st.DataObject
) -> None:
    judge = Judge(
        Chain(input=Input(channels=("x",)), output=Output(kind="classifier", labels=("a", "b", "c")), decide=decide)
    )
    bound = np.full(3, within, np.float32)
    changes = data.draw(st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=5))

    if judge.is_clear(scores, bound):
        for change in changes:
            assert judge.agree(scores + bound * np.array(change, np.float32), scores)


@given(st.lists(three, min_size=1, max_size=6), st.floats(0, 0.2))
def test_what_is_left_of_a_classifier_is_clear(scores: list[Floats], tolerance: float) -> None:
    chain = Chain(input=Input(channels=("x",)), output=Output(kind="classifier", labels=("a", "b", "c")))
    within = tolerance * spread(np.stack(scores), "classifier")

    for at in clear_ones(scores, tolerance, chain):
        first, second = np.sort(scores[at])[:-3:-1]
        assert first - second >= 2 * within[0] * 0.999 - 1e-6


# --- on a board ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tested", "says"), [(("elsewhere 1.0",), True), ((), False), (("litert 1.0", "tflite 1.0"), False)]
)
def test_a_board_says_that_its_engine_is_none_of_those_that_were_recorded(
    engine: Engine, caplog: pytest.LogCaptureFixture, tested: tuple[str, ...], says: bool
) -> None:
    publisher, board = PrivateKey.generate(), PrivateKey.generate()
    test = make_self_test(CLASSES, 0.02, [np.ones((1, 2), np.float32)], [np.array([1.0, 2.0], np.float32)])
    weights = dense(np.array([[1, 0], [1, 1]], np.float32))
    fields = {**msgspec.structs.asdict(CLASSES), "name": "gearbox", "version": 1, "tested": tested}
    contents = [("model", weights), ("self_test", test.encode())]
    chunks = pack(fields, contents, signer=publisher, to=[board.public], aead=Aead.A256GCM, created=1)
    package = Package.parse(memoryview(b"".join(chunks))).verify(pin(publisher.public))

    with caplog.at_level(logging.WARNING, logger=live.__name__):
        live.load(package, board, engine).close()

    assert any("its publisher tried it on elsewhere 1.0, and not on" in one for one in caplog.messages) is says
