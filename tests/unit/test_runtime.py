"""Real models on each runtime that can be imported: the good ones answer, the bad ones are refused in plain words."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Literal

import numpy as np
import pytest

from edged.errors import ConfigError, MissingFileError, ModelError
from edged.runtime import Engine, Interpreter, choose

GOOD = [
    *(f"gearbox/{name}" for name in ("autoencoder", "autoencoder_int8quantized", "dnn", "dnn_int8quantized")),
    *(f"ic_resnet/{name}" for name in ("pretrainedResnet", "pretrainedResnet_quant")),
    *(f"kws/{name}" for name in ("kws_ref_model", "kws_ref_model_float32")),
    *(f"magic_wand/{name}" for name in ("magic_wand_float", "magic_wand_quant")),
    *(f"odd/{name}" for name in ("mixed_input_model", "multi_signature_model", "simple_add_dynamic_shape")),
    "ondevice_training/training_model",
]
BAD = {
    "odd/lfs_pointer_har_int8.tflite": "is a Git LFS pointer, not the model itself",
    "odd/keras_lstm_mnist_ptq_edgetpu.tflite": "is compiled for the Edge TPU and runs nowhere else",
    "odd/with_custom_op.lite": "needs the custom operator 'Assign', which the runtime lacks",
    "odd/model_invoking_error.tflite": "needs the custom operator 'fake-op-double', which the runtime lacks",
}


@pytest.fixture(params=["litert", "tflite"])
def engine(request: pytest.FixtureRequest) -> Engine:
    try:
        return choose(request.param)
    except ConfigError as error:
        pytest.skip(error.message)


def load(engine: Engine, path: Path) -> Interpreter:
    return Interpreter(engine, str(path))


def test_every_model_is_expected_to_run_or_to_be_refused(models: Path) -> None:
    found = {str(path.relative_to(models)) for path in models.glob("*/*lite")}

    assert found == {f"{name}.tflite" for name in GOOD} | set(BAD)


@pytest.mark.parametrize("name", GOOD)
def test_good_model_answers_in_the_shapes_that_it_states(models: Path, engine: Engine, name: str) -> None:
    interpreter = load(engine, models / f"{name}.tflite")

    answers = interpreter.run(*[np.ones(tensor.shape, tensor.dtype) for tensor in interpreter.inputs])

    assert [(a.shape, a.dtype) for a in answers] == [(t.shape, t.dtype) for t in interpreter.outputs]


@pytest.mark.parametrize(("name", "reason"), BAD.items())
def test_bad_model_is_refused_by_name_in_plain_words(models: Path, engine: Engine, name: str, reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(engine, models / name)

    assert caught.value.message == f"{models / name} {reason}"
    assert caught.value.hint


@pytest.mark.parametrize(
    "name", ["gearbox/dnn", "kws/kws_ref_model", "gearbox/dnn_int8quantized", "odd/multi_signature_model"]
)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_truncated_model_is_refused(models: Path, engine: Engine, tmp_path: Path, name: str, share: float) -> None:
    """tflite-runtime would crash."""
    content = (models / f"{name}.tflite").read_bytes()
    path = tmp_path / "short.tflite"
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(ModelError, match=f"{path} is truncated or damaged"):
        Interpreter(engine, str(path))


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\3\4 a Keras archive, say"])
def test_other_file_is_refused(engine: Engine, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.tflite"
    path.write_bytes(content)

    with pytest.raises(ModelError, match=f"{path} is not a TFLite model"):
        Interpreter(engine, str(path))


def test_absent_file_is_named(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=f"{tmp_path}/none.tflite cannot be read: No such file"):
        Interpreter(engine, f"{tmp_path}/none.tflite")


@pytest.mark.parametrize(
    ("name", "right"),
    [("kws/kws_ref_model", 12), ("ic_resnet/pretrainedResnet_quant", 10), ("magic_wand/magic_wand_quant", 3)],
)
def test_known_inputs_are_classified_as_they_were_upstream(models: Path, engine: Engine, name: str, right: int) -> None:
    golden = np.load((models / name).parent / "golden.npz")
    expected = golden["y"] if "y" in golden else golden["y_quant"]
    interpreter = load(engine, models / f"{name}.tflite")

    answers = np.concatenate([interpreter.run(x[np.newaxis])[0] for x in golden["x"]])

    assert int((answers.argmax(1) == expected.argmax(1)).sum()) == len(expected) == right


def test_tensor_states_its_quantisation(models: Path, engine: Engine) -> None:
    tensor = load(engine, models / "gearbox/dnn_int8quantized.tflite").inputs[0]

    assert (tensor.shape, tensor.dtype, tensor.zero_point) == ((1, 16), np.int8, -128)
    assert tensor.scale == pytest.approx(11.936451)
    assert load(engine, models / "gearbox/dnn.tflite").inputs[0].scale == 0.0


def test_inputs_stand_in_the_order_of_the_signature_of_the_main_subgraph(models: Path, engine: Engine) -> None:
    """The file has them the other way round, and two more signatures of other subgraphs."""
    interpreter = load(engine, models / "odd/multi_signature_model.tflite")

    assert [tensor.name for tensor in interpreter.inputs] == ["a", "b"]


@pytest.mark.parametrize("value", [np.zeros((1, 15), np.float32), np.zeros((1, 16)), np.zeros(16, np.float32)])
def test_value_that_does_not_fit_is_refused(models: Path, engine: Engine, value: np.ndarray) -> None:
    interpreter = load(engine, models / "gearbox/dnn.tflite")

    with pytest.raises(ModelError, match="Cannot set tensor"):
        interpreter.run(value)


def test_answer_is_a_copy(models: Path, engine: Engine) -> None:
    interpreter = load(engine, models / "gearbox/autoencoder.tflite")
    first = interpreter.run(np.zeros((1, 16), np.float32))[0]
    kept = first.copy()

    interpreter.run(np.ones((1, 16), np.float32))

    assert np.array_equal(first, kept)


def test_model_is_unmapped_when_closed_and_when_refused(models: Path, engine: Engine) -> None:
    """Nothing may keep the weights, not even the traceback of the error that is being handled."""

    def mapped(name: str) -> bool:
        return name in Path("/proc/self/maps").read_text()

    seen: list[bool] = []
    good = models / "gearbox/autoencoder.tflite"
    Interpreter(engine, str(good), on_mapped=lambda: seen.append(mapped(good.name))).close()
    with pytest.raises(ModelError) as caught:
        load(engine, models / "odd/with_custom_op.lite")

    assert seen == [True]
    assert not mapped(good.name)
    assert caught.value.__traceback__
    assert not mapped("with_custom_op.lite")


def test_absent_runtime_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)

    with pytest.raises(ConfigError, match=r"runtime\.engine = 'litert' cannot be used") as caught:
        choose("litert")

    assert "pip install" in str(caught.value.hint)


def test_a_large_model_is_not_copied_where_memory_is_short(engine: Engine) -> None:
    """XNNPACK packs float weights into a copy of its own: on tflite-runtime only models up to 16 MB, unless told so."""
    limits = [choose(engine.name, xnnpack).xnnpack_limit for xnnpack in ("on", "auto", "off")]
    assert limits == [math.inf, 16e6 if engine.name == "tflite" else math.inf, 0]


@pytest.mark.parametrize("xnnpack", ["on", "off"])
def test_answers_do_not_depend_on_xnnpack(engine: Engine, models: Path, xnnpack: Literal["on", "off"]) -> None:
    interpreter = Interpreter(choose(engine.name, xnnpack), str(models / "gearbox" / "dnn.tflite"))
    answer = interpreter.run(np.ones(interpreter.inputs[0].shape, np.float32))[0]
    assert answer.sum() == pytest.approx(1, abs=1e-5)


def test_auto_takes_tflite_where_litert_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("tflite_runtime"), ModuleType("tflite_runtime.interpreter")
    package.__dict__["__version__"] = "2.14.0"
    module.__dict__["Interpreter"] = object
    module.__dict__["OpResolverType"] = SimpleNamespace(BUILTIN_WITHOUT_DEFAULT_DELEGATES=3)
    module.__dict__["load_delegate"] = object
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", package)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", module)

    engine = choose("auto")

    assert (engine.name, engine.version) == ("tflite", "2.14.0")
    assert "ai_edge_litert" in engine.reason
