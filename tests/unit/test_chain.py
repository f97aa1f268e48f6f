"""The chain between a window and the tensors of a model, up to a real one with known answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from edged.errors import ConfigError, ModelError, ReadingValueError
from edged.runtime import Interpreter, choose
from edged.signal.chain import CompiledChain
from edged.signal.spec import Chain, Feature, Features, Input, Normalise, Output, Window
from edged.signal.tensor import TensorInfo

MODELS = Path(os.environ.get("EDGED_MODELS", Path(__file__).parents[3] / "shared" / "models"))
GEARBOX = (Feature(name="std", ddof=1), "max", Feature(name="kurtosis", bias=False))


def tensor(*shape: int, dtype: type = np.float32, scale: float = 0.0, zero_point: int = 0) -> TensorInfo:
    return TensorInfo("tensor", shape, np.dtype(dtype), scale, zero_point)


def chain(*, size: int = 2, channels: tuple[str, ...] = ("a", "b", "c"), **tables: Any) -> Chain:
    tables.setdefault("output", Output(kind="classifier", labels=("healthy", "broken")))
    return Chain(input=Input(channels=channels), window=Window(size=size), **tables)


@pytest.mark.parametrize("shape", [(1, 6), (1, 2, 3), (1, 2, 3, 1), (6,)])
def test_without_features_the_window_takes_the_shape_of_the_tensor(shape: tuple[int, ...]) -> None:
    window = np.arange(6, dtype=np.float32).reshape(2, 3)

    prepared = CompiledChain(chain(), tensor(*shape), tensor(1, 2)).prepare(window)

    assert prepared.shape == shape
    assert prepared.dtype == np.float32
    assert prepared.ravel().tolist() == [0, 1, 2, 3, 4, 5]


def test_features_stand_by_feature_and_then_by_channel() -> None:
    window = np.array([[1, -20, 300], [-3, 10, 100]], np.float32)
    compiled = CompiledChain(chain(features=Features(use=("sum_abs", "max"))), tensor(1, 6), tensor(1, 2))

    assert compiled.prepare(window).tolist() == [[4, 30, 400, 1, 10, 300]]


def test_normalisation_of_the_window_is_by_channel() -> None:
    normalise = Normalise(method="zscore", mean=(0.0, 10.0, 100.0), std=(1.0, 2.0, 4.0))
    window = np.array([[1, 12, 104], [2, 14, 108]], np.float32)

    prepared = CompiledChain(chain(normalise=normalise), tensor(1, 6), tensor(1, 2)).prepare(window)

    assert prepared.tolist() == [[1, 1, 1, 2, 2, 2]]


def test_normalisation_of_features_is_by_value() -> None:
    tables: dict[str, Any] = {
        "features": Features(use=("min", "max")),
        "normalise": Normalise(method="minmax", min=(0.0, 0.0, 0.0, 1.0, 1.0, 1.0), max=(2.0, 2.0, 2.0, 5.0, 5.0, 5.0)),
    }
    window = np.array([[1, 1, 1], [3, 3, 3]], np.float32)

    prepared = CompiledChain(chain(**tables), tensor(1, 6), tensor(1, 2)).prepare(window)

    assert prepared.tolist() == [[0.5, 0.5, 0.5, 0.5, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("tables", "source", "target", "said"),
    [
        ({}, tensor(1, 7), tensor(1, 2), r"window\.size x input\.channels gives 6 values, .* takes 7"),
        (
            {"features": Features(use=("max",))},
            tensor(1, 16),
            tensor(1, 2),
            r"features\.use x input\.channels gives 3 values, .* takes 16",
        ),
        ({}, tensor(1, 6), tensor(1, 3), r"output\.labels names 2 labels, .* has 3"),
        (
            {"normalise": Normalise(method="zscore", mean=(1.0, 2.0), std=1.0)},
            tensor(1, 6),
            tensor(1, 2),
            "2 numbers for 3",
        ),
        ({"normalise": Normalise(method="zscore", mean=0.0, std=0.0)}, tensor(1, 6), tensor(1, 2), "divides by zero"),
        ({"normalise": Normalise(method="minmax", min=1.0, max=1.0)}, tensor(1, 6), tensor(1, 2), "divides by zero"),
    ],
)
def test_manifest_that_does_not_fit_its_model_is_refused_with_both_sizes(
    tables: dict[str, Any], source: TensorInfo, target: TensorInfo, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        CompiledChain(chain(**tables), source, target)


def test_window_too_short_for_a_feature_is_refused() -> None:
    tables: dict[str, Any] = {"features": Features(use=(Feature(name="kurtosis", bias=False),))}

    with pytest.raises(ConfigError, match=r"kurtosis needs 4 rows, window\.size is 2"):
        CompiledChain(chain(**tables), tensor(1, 3), tensor(1, 2))


def scores(
    activation: Literal["none", "softmax", "sigmoid"], output: list[float], target: TensorInfo | None = None
) -> list[float]:
    tables: dict[str, Any] = {"output": Output(kind="classifier", activation=activation, labels=("healthy", "broken"))}
    target = target or tensor(1, 2)
    found = CompiledChain(chain(**tables), tensor(1, 6), target).scores(np.array([output], target.dtype))
    assert found.dtype == np.float32
    return [float(score) for score in found]


def test_scores_without_an_activation_are_what_the_model_says() -> None:
    assert scores("none", [0.25, 0.75]) == [0.25, 0.75]


def test_softmax_adds_up_to_one_however_large_the_logits() -> None:
    assert scores("softmax", [1.0, 3.0]) == pytest.approx([0.119203, 0.880797], abs=1e-6)
    assert scores("softmax", [-1e30, 1e30]) == [0, 1]


def test_sigmoid_does_not_overflow() -> None:
    assert scores("sigmoid", [0.0, 1.0]) == pytest.approx([0.5, 0.731059], abs=1e-6)
    assert scores("sigmoid", [-1e30, 1e30]) == pytest.approx([0, 1], abs=1e-30)


def test_quantised_output_is_scaled_before_its_activation() -> None:
    target = tensor(1, 2, dtype=np.int8, scale=0.5, zero_point=-2)

    assert scores("none", [-2, 2], target) == [0, 2]
    assert scores("softmax", [-2, 2], target) == pytest.approx([0.119203, 0.880797], abs=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_decision_rests_on_an_answer_that_is_not_finite(value: float) -> None:
    """argmax() would take NaN for the first label, which often is the healthy one."""
    with pytest.raises(ReadingValueError, match="not finite"):
        scores("softmax", [value, 0.5])


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    path = MODELS / "gearbox" / "golden.npz"
    if not path.exists():
        pytest.skip(f"the gearbox model is not at {MODELS}: set EDGED_MODELS")
    with np.load(path) as archive:
        return {name: archive[name] for name in ("raw_windows", "raw_y")}


@pytest.mark.parametrize("engine", ["tflite", "litert"])
def test_gearbox_windows_are_all_classified_right(golden: dict[str, Any], engine: Literal["tflite", "litert"]) -> None:
    """models/README.md: 100 of 100 raw windows, on both runtimes."""
    try:
        interpreter = Interpreter(choose(engine), str(MODELS / "gearbox" / "dnn.tflite"))
    except ConfigError as error:
        pytest.skip(error.message)
    tables: dict[str, Any] = {"features": Features(use=("sum_abs", *GEARBOX))}
    manifest = chain(size=300, channels=("a1", "a2", "a3", "a4"), **tables)
    compiled = CompiledChain(manifest, interpreter.input, interpreter.output)

    answers = [int(compiled.scores(interpreter.invoke(compiled.prepare(w))).argmax()) for w in golden["raw_windows"]]
    interpreter.close()

    assert answers == golden["raw_y"].tolist()
