"""`edged inspect` on models: everything that the file and the runtime say, and no more."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import EdgedError, ModelError, UsageError
from edged.cli.inspect import inspect_command
from edged.model.runtime import Engine, Interpreter
from edged.model.runtime.anatomy import dissect
from edged.model.runtime.graph import find_state, read_graph
from edged.model.runtime.metadata import read_notes
from support.notes import flatbuffer, model_notes, tensor_notes, with_metadata
from support.real_models import GOOD
from support.tiny import Step, Values, build, identity

STATEFUL = Path(__file__).parents[1] / "models"
CIFAR = ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def inspect(*arguments: object) -> str:
    done = CliRunner().invoke(inspect_command, list(map(str, arguments)), catch_exceptions=True)
    if isinstance(done.exception, EdgedError):
        raise done.exception
    assert done.exit_code == 0, done.exception
    return done.stdout


def row(output: str, first: str) -> str:
    """Return the one line that begins with ``first`` behind that, single-spaced."""
    (found,) = (line for line in output.splitlines() if line.startswith(f"{first} "))
    return " ".join(found[len(first) :].split())


# --- what the file holds ---------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_the_file_is_read_as_the_official_library_reads_it(models: Path, name: str) -> None:
    data = (models / f"{name}.tflite").read_bytes()
    expected = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    codes = {number: code for code, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    types = {number: kind for kind, number in vars(schema.TensorType).items() if isinstance(number, int)}

    graph = read_graph(data)

    assert graph.schema == expected.version
    assert graph.description == expected.description.decode()
    assert {key: (one.subgraph, dict(one.inputs), dict(one.outputs)) for key, one in graph.signatures.items()} == {
        one.signatureKey.decode(): (
            one.subgraphIndex,
            *({end.name.decode(): end.tensorIndex for end in side or ()} for side in (one.inputs, one.outputs)),
        )
        for one in expected.signatureDefs or ()
    }
    for subgraph, known in zip(graph.subgraphs, expected.subgraphs, strict=True):
        ends = [list(side if side is not None else ()) for side in (known.inputs, known.outputs)]
        assert [list(subgraph.inputs), list(subgraph.outputs)] == ends
        assert [operator.name for operator in subgraph.operators] == [
            codes[max(code.builtinCode, code.deprecatedBuiltinCode)]
            for code in (expected.operatorCodes[operator.opcodeIndex] for operator in known.operators)
        ]
        for tensor, one in zip(subgraph.tensors, known.tensors, strict=True):
            quantisation = one.quantization or schema.QuantizationParametersT()
            shape = one.shape if one.shapeSignature is None else one.shapeSignature
            assert tensor.name == one.name.decode()
            assert tensor.shape == tuple(shape if shape is not None else ())
            assert tensor.dtype == types[one.type].lower()
            assert tensor.variable == one.isVariable
            assert tensor.constant == (expected.buffers[one.buffer].data is not None)
            assert tensor.scales == tuple(quantisation.scale if quantisation.scale is not None else ())
            if tensor.scales:
                assert (tensor.zero_points, tensor.axis) == (
                    tuple(quantisation.zeroPoint),
                    quantisation.quantizedDimension,
                )


@pytest.mark.parametrize("name", GOOD)
def test_operators_are_named_as_the_runtime_names_them(models: Path, engine: Engine, name: str) -> None:
    """What delegates put in their place stands after them."""
    path = models / f"{name}.tflite"
    operators = read_graph(path.read_bytes()).subgraphs[0].operators

    nodes = Interpreter(engine, str(path)).nodes()

    assert [tuple(node) for node in nodes[: len(operators)]] == [tuple(operator) for operator in operators]
    assert {node.name for node in nodes[len(operators) :]} <= {"DELEGATE"}


@given(st.data())
def test_a_damaged_file_is_no_more_than_damaged(data: st.DataObject) -> None:
    """Whatever the bytes say, nothing outside the file is looked for."""
    content = bytearray(
        (STATEFUL / f"{data.draw(st.sampled_from(['counter', 'feedback', 'moving_sum']))}.tflite").read_bytes()
    )
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    for read in (read_graph, lambda damaged: find_state(damaged, None)):
        try:
            read(bytes(content))
        except (struct.error, IndexError):
            continue


def test_an_operator_newer_than_the_list_has_its_number(models: Path) -> None:
    data = (models / "odd/simple_add_dynamic_shape.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    model.operatorCodes[0].builtinCode = 5000
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")

    assert read_graph(bytes(builder.Output())).subgraphs[0].operators[0].name == "operator 5000"


# --- what people see -------------------------------------------------------------------------


def test_a_quantised_model_is_shown_with_its_tensors_and_operators(models: Path, engine: Engine) -> None:
    output = inspect(models / "kws/kws_ref_model.tflite", "--engine", engine.name)

    assert row(output, "size").startswith("53936 bytes, SHA-256 aeea436800704fce")
    assert row(output, "description") == "MLIR Converted."
    assert row(output, "needs") == "TFLite 1.5.0 or later"
    assert row(output, "runtime").startswith(f"{engine.name} {engine.version} (")
    assert row(output, "input_1") == "input int8 [?, 49, 10, 1] scale 0.584702909, zero point 83"
    assert row(output, "Identity") == "output int8 [?, 12] scale 0.00390625, zero point -128"
    assert row(output, "CONV_2D").startswith("5 ")
    assert "signature" not in output
    assert "functional_1" not in output, "other tensors are shown on demand"


def test_all_tensors_are_shown_on_demand(models: Path) -> None:
    output = inspect(models / "kws/kws_ref_model.tflite", "--tensors")

    weights = row(output, "functional_1/conv2d_4/Conv2D")
    assert weights.startswith("constant int8 [64, 1, 1, 64] per channel: 64 scales 0.0")
    assert weights.endswith("along axis 0")


def test_operators_that_xnnpack_runs_are_counted(models: Path, engine: Engine) -> None:
    whole = inspect(models / "magic_wand/magic_wand_float.tflite", "--engine", engine.name)
    assert row(whole, "XNNPACK") == "runs 7 of 7 operators"
    assert {row(whole, name) for name in ("SOFTMAX", "DEPTHWISE_CONV_2D")} == {"1 1"}

    part = inspect(models / "odd/mixed_input_model.tflite", "--engine", engine.name)
    assert row(part, "XNNPACK") == "runs 2 of 3 operators"
    assert (row(part, "CAST"), row(part, "ADD"), row(part, "MUL")) == ("1 0", "1 1", "1 1")


def test_signatures_are_shown_with_their_arguments(models: Path) -> None:
    output = inspect(models / "odd/multi_signature_model.tflite")

    assert row(output, "XNNPACK").startswith("runs 1 of 1 operators of the first subgraph")
    lines = [line.split() for line in output.splitlines()]
    for key in ("add", "mul", "sub"):
        assert [key, key, "a", "input", f"{key}_a:0"] in lines
        assert [key, key, "b", "input", f"{key}_b:0"] in lines
        assert [key, key.upper(), "1", "1" if key == "add" else "?"] in lines


@pytest.mark.parametrize(
    ("name", "state"), [("counter", "resource variables"), ("moving_sum", "variable tensors"), ("feedback", None)]
)
def test_state_is_shown(name: str, state: str | None) -> None:
    output = inspect(STATEFUL / f"{name}.tflite")

    if state is None:
        assert "\nstate " not in output
    else:
        assert row(output, "state") == state


def test_json_has_everything(models: Path) -> None:
    found: dict[str, Any] = json.loads(inspect(models / "gearbox/dnn_int8quantized.tflite", "--json"))

    (subgraph,) = found["subgraphs"]
    tensors = subgraph["tensors"]
    assert (found["size"], found["schema"], found["needs"], found["metadata"]) == (4352, 3, "1.14.0", None)
    assert found["runtime"].keys() == {"name", "version", "reason"}
    assert found["signatures"] == {
        "serving_default": {"subgraph": 0, "inputs": {"dense_10_input": 0}, "outputs": {"quant_dense_14": 16}}
    }
    assert (subgraph["inputs"], subgraph["outputs"], subgraph["state"]) == ([0], [16], [])
    assert [(one["name"], one["count"]) for one in subgraph["operators"]] == [("FULLY_CONNECTED", 5), ("SOFTMAX", 1)]
    assert len(tensors) == 17
    assert tensors[0]["shape"] == [None, 16]
    assert (tensors[0]["scales"], tensors[0]["zero_points"]) == ([pytest.approx(11.936451)], [-128])
    assert tensors[1]["constant"]


@pytest.mark.parametrize("name", GOOD)
def test_every_good_model_is_shown(models: Path, engine: Engine, name: str) -> None:
    path = models / f"{name}.tflite"
    found = json.loads(inspect(path, "--json", "--engine", engine.name))

    output = inspect(path, "--tensors", "--engine", engine.name)

    for subgraph in found["subgraphs"]:
        assert all(tensor["name"] in output for tensor in subgraph["tensors"])
        assert all(0 <= (one["xnnpack"] or 0) <= one["count"] for one in subgraph["operators"])


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("odd/lfs_pointer_har_int8.tflite", "is a Git LFS pointer"),
        ("odd/keras_lstm_mnist_ptq_edgetpu.tflite", "is compiled for the Edge TPU"),
        ("odd/with_custom_op.lite", "needs the custom operator 'Assign'"),
        ("odd/model_invoking_error.tflite", "needs the custom operator 'fake-op-double'"),
    ],
)
def test_a_bad_model_is_refused_in_plain_words(models: Path, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        inspect(models / name)


REFUSED = {
    ("FlexErf", "FlexRoll"): (
        "TensorFlow operators 'FlexErf', 'FlexRoll'",
        "supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]",
    ),
    ("FlexErf", "Mine"): ("TensorFlow operators 'FlexErf', 'Mine'", "SELECT_TF_OPS"),
    ("Mine", "Yours"): ("custom operators 'Mine', 'Yours'", "allow_custom_ops = False"),
    ("Mine", "ABS"): ("custom operator 'Mine'", "allow_custom_ops = False"),
    ("edgetpu-custom-op", "ABS"): ("is compiled for the Edge TPU", "edgetpu_compiler"),
}


@pytest.mark.parametrize("names", REFUSED, ids=" and ".join)
def test_what_the_runtime_lacks_is_named_with_the_converters_flag(
    engine: Engine, tmp_path: Path, names: tuple[str, str]
) -> None:
    """All operators that it lacks, not only the first; and the list of all operators is shown."""
    said, hint = REFUSED[names]
    tensors = [Values(name, [1, 3]) for name in ("x", "between", "y")]
    path = tmp_path / "m.tflite"
    path.write_bytes(build(tensors, [Step(names[0], [0], [1]), Step(names[1], [1], [2])], [0], [2]))

    done = CliRunner().invoke(inspect_command, [str(path), "--engine", engine.name])

    assert isinstance(done.exception, ModelError)
    assert said in done.exception.message
    assert hint in (done.exception.hint or "")
    assert [row(done.stdout, name) for name in names] == ["1 ?", "1 ?"]
    assert row(done.stdout, "x") == "input float32 [1, 3] none"


def test_an_operator_that_is_newer_than_the_runtime_is_named(engine: Engine, tmp_path: Path) -> None:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(identity((1, 3)), 0))
    for version, code, said in ((99, None, "operator RESHAPE in version 99"), (1, 500, "operator number 500")):
        model.operatorCodes[0].version = version
        model.operatorCodes[0].builtinCode = code or model.operatorCodes[0].builtinCode
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        (tmp_path / "m.tflite").write_bytes(builder.Output())

        with pytest.raises(ModelError, match=f"needs {said}, which is newer than the runtime"):
            inspect(tmp_path / "m.tflite", "--engine", engine.name)


@pytest.mark.parametrize("option", [["--card"], ["--publisher", "acme.pub"]])
def test_what_packages_alone_have_is_refused_for_a_model(models: Path, option: list[str]) -> None:
    with pytest.raises(UsageError, match="--card and --publisher are for packages"):
        inspect(models / "gearbox/dnn.tflite", *option)


# --- what its author wrote into it -----------------------------------------------------------


@pytest.fixture
def noted(models: Path, tmp_path: Path) -> Path:
    metadata = model_notes(
        [tensor_notes("picture", "what the camera sees", colours=1, mean=[127.5], std=[127.5])],
        [tensor_notes("probability", labels="labels.txt")],
        name="Objects", description="Ten kinds of objects", version="v1", author="somebody", license="Apache-2.0",
    )  # fmt: skip
    files = {"readme.txt": "nothing", "labels.txt": "\n".join(CIFAR) + "\n"}
    return with_metadata(models / "ic_resnet/pretrainedResnet.tflite", tmp_path / "noted.tflite", metadata, files)


def test_metadata_and_packed_labels_are_read(noted: Path, engine: Engine) -> None:
    notes = dissect(engine, noted).notes

    assert notes is not None
    assert notes[:5] == ("Objects", "Ten kinds of objects", "v1", "somebody", "Apache-2.0")
    (picture,), (probability,) = notes.inputs[0], notes.outputs[0]
    assert (picture.name, picture.description) == ("picture", "what the camera sees")
    assert (picture.picture, picture.mean, picture.std) == ("rgb", (127.5,), (127.5,))
    assert (probability.picture, probability.mean, probability.label_file) == (None, (), "labels.txt")
    assert probability.labels == CIFAR


def test_metadata_are_shown(noted: Path) -> None:
    output = inspect(noted)

    assert row(output, "about") == "Ten kinds of objects"
    assert row(output, "picture") == (
        "input what the camera sees; a picture, rgb; normalised by mean 127.5 and std 127.5"
    )
    assert row(output, "probability") == (
        "output 10 labels from labels.txt: airplane, car, bird, cat, deer, dog, frog, horse ..."
    )
    assert json.loads(inspect(noted, "--json"))["metadata"]["outputs"][0][0]["labels"] == list(CIFAR)


def test_labels_that_were_cut_off_are_missed_aloud(models: Path, tmp_path: Path) -> None:
    metadata = model_notes([], [tensor_notes("probability", labels="labels.txt")])
    path = with_metadata(models / "ic_resnet/pretrainedResnet.tflite", tmp_path / "cut.tflite", metadata)

    assert "labels from labels.txt, which is not packed to the model" in inspect(path)


def test_damaged_metadata_are_refused(models: Path, tmp_path: Path) -> None:
    path = with_metadata(models / "gearbox/dnn.tflite", tmp_path / "bad.tflite", b"\xff\xff\xff\x7f")

    with pytest.raises(ModelError, match="its TFLite metadata are damaged"):
        inspect(path)


@given(st.data())
def test_metadata_can_only_be_damaged(data: st.DataObject) -> None:
    metadata = bytearray(
        model_notes([tensor_notes("p", colours=1, mean=[1.0, 2.0], std=[1.0, 2.0])], [tensor_notes("q")], name="n")
    )
    for _ in range(data.draw(st.integers(1, 8))):
        metadata[data.draw(st.integers(0, len(metadata) - 1))] = data.draw(st.integers(0, 255))

    try:
        read_notes(Path("m.tflite"), bytes(metadata))
    except ModelError:
        return


def test_metadata_may_leave_everything_out() -> None:
    assert read_notes(Path("m.tflite"), flatbuffer({})) == ("", "", "", "", "", (), ())
