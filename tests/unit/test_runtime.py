"""Real models on each runtime that can be imported: the good ones answer, the bad ones are refused in plain words."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import ConfigError, MissingFileError, ModelError
from edged.formats.spec import Chain, Input, Output
from edged.model.dry_run import open_model
from edged.model.runtime import DelegateLibrary, Engine, Interpreter, choose
from edged.model.runtime.anatomy import delegated
from edged.model.runtime.engine import Array
from edged.model.runtime.engines import EngineKind
from edged.model.runtime.graph import Operator
from edged.model.signal.tensor import TensorInfo
from support.delegates import ToldDelegate
from support.real_models import GOOD

STATEFUL = Path(__file__).parents[1] / "models"
BAD = {
    "odd/lfs_pointer_har_int8.tflite": "is a Git LFS pointer, not the model itself",
    "odd/keras_lstm_mnist_ptq_edgetpu.tflite": "is compiled for the Edge TPU and runs nowhere else",
    "odd/with_custom_op.lite": "needs the custom operator 'Assign', which the runtime lacks",
    "odd/model_invoking_error.tflite": "needs the custom operator 'fake-op-double', which the runtime lacks",
}


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


# --- signatures ------------------------------------------------------------------------------


def test_inputs_stand_in_the_order_of_the_signature_of_the_main_subgraph(models: Path, engine: Engine) -> None:
    """The file has them the other way round, and two more signatures of other subgraphs."""
    interpreter = load(engine, models / "odd/multi_signature_model.tflite")

    assert [tensor.name for tensor in interpreter.inputs] == ["a", "b"]


@pytest.mark.parametrize(("signature", "expected"), [("add", 10.0), ("mul", 21.0), ("sub", 4.0)])
def test_each_signature_does_its_own_arithmetic(models: Path, engine: Engine, signature: str, expected: float) -> None:
    """The tensors of the three have the same numbers: only their subgraphs differ."""
    interpreter = Interpreter(engine, str(models / "odd/multi_signature_model.tflite"), signature=signature)
    values = [np.full((10, 10), value, np.float32) for value in (7, 3)]

    (answer,) = interpreter.run(*values)
    kept = answer.copy()
    interpreter.run(*reversed(values))

    assert [tensor.name for tensor in (*interpreter.inputs, *interpreter.outputs)] == ["a", "b", "output"]
    assert (answer == expected).all()
    assert np.array_equal(answer, kept), "it is a copy"


def test_an_unknown_signature_is_refused_with_those_that_there_are(models: Path, engine: Engine) -> None:
    path = models / "odd/multi_signature_model.tflite"

    with pytest.raises(ModelError) as caught:
        Interpreter(engine, str(path), signature="div")

    assert caught.value.message == f"model.signature: {path} has no signature 'div'"
    assert caught.value.hint == "it has 'add', 'mul', 'sub'"


def test_a_signature_of_a_model_without_any_is_refused(models: Path, engine: Engine) -> None:
    with pytest.raises(ModelError, match="has no signature 'serve'") as caught:
        Interpreter(engine, str(models / "odd/mixed_input_model.tflite"), signature="serve")

    assert caught.value.hint == "it has none"


def test_the_main_subgraph_is_asked_directly_by_its_signature_too(models: Path, engine: Engine) -> None:
    """Only other subgraphs need a runner of the runtime's, which is slower."""
    by_signature = Interpreter(engine, str(models / "gearbox/dnn.tflite"), signature="serving_default")
    plain = load(engine, models / "gearbox/dnn.tflite")

    assert by_signature._runner is None
    assert (by_signature.inputs, by_signature.outputs) == (plain.inputs, plain.outputs)


