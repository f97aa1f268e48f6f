"""The chain around real models: known answers on both runtimes, and every misfit of manifest and model by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from edged.base.errors import EdgedError, ModelError, ReadingShapeError, ReadingValueError
from edged.formats.spec import Chain, Feature, Features, Input, Normalise, Output, Window
from edged.model.author import Author
from edged.model.dry_run import open_model, record_self_test, try_samples
from edged.model.known_answers import to_floats
from edged.model.runtime import Engine
from edged.model.samples import Samples, read_samples
from edged.model.signal.chain import CompiledChain
from edged.model.signal.tensor import TensorInfo
from support.site import GEARBOX

LABELS = ("healthy", "broken")
NOTHING = np.zeros(0)  # what went in matters to anomaly detectors alone
FEATURES = Features(use=("sum_abs", Feature(name="std", ddof=1), "max", Feature(name="kurtosis", bias=False)))


@pytest.fixture
def author(tmp_path: Path) -> Author:
    path = tmp_path / "manifest.toml"
    path.write_text(GEARBOX.format(version=1))
    return Author.read(path)


def tensor(*shape: int) -> TensorInfo:
    return TensorInfo("t", shape, np.dtype(np.float32))


def chain(**fields: Any) -> Chain:
    fields.setdefault("output", Output(kind="classifier", labels=LABELS))
    return Chain(input=Input(channels=("a1", "a2", "a3", "a4")), window=Window(size=300), **fields)


# --- gearbox ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dnn", "dnn_int8quantized"])
@pytest.mark.parametrize("cut", ["windows", "rows"])
def test_gearbox_windows_are_all_right(models: Path, engine: Engine, author: Author, name: str, cut: str) -> None:
    """Whole windows, and the same as one series of rows."""
    golden = models / "gearbox" / "golden.npz"
    samples = read_samples(golden, array="raw_windows", label_array="raw_y")
    if cut == "rows":
        assert samples.labels is not None
        samples = Samples(samples.values.reshape(-1, 4), labels=tuple(np.repeat(samples.labels, 300)))  # noqa: PD011  no pandas
    model = open_model(author, models / "gearbox" / f"{name}.tflite", engine)

    tried = list(try_samples(model, author, samples))

    model.close()
    assert sum(one.decision.label == one.right for one in tried) == len(tried) == 100
    assert {one.right for one in tried} == set(LABELS)
    assert all(one.best == one.decision.label for one in tried)


def test_gearbox_features_are_those_that_the_model_was_trained_on(models: Path) -> None:
    windows = np.load(models / "gearbox" / "golden.npz")["raw_windows"]
    compiled = CompiledChain(chain(features=FEATURES), [tensor(1, 16)], [tensor(1, 2)])

    for window in windows:
        frame = pd.DataFrame(window.astype(np.float64))
        expected = np.concatenate([frame.abs().sum(), frame.std(), frame.max(), frame.kurt()])
        prepared = compiled.prepare(window).tensors[0]
        assert (prepared.dtype, prepared.shape) == (np.float32, (1, 16))
        np.testing.assert_allclose(prepared[0], expected, rtol=1e-6, atol=1e-6)


def test_gearbox_features_of_upstream_are_classified_as_upstream_says(models: Path, engine: Engine) -> None:
    """Features as they come, one row a window: 97.7 % (SOURCE.md), after the normalisation is undone by the chain."""
    golden = np.load(models / "gearbox" / "golden.npz")
    low, high = float(golden["norm_min"]), float(golden["norm_max"])
    manifest = Chain(
        input=Input(channels=tuple(f"f{number}" for number in range(16))),
        window=Window(size=1),
        output=Output(kind="classifier", labels=LABELS),
        normalise=Normalise(method="zscore", mean=-low / (high - low), std=1 / (high - low)),
    )
    model = open_model(manifest, models / "gearbox" / "dnn.tflite", engine)
    samples = Samples(golden["features_norm"], labels=tuple(map(str, golden["features_y"])))

    tried = list(try_samples(model, manifest, samples))

    model.close()
    right = sum(one.best == one.right for one in tried)
    assert (len(tried), round(right / len(tried), 3)) == (664, 0.977)


def test_a_self_test_that_was_recorded_holds(models: Path, engine: Engine, author: Author, tmp_path: Path) -> None:
    model = open_model(author, models / "gearbox" / "dnn.tflite", engine)
    samples = read_samples(models / "gearbox" / "golden.npz", array="raw_windows", label_array="raw_y")

    tried = list(try_samples(model, author, samples))
    recorded = record_self_test(model, author, tried, tmp_path / "selftest.npz")
    test = author.read_self_test(tmp_path)
    model.self_test(test)

    model.close()
    assert recorded.written == len(test.cases) == 8
    scores = [to_floats(case.scores).argmax() for case in test.cases]
    assert sorted(scores) == [0] * 4 + [1] * 4


@pytest.mark.parametrize("shape", [(7,), (7, 3), (2, 300, 3), (2, 299, 4)])
def test_samples_of_another_shape_are_refused_with_both(
    models: Path, engine: Engine, author: Author, shape: tuple[int, ...]
) -> None:
    model = open_model(author, models / "gearbox" / "dnn.tflite", engine)

    with pytest.raises(ReadingShapeError) as caught:
        list(try_samples(model, author, Samples(np.zeros(shape, np.float32))))

    assert caught.value.message == f"samples of shape {shape} are neither rows of 4 channels nor windows of (300, 4)"


# --- other models ----------------------------------------------------------------------------


def test_a_window_without_features_goes_in_as_it_is(models: Path, engine: Engine) -> None:
    """128 rows of 3 channels into [1, 128, 3, 1]."""
    golden = np.load(models / "magic_wand" / "golden.npz")
    manifest = Chain(
        input=Input(channels=("x", "y", "z")),
        window=Window(size=128),
        output=Output(kind="classifier", labels=("wing", "ring", "slope", "negative")),
    )
    model = open_model(manifest, models / "magic_wand" / "magic_wand_float.tflite", engine)
    expected = golden["y"] if "y" in golden else golden["y_quant"]

    for x, y in zip(golden["x"], expected, strict=True):
        assert model.scores(x.reshape(128, 3)).argmax() == y.argmax()
    model.close()


# --- activation ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("none", [-200.0, 200.0]), ("softmax", [0.0, 1.0]), ("sigmoid", [0.0, 1.0])],
)
def test_activation_neither_overflows_nor_warns(
    activation: Literal["none", "softmax", "sigmoid"], expected: list[float]
) -> None:
    output = Output(kind="classifier", labels=LABELS, activation=activation)
    compiled = CompiledChain(chain(features=FEATURES, output=output), [tensor(1, 16)], [tensor(1, 2)])

    scores = compiled.scores([np.array([[-200.0, 200.0]], np.float32)], NOTHING)

    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx(expected, abs=1e-30)


def test_softmax_and_sigmoid_are_their_formulas() -> None:
    logits = np.array([[0.5, -1.25]], np.float32)
    for activation, expected in (
        ("softmax", np.exp(logits) / np.exp(logits).sum()),
        ("sigmoid", 1 / (1 + np.exp(-logits))),
    ):
        output = Output(kind="classifier", labels=LABELS, activation=activation)  # type: ignore[arg-type]
        compiled = CompiledChain(chain(features=FEATURES, output=output), [tensor(1, 16)], [tensor(1, 2)])
        np.testing.assert_allclose(compiled.scores([logits], NOTHING), expected[0], rtol=1e-6)


def test_a_quantised_output_comes_back_before_its_activation() -> None:
    output = TensorInfo("o", (1, 2), np.dtype(np.int8), 0.25, -4)
    compiled = CompiledChain(chain(features=FEATURES), [tensor(1, 16)], [output])

    assert compiled.scores([np.array([[-4, 0]], np.int8)], NOTHING).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_answer_that_is_not_finite_is_no_answer(bad: float) -> None:
    compiled = CompiledChain(chain(features=FEATURES), [tensor(1, 16)], [tensor(1, 2)])

    with pytest.raises(ReadingValueError, match="the model answers a reading with a value that is not finite"):
        compiled.scores([np.array([[0.5, bad]], np.float32)], NOTHING)


# --- misfits ---------------------------------------------------------------------------------


def zscore(**fields: Any) -> Normalise:
    return Normalise(method="zscore", **{"mean": 0.0, "std": 1.0, **fields})


@pytest.mark.parametrize(
    ("fields", "source", "target", "said"),
    [
        ({}, (1, 16), (1, 2), r"window.size x input.channels gives 1200 values, the model's input \(1, 16\) takes 16"),
        ({"features": FEATURES}, (1, 12), (1, 2), r"features.use x input.channels gives 16 values, the model's input \(1, 12\) takes 12"),
        ({"features": FEATURES}, (1, 16), (1, 3), r"output.labels names 2 labels, the model's output \(1, 3\) has 3"),
        ({"features": FEATURES}, (1, 16), (1, 1), r"output.labels names 2 labels, the model's output \(1, 1\) has 1"),
        ({"features": FEATURES, "normalise": zscore(mean=(0.0,) * 4)}, (1, 16), (1, 2), "normalise.mean holds 4 numbers, and 16 values are normalised"),
        ({"features": FEATURES, "normalise": zscore(std=(1.0,) * 17)}, (1, 16), (1, 2), "normalise.std holds 17 numbers, and 16 values are normalised"),
        ({"normalise": zscore(mean=(0.0,) * 3)}, (1, 300, 4), (1, 2), "normalise.mean holds 3 numbers, and 4 values are normalised"),
        ({"normalise": Normalise(method="minmax", min=(0.0,) * 4, max=(1.0,) * 3)}, (1, 300, 4), (1, 2), "normalise.max holds 3 numbers, and 4 values are normalised"),
        ({"normalise": zscore(std=(1.0, 0.0, 1.0, 1.0))}, (1, 300, 4), (1, 2), "normalise.std holds 0"),
        ({"normalise": Normalise(method="minmax", min=1.0, max=(2.0, 1.0, 2.0, 2.0))}, (1, 300, 4), (1, 2), "normalise.max equals normalise.min somewhere"),
        ({"normalise": zscore(mean=float("nan"))}, (1, 300, 4), (1, 2), "normalise.mean holds a number that is not finite"),
        ({"normalise": zscore(std=float("inf"))}, (1, 300, 4), (1, 2), "normalise.std holds a number that is not finite"),
    ],
)  # fmt: skip
def test_a_misfit_is_refused_with_its_key_and_both_sizes(
    fields: dict[str, Any], source: tuple[int, ...], target: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        CompiledChain(chain(**fields), [tensor(*source)], [tensor(*target)])


def test_a_window_too_short_for_a_feature_is_refused_with_both_sizes() -> None:
    short = Chain(
        input=Input(channels=("a",)),
        window=Window(size=3),
        output=Output(kind="regressor"),
        features=Features(use=("kurtosis",)),
    )

    with pytest.raises(EdgedError, match=r"features.use: kurtosis needs 4 rows, window.size is 3"):
        CompiledChain(short, [tensor(1, 1)], [tensor(1, 1)])


@pytest.mark.parametrize("shape", [(1200,), (1, 300, 4), (1, 300, 4, 1), (300, 4), (1, 1200)])
def test_the_same_values_fit_any_shape(shape: tuple[int, ...]) -> None:
    window = np.arange(1200, dtype=np.float32).reshape(300, 4)

    prepared = CompiledChain(chain(), [tensor(*shape)], [tensor(2)]).prepare(window).tensors[0]

    assert (prepared.shape, prepared.ravel().tolist()) == (shape, list(range(1200)))


def test_manifest_and_real_model_that_do_not_fit(models: Path, engine: Engine, author: Author) -> None:
    with pytest.raises(
        ModelError, match=r"features.use x input.channels gives 16 values, the model's input .* takes 490"
    ):
        open_model(author, models / "kws" / "kws_ref_model.tflite", engine)