def test_tensors_of_one_name_are_told_apart(models: Path, engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "same.tflite"
    path.write_bytes((models / "odd/simple_add_dynamic_shape.tflite").read_bytes().replace(b"arg1", b"arg0"))
    interpreter = load(engine, path)

    (answer,) = interpreter.run(*(np.full((1, 128, 4), value, np.float32) for value in (2, 3)))

    assert [tensor.name for tensor in interpreter.inputs] == ["arg0", "arg0:1"]
    assert (answer == 5).all()


# --- inputs of several types, and of open sizes ----------------------------------------------


def test_inputs_of_several_types_go_in_by_their_order(models: Path, engine: Engine) -> None:
    interpreter = load(engine, models / "odd/mixed_input_model.tflite")

    def answer(whole: int, real: float) -> float:
        (found,) = interpreter.run(np.full((1, 10), whole, np.int32), np.full((1, 10), real, np.float32))
        return float(found[0, 0])

    assert [(tensor.name, tensor.dtype) for tensor in interpreter.inputs] == [
        ("int_input", np.int32),
        ("float_input", np.float32),
    ]
    assert answer(1, 0.5) != 0
    assert answer(4, 2.0) == pytest.approx(4 * answer(1, 0.5))


def test_open_sizes_are_told_and_can_be_filled(models: Path, engine: Engine) -> None:
    interpreter = load(engine, models / "odd/simple_add_dynamic_shape.tflite")
    assert [tensor.extents for tensor in (*interpreter.inputs, *interpreter.outputs)] == [(-1, 128, 4)] * 3

    for batch in (1, 5, 2):
        shape = (batch, 128, 4)
        interpreter.resize([shape, shape])
        (answer,) = interpreter.run(np.full(shape, 2, np.float32), np.full(shape, 3, np.float32))

        assert [tensor.shape for tensor in (*interpreter.inputs, *interpreter.outputs)] == [shape] * 3
        assert answer.shape == shape
        assert (answer == 5).all()


def test_a_fixed_size_cannot_be_changed(models: Path, engine: Engine) -> None:
    interpreter = load(engine, models / "odd/simple_add_dynamic_shape.tflite")

    with pytest.raises(ModelError, match=r"the runtime refuses .*resize dimension 1 .*128 to 64"):
        interpreter.resize([(1, 64, 4), (1, 64, 4)])


def test_open_sizes_of_another_subgraph_cannot_be_filled(models: Path, engine: Engine) -> None:
    interpreter = Interpreter(engine, str(models / "odd/multi_signature_model.tflite"), signature="mul")

    with pytest.raises(ModelError, match=r"model.signature: 'mul' has open sizes"):
        interpreter.resize([(5, 10), (5, 10)])


# --- state -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variables", "resources"),
    [("moving_sum", True, False), ("counter", False, True), ("feedback", False, False)],
)
def test_where_a_model_keeps_state_is_told(engine: Engine, name: str, variables: bool, resources: bool) -> None:
    interpreter = load(engine, STATEFUL / f"{name}.tflite")

    assert (interpreter.has_variables, interpreter.has_resources) == (variables, resources)


@pytest.mark.parametrize(
    ("signature", "resources"), [("get_weights", False), ("infer", False), ("set_weights", True), ("train", True)]
)
def test_only_the_signature_that_is_used_counts_for_state(
    models: Path, engine: Engine, signature: str, resources: bool
) -> None:
    path = models / "ondevice_training/training_model.tflite"

    assert Interpreter(engine, str(path), signature=signature).has_resources == resources


@pytest.mark.parametrize("name", ["moving_sum", "counter"])
def test_reset_clears_either_kind_of_state(engine: Engine, name: str) -> None:
    interpreter = load(engine, STATEFUL / f"{name}.tflite")
    one = np.ones((1, 1), np.float32)

    first = [float(interpreter.run(one)[0][0, 0]) for _ in range(3)]
    interpreter.reset()
    second = [float(interpreter.run(one)[0][0, 0]) for _ in range(3)]

    assert first == second == [1.0, 2.0, 3.0]


# --- values ----------------------------------------------------------------------------------


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


# --- delegates -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> ToldDelegate:
    return ToldDelegate(tmp_path_factory.mktemp("delegate"))


def test_a_delegate_is_loaded_with_its_options_and_let_go_with_the_model(
    models: Path, engine: Engine, told: ToldDelegate
) -> None:
    before = told.destroyed
    delegate = DelegateLibrary("told", told.path, {"device": "usb:0", "speed": "max"})
    interpreter = Interpreter(engine, str(models / "gearbox/dnn.tflite"), delegates=[delegate])

    (answer,) = interpreter.run(np.ones((1, 16), np.float32))

    assert told.options == b"device=usb:0;speed=max;"
    assert answer.sum() == pytest.approx(1, abs=1e-5)
    assert told.destroyed == before
    interpreter.close()
    assert told.destroyed == before + 1


def test_a_delegate_that_refuses_is_named_with_its_own_words(models: Path, engine: Engine, told: ToldDelegate) -> None:
    delegate = DelegateLibrary("edgetpu", told.path, {"device": "none"})

    with pytest.raises(ConfigError) as caught:
        Interpreter(engine, str(models / "gearbox/dnn.tflite"), delegates=[delegate])

    assert caught.value.message == (f"runtime.delegates.edgetpu.library: {told.path} cannot be used: no such device")


def test_a_delegate_that_fails_at_the_model_is_named(models: Path, engine: Engine, told: ToldDelegate) -> None:
    path = models / "gearbox/dnn.tflite"
    delegate = DelegateLibrary("edgetpu", told.path, {"prepare": "fails"})

    with pytest.raises(ModelError) as caught:
        Interpreter(engine, str(path), delegates=[delegate])

    assert caught.value.message == f"runtime.delegates.edgetpu: the delegate fails to take {path}"


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("libnone.so.1", "libnone.so.1 cannot be used: cannot open shared object file"),
        ("libc.so.6", "libc.so.6 cannot be used: .*undefined symbol: tflite_plugin_create_delegate"),
        (__file__, "cannot be used: .*(invalid ELF header|file too short)"),
    ],
)
def test_a_library_that_is_absent_or_no_delegate_is_refused_by_name(
    models: Path, engine: Engine, library: str, said: str
) -> None:
    """In an error of edged's alone: the runtimes' own loaders leave a traceback behind, which pytest would report."""
    with pytest.raises(ConfigError, match=rf"^runtime\.delegates\.edgetpu\.library: .*{said}") as caught:
        Interpreter(engine, str(models / "gearbox/dnn.tflite"), delegates=[DelegateLibrary("edgetpu", library)])

    assert caught.value.hint


@pytest.mark.parametrize("name", GOOD)
def test_what_delegates_took_is_what_the_runtime_no_longer_executes(
    models: Path, engine: Engine, told: ToldDelegate, name: str
) -> None:
    """XNNPACK is a delegate itself: the plan that the runtime follows leaves out what it took."""
    interpreter = Interpreter(engine, str(models / f"{name}.tflite"), delegates=[DelegateLibrary("told", told.path)])
    nodes = interpreter.nodes()
    operators = {place for place, node in enumerate(nodes) if node.name != "DELEGATE"}

    plan = told.plan()

    assert plan
    assert delegated(nodes, interpreter.output_indices) == operators - set(plan)


@given(st.data())
def test_what_a_delegate_took_follows_from_its_inputs_and_outputs(data: st.DataObject) -> None:
    """On any graph: a delegate's inputs are what its operators read and do not make, its outputs what others read."""
    count = data.draw(st.integers(1, 12))
    nodes = [
        Operator("ADD", tuple(data.draw(st.lists(st.integers(-1, place), min_size=1, max_size=3))), (place + 1,))
        for place in range(count)
    ]
    results = data.draw(st.sets(st.integers(1, count), min_size=1))
    needed = _needed(nodes, results)
    took = data.draw(st.sets(st.sampled_from(sorted(needed))))
    inside = {nodes[place].outputs[0] for place in took}
    read = {tensor for place in took for tensor in nodes[place].inputs} - {-1}
    others = {tensor for place, node in enumerate(nodes) if place not in took for tensor in node.inputs}
    delegate = Operator("DELEGATE", tuple(read - inside), tuple(inside & (others | results)))

    found = delegated([*nodes, delegate] if took else nodes, sorted(results))

    assert found & needed == took


def _needed(nodes: list[Operator], results: set[int]) -> set[int]:
    needed: set[int] = set()
    wanted = set(results)
    for place in reversed(range(len(nodes))):
        if set(nodes[place].outputs) & wanted:
            needed.add(place)
            wanted |= set(nodes[place].inputs)
    return needed


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


class Doubler:
    """An engine's runner: a model that doubles the row that it is given."""

    inputs = (TensorInfo("x", (1, 2), np.dtype("f4")),)
    outputs = (TensorInfo("y", (1, 2), np.dtype("f4")),)
    has_variables = has_resources = False

    def __init__(self, _engine: Engine, path: str, _threads: int, **_options: object) -> None:
        self.path = path

    def resize(self, _shapes: Sequence[tuple[int, ...]]) -> None:
        raise AssertionError

    def run(self, *values: Array) -> list[Array]:
        return [2 * values[0]]

    def reset(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self.path = ""


def test_another_engine_is_one_class_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "doubling", ModuleType("doubling"))
    monkeypatch.setattr("doubling.__version__", "1.0", raising=False)
    monkeypatch.setattr("edged.model.runtime.engines.ENGINES", {"doubler": EngineKind("doubling", "doubling", Doubler)})

    model = open_model(Chain(input=Input(channels=("a", "b")), output=Output(kind="regressor")), Path("m"), choose())

    assert model.scores(np.array([[1, 2]], np.float32)).tolist() == [2, 4]
    model.close()
