"""`edged manifest`: what it writes is a manifest, and fits the model that it was written for."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edged.base.errors import EdgedError, ModelError, OutputError
from edged.cli.author import manifest_command
from edged.formats.channel.result_encoder import ResultEncoder
from edged.formats.spec import Chain
from edged.model import toml
from edged.model.author import Author
from edged.model.draft import choose_signature
from edged.model.draft_normalise import Range, write_normalise
from edged.model.draft_tables import guess_input, last_operator, write_inputs, write_output
from edged.model.dry_run import open_model
from edged.model.runtime import Engine, choose
from edged.model.runtime.graph import Graph, GraphSignature, Operator, Subgraph
from edged.model.runtime.metadata import TensorNotes
from edged.model.signal.chain import CompiledChain
from edged.model.signal.tensor import TensorInfo
from support.notes import model_notes, tensor_notes, with_metadata
from support.real_models import GOOD
from support.tiny import Step, Values, build, identity

STATEFUL = Path(__file__).parents[1] / "models"
LABELS = ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HEAD = 'name = "m"\nversion = 1\n'


def manifest(*arguments: object) -> str:
    done = CliRunner().invoke(manifest_command, list(map(str, arguments)))
    if isinstance(done.exception, EdgedError):
        raise done.exception
    assert done.exit_code == 0, done.exception
    return done.stdout


def written(model: Path, directory: Path, *options: object) -> Author:
    manifest(model, "-o", directory / "m.toml", *options)
    return Author.read(directory / "m.toml")


# --- real models -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_what_is_written_is_taken_and_fits_the_model(models: Path, engine: Engine, tmp_path: Path, name: str) -> None:
    """As `edged try` and `edged pack` take it: it answers a window, and a result has room for that."""
    author = written(models / f"{name}.tflite", tmp_path)
    weights = author.weights_path(tmp_path, None)

    model = open_model(author, weights, engine)
    scores = model.scores(np.ones((author.rows or 1, len(author.input.channels)), np.float32))
    model.close()

    assert weights.samefile(models / f"{name}.tflite")
    assert len(scores) == model.outputs
    ResultEncoder.of(author, author.name, author.version, bytes(32), outputs=model.outputs, tune={})


@pytest.mark.parametrize(
    ("name", "window", "channels", "kind", "outputs"),
    [
        ("gearbox/dnn", 1, 16, "classifier", 2),
        ("gearbox/dnn_int8quantized", 1, 16, "classifier", 2),
        ("gearbox/autoencoder", 1, 16, "anomaly", 2),
        ("gearbox/autoencoder_int8quantized", 1, 16, "anomaly", 2),
        ("magic_wand/magic_wand_quant", 128, 3, "classifier", 4),
        ("kws/kws_ref_model", 49, 10, "classifier", 12),
        ("ic_resnet/pretrainedResnet", 1024, 3, "classifier", 10),
        ("ondevice_training/training_model", 1, 1, "regressor", 0),
        ("odd/mixed_input_model", 1, 20, "classifier", 10),
        ("odd/simple_add_dynamic_shape", 128, 8, "regressor", 0),
    ],
)
def test_shapes_say_what_goes_in_and_comes_out(
    models: Path, tmp_path: Path, name: str, window: int, channels: int, kind: str, outputs: int
) -> None:
    author = written(models / f"{name}.tflite", tmp_path)

    found = (author.rows, len(author.input.channels), author.output.kind, len(author.output.labels))
    assert found == (window, channels, kind, outputs)
    assert author.output.activation == ("softmax" if name == "odd/mixed_input_model" else "none")


def test_a_picture_is_one(models: Path, tmp_path: Path) -> None:
    author = written(models / "ic_resnet/pretrainedResnet_quant.tflite", tmp_path)

    assert author.input.image is not None
    assert (author.input.image.width, author.input.image.height) == (32, 32)
    assert author.input.channels == ("r", "g", "b")


def test_quantisation_is_told_in_a_comment(models: Path) -> None:
    assert "# It takes 'input_1': int8 [?, 49, 10, 1], which stands for -123.372 to 25.7269 in steps of" in manifest(
        models / "kws/kws_ref_model.tflite"
    )


def test_the_signature_for_inference_is_stated(models: Path, tmp_path: Path) -> None:
    author = written(models / "ondevice_training/training_model.tflite", tmp_path)

    assert author.model.signature == "infer"
    assert "# others: get_weights, set_weights, train\n" in (tmp_path / "m.toml").read_text()


def test_another_signature_is_taken_by_name(models: Path, engine: Engine, tmp_path: Path) -> None:
    path = models / "odd/multi_signature_model.tflite"
    author = written(path, tmp_path, "--signature", "mul")
    model = open_model(author, path, engine)

    window = np.concatenate([np.full((10, 10), 7, np.float32), np.full((10, 10), 3, np.float32)], axis=1)
    assert (model.scores(window) == 21).all()
    model.close()
    with pytest.raises(ModelError, match=r"model\.signature: .* has no signature 'div'"):
        manifest(path, "--signature", "div")
    assert "signature =" not in manifest(models / "gearbox/dnn.tflite"), "its only one is the main subgraph's"


@pytest.mark.parametrize("name", ["counter", "feedback", "moving_sum"])
def test_state_is_kept_as_the_model_keeps_it(engine: Engine, tmp_path: Path, name: str) -> None:
    author = written(STATEFUL / f"{name}.tflite", tmp_path)
    model = open_model(author, STATEFUL / f"{name}.tflite", engine)

    assert model.scores(np.ones((1, 1), np.float32)).tolist() == [1.0]
    model.close()
    assert author.model.reset == ("window" if name == "moving_sum" else "gap")
    assert bool(author.model.feedback) == (name == "feedback")
    assert author.output.kind == "regressor"


@pytest.mark.parametrize("name", ["lfs_pointer_har_int8.tflite", "with_custom_op.lite"])
def test_a_bad_model_is_refused(models: Path, name: str) -> None:
    with pytest.raises(ModelError, match=name):
        manifest(models / "odd" / name)


def test_nothing_is_overwritten(models: Path, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text("mine")

    with pytest.raises(OutputError, match="exists already"):
        manifest(models / "gearbox/dnn.tflite", "-o", tmp_path / "m.toml")

    assert (tmp_path / "m.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "name"),
    [("Grüße an alle (3).tflite", "gr-e-an-alle-3"), ("__x.tflite", "x"), ("Ä.tflite", "model"), ("a" * 80, "a" * 64)],
)
def test_the_file_s_name_becomes_a_name(models: Path, tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).write_bytes((models / "gearbox/dnn.tflite").read_bytes())

    assert written(tmp_path / file, tmp_path).name == name


def test_the_model_is_found_from_where_the_manifest_stands(models: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()

    manifest(models / "gearbox/dnn.tflite", "-o", tmp_path / "site" / "m.toml")

    file = Author.read(tmp_path / "site" / "m.toml").model.file
    assert file == os.path.relpath(models / "gearbox/dnn.tflite", tmp_path / "site")


# --- what the author of the model wrote into it ----------------------------------------------


def test_labels_and_normalisation_come_from_metadata(models: Path, engine: Engine, tmp_path: Path) -> None:
    metadata = model_notes(
        [tensor_notes("picture", colours=1, mean=[123.0, 117.0, 104.0], std=[58.0])],
        [tensor_notes("probability", labels="labels.txt")],
        description='Ten "kinds"\nof objects', license="Apache-2.0",
    )  # fmt: skip
    path = with_metadata(
        models / "ic_resnet/pretrainedResnet.tflite", tmp_path / "m.tflite", metadata, {"labels.txt": "\n".join(LABELS)}
    )

    author = written(path, tmp_path)

    assert author.output.labels == LABELS
    assert (author.summary, author.license) == ('Ten "kinds" of objects', "Apache-2.0")
    assert author.normalise.method == "zscore"
    assert (author.normalise.mean, author.normalise.std) == ((123.0, 117.0, 104.0), 58.0)
    open_model(author, path, engine).close()


@pytest.mark.parametrize(
    "lines", [LABELS[:9], (*LABELS[:9], LABELS[0]), (*LABELS[:9], "x" * 41)], ids=["few", "twice", "long"]
)
def test_labels_that_a_manifest_cannot_have_are_left_to_the_author(
    models: Path, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    metadata = model_notes([], [tensor_notes("probability", labels="labels.txt")])
    path = with_metadata(
        models / "ic_resnet/pretrainedResnet.tflite", tmp_path / "m.tflite", metadata, {"labels.txt": "\n".join(lines)}
    )

    assert written(path, tmp_path).output.labels == tuple(f"class_{number}" for number in range(10))


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (LABELS[:9], "9 labels for 10 outputs"),
        ((*LABELS[:9], LABELS[0]), "'airplane' stands there more than once"),
        ((*LABELS[:9], "x" * 41), "is longer than 40 bytes"),
        (None, "0 labels for 10 outputs"),
    ],
)
def test_a_draft_says_why_it_does_not_use_the_labels_that_inspect_shows(
    models: Path, tmp_path: Path, lines: tuple[str, ...] | None, why: str
) -> None:
    metadata = model_notes([], [tensor_notes("probability", labels="labels.txt")])
    files = {} if lines is None else {"labels.txt": "\n".join(lines)}
    path = with_metadata(models / "ic_resnet/pretrainedResnet.tflite", tmp_path / "m.tflite", metadata, files)

    said = " ".join(line.removeprefix("# ") for line in manifest(path).splitlines() if line.startswith("#"))

    assert "Not used: its labels from labels.txt: " in said
    assert why in said


def test_labels_of_values_are_no_labels_of_outputs() -> None:
    """TENSOR_VALUE_LABELS: a detector's output of ten class numbers beside ten labels."""
    notes = TensorNotes("x", "", None, (), (), "labels.txt", LABELS, by_value=True)

    lines = "\n".join(write_output([], tensor("y", 1, 10), notes, "SOFTMAX"))

    assert "they name the values that it gives" in lines
    assert '"class_0"' in lines


def test_the_output_with_labels_is_the_answer(tmp_path: Path) -> None:
    two = dense_pair(4, 3)
    (tmp_path / "two.tflite").write_bytes(two)
    metadata = model_notes([], [tensor_notes("embedding"), tensor_notes("class", labels="l.txt")])
    path = with_metadata(tmp_path / "two.tflite", tmp_path / "m.tflite", metadata, {"l.txt": "a\nb\nc"})

    author = written(path, tmp_path)

    assert author.output.labels == ("a", "b", "c")
    open_model(author, path, choose("auto")).close()


def dense_pair(first: int, second: int) -> bytes:
    """Return a model that gives the first values of its input, and all of them."""
    options = schema.ReshapeOptionsT()
    options.newShape = [1, first]
    inputs = Values("x", [1, first])
    begin, size = (
        Values(name, [2], "int32", data=np.array(to, np.int32)) for name, to in (("b", [0, 0]), ("s", [1, second]))
    )
    shape = Values("shape", [2], "int32", data=np.array([1, first], np.int32))
    tensors = [inputs, shape, begin, size, Values("all", [1, first]), Values("few", [1, second])]
    steps = [Step("RESHAPE", [0, 1], [4], ("ReshapeOptions", options)), Step("SLICE", [0, 2, 3], [5])]
    return build(tensors, steps, [0], [4, 5])


def test_damaged_metadata_keep_nobody_from_a_manifest(models: Path, engine: Engine, tmp_path: Path) -> None:
    """The model runs, and a manifest written by hand would do."""
    path = with_metadata(models / "gearbox/dnn.tflite", tmp_path / "bad.tflite", b"\xff\xff\xff\x7f")

    author = written(path, tmp_path)

    open_model(author, path, engine).close()
    assert "# Nothing of its author's notes is used:" in (tmp_path / "m.toml").read_text()


# --- pictures that are quantised --------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "ends"),
    [
        ("int8", 1 / 255, -128, (0, 1)),
        ("uint8", 1 / 255, 0, (0, 1)),
        ("int8", 1 / 127.5, -1, (-1, 1)),
        ("uint8", 1 / 128, 128, (-1, 1)),
        ("int8", 0.0035, -128, (0, 1)),
        ("int8", 1.0, -128, (0, 255)),
        ("uint8", 0.0, 0, (0, 255)),
        ("uint8", 4.76 / 255, 113, (-2.11, 2.65)),
    ],
)
def test_a_quantised_pictures_colours_become_what_its_tensor_holds(
    engine: Engine, tmp_path: Path, dtype: str, scale: float, zero_point: int, ends: tuple[float, float]
) -> None:
    """Without it nearly all pixels would be clipped to the highest integer."""
    path = tmp_path / "picture.tflite"
    path.write_bytes(identity((1, 16, 16, 3), (1, 768), dtype, scale=scale, zero_point=zero_point))

    author = written(path, tmp_path)
    model = open_model(author, path, engine)
    black, white = (model.prepare(np.full((256, 3), colour, np.float32)).values for colour in (0, 255))
    clipped = model.prepare(np.tile(np.arange(256, dtype=np.float32)[:, None], (1, 3))).tensors[0]
    model.close()

    assert (black.flat[0], white.flat[0]) == pytest.approx(ends, abs=0.02)
    assert len(np.unique(clipped)) >= 128, "halves go to even"
    assert (clipped == clipped.max()).mean() < 0.2


def test_a_picture_that_is_quantised_inside_the_model_is_normalised_alike(engine: Engine, tmp_path: Path) -> None:
    """As converters make them by default: float32 outside, int8 behind a QUANTIZE."""
    tensors = [
        Values("x", [1, 16, 16, 3]),
        Values("q", [1, 16, 16, 3], "int8", 1 / 255, -128),
        Values("y", [1, 16, 16, 3]),
    ]
    (tmp_path / "m.tflite").write_bytes(
        build(tensors, [Step("QUANTIZE", [0], [1]), Step("DEQUANTIZE", [1], [2])], [0], [2])
    )

    author = written(tmp_path / "m.tflite", tmp_path)

    assert (author.normalise.method, author.normalise.min, author.normalise.max) == ("minmax", 0.0, 255.0)
    open_model(author, tmp_path / "m.tflite", engine).close()


@pytest.mark.parametrize(
    ("mean", "std", "used"),
    [((127.5,), (127.5,), True), ((0.0,), (1.0,), False), ((0.0,), (255.0,), True), ((1.0,) * 4, (1.0,), False)],
)
def test_notes_that_the_tensor_cannot_hold_are_not_used(
    mean: tuple[float, ...], std: tuple[float, ...], *, used: bool
) -> None:
    """Old quantised models say mean 0, std 1, and mean that tools hand the bytes over as they are."""
    notes = TensorNotes("x", "", "rgb", mean, std, "", ())

    lines = "\n".join(write_normalise("normalise", notes, 3, Range(-1.0, 1.0), picture=True))

    assert ("not used" not in lines) is used
    assert ("A guess" in lines) is not used


# --- what a manifest by hand can run ----------------------------------------------------------


def test_a_picture_beside_other_inputs_is_drafted_as_rows(engine: Engine, tmp_path: Path) -> None:
    tensors = [Values("pixels", [1, 16, 16, 3]), Values("more", [1, 3]), Values("y", [1, 16, 16, 3])]
    (tmp_path / "m.tflite").write_bytes(
        build(tensors, [Step("ADD", [0, 1], [2], ("AddOptions", schema.AddOptionsT()))], [0, 1], [2])
    )

    author = written(tmp_path / "m.tflite", tmp_path)
    model = open_model(author, tmp_path / "m.tflite", engine)

    assert model.scores(np.ones((256, len(author.input.channels)), np.float32)).shape == (768,)
    model.close()


def test_more_scores_than_a_result_holds_are_left_out(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(identity((1, 70, 70)))

    author = written(tmp_path / "m.tflite", tmp_path)

    model = open_model(author, tmp_path / "m.tflite", engine)
    author_of_results = ResultEncoder.of(author, author.name, 1, bytes(32), outputs=model.outputs, tune={})
    assert author_of_results is not None
    model.close()


# --- guesses, one by one ---------------------------------------------------------------------


def tensor(name: str, *shape: int, dtype: str = "float32", scale: float = 0.0, zero_point: int = 0) -> TensorInfo:
    return TensorInfo(name, shape, np.dtype(dtype), scale, zero_point, shape)


def chain(inputs: Sequence[TensorInfo], output: TensorInfo, operator: str = "") -> Chain:
    """Return what is guessed for such a model, as it is read."""
    parts = [guess_input(one, None) for one in inputs]
    lines = [*write_inputs(parts), *write_output(parts, output, None, operator)]
    found: dict[str, Any] = tomllib.loads("\n".join(lines))
    return msgspec.convert(found, Chain)


@pytest.mark.parametrize(
    ("shape", "rows", "channels"),
    [
        ((), 1, 1),
        ((7,), 1, 7),
        ((1, 7), 1, 7),
        ((7, 5), 7, 5),
        ((1, 7, 5), 7, 5),
        ((1, 7, 5, 1), 7, 5),
        ((1, 7, 1), 7, 1),
        ((1, 1, 5), 1, 5),
        ((1, 49, 10, 1), 49, 10),
        ((1, 4, 3, 2), 12, 2),
        ((1, 16000), 16000, 1),
        ((1, 8, 8, 3), 64, 3),
    ],
)
def test_an_input_is_rows_of_channels(shape: tuple[int, ...], rows: int, channels: int) -> None:
    part = guess_input(tensor("x", *shape), None)

    assert (part.rows, part.channels, part.size) == (rows, channels, None)


@pytest.mark.parametrize(
    ("shape", "size", "channels"),
    [
        ((1, 96, 64, 3), (64, 96), ("r", "g", "b")),
        ((1, 28, 28, 1), (28, 28), ("grey",)),
        ((9, 9, 3), (9, 9), ("r", "g", "b")),
    ],
)
def test_an_input_is_a_picture(shape: tuple[int, ...], size: tuple[int, int], channels: tuple[str, ...]) -> None:
    found = chain([tensor("x", *shape)], tensor("y", 1, 2))

    assert found.input.image is not None
    assert ((found.input.image.width, found.input.image.height), found.input.channels) == (size, channels)


def test_metadata_know_a_picture_better_than_its_shape() -> None:
    notes = TensorNotes("x", "", "grey", (), (), "", ())

    assert guess_input(tensor("x", 1, 49, 10, 1), None).size is None
    assert guess_input(tensor("x", 1, 49, 10, 1), notes).size == (10, 49)


@pytest.mark.parametrize(
    ("output", "operator", "kind", "labels"),
    [
        ((1, 3), "SOFTMAX", "classifier", 3),
        ((1, 3), "FULLY_CONNECTED", "classifier", 3),
        ((3,), "LOGISTIC", "classifier", 3),
        ((1, 4), "SOFTMAX", "classifier", 4),
        ((1, 4), "LOGISTIC", "anomaly", 2),
        ((1, 1), "FULLY_CONNECTED", "regressor", 0),
        ((), "", "regressor", 0),
        ((1, 1), "LOGISTIC", "classifier", 1),
        ((1, 5, 3), "CONV_2D", "regressor", 0),
        ((1, 1025), "SOFTMAX", "regressor", 0),
    ],
)
def test_an_output_is_what_its_shape_and_last_operator_say(
    output: tuple[int, ...], operator: str, kind: str, labels: int
) -> None:
    found = chain([tensor("x", 1, 4)], tensor("y", *output), operator)

    assert (found.output.kind, len(found.output.labels)) == (kind, labels)
    assert found.output.activation == ("softmax" if operator == "FULLY_CONNECTED" and kind == "classifier" else "none")


def test_one_probability_holds_from_a_threshold_on() -> None:
    found = chain([tensor("x", 1, 4)], tensor("y", 1, 1), "LOGISTIC")

    assert found.decide is not None
    assert (dict(found.decide.thresholds), found.decide.otherwise) == ({"class_1": 0.5}, "none")


SHAPES = st.lists(st.integers(1, 12), max_size=4)


@given(st.lists(SHAPES, min_size=1, max_size=3), SHAPES, st.sampled_from(["SOFTMAX", "LOGISTIC", "ADD", ""]))
def test_whatever_the_shapes_the_guess_fits_them(inputs: list[list[int]], output: list[int], operator: str) -> None:
    tensors = [tensor(f"in:{number}", *shape) for number, shape in enumerate(inputs)]
    target = tensor("out", *output)
    found = chain(tensors, target, operator)

    compiled = CompiledChain(found, tensors, [target])

    prepared = compiled.prepare(np.ones((found.rows or 1, len(found.input.channels)), np.float32))
    assert [one.shape for one in prepared.tensors] == [one.shape for one in tensors]


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ([("SOFTMAX", 0, 9)], "SOFTMAX"),
        ([("SOFTMAX", 0, 1), ("DEQUANTIZE", 1, 9)], "SOFTMAX"),
        ([("LOGISTIC", 0, 1), ("QUANTIZE", 1, 2), ("RESHAPE", 2, 9)], "LOGISTIC"),
        ([("QUANTIZE", 0, 9)], "QUANTIZE"),
        ([("RESHAPE", 9, 9)], "RESHAPE"),
        ([], ""),
    ],
)
def test_the_last_operator_is_that_behind_conversions(operators: list[tuple[str, int, int]], expected: str) -> None:
    nodes = tuple(Operator(name, (goes_in,), (comes_out,)) for name, goes_in, comes_out in operators)

    assert last_operator(Subgraph("", (), nodes, (0,), (9,)), 9) == expected


def graph(**signatures: GraphSignature) -> Graph:
    return Graph(3, "", (), signatures, {})


def test_a_signature_is_chosen_by_its_name_then_by_its_subgraph() -> None:
    main, other, silent = (
        GraphSignature(0, {"x": 0}, {"y": 1}),
        GraphSignature(1, {"x": 0}, {"y": 1}),
        GraphSignature(0, {}, {"w": 0}),
    )

    assert choose_signature(graph()) is None
    assert choose_signature(graph(anything=main)) is None
    assert choose_signature(graph(anything=other)) == "anything"
    assert choose_signature(graph(train=main, serving_default=other)) == "serving_default"
    assert choose_signature(graph(first=other, second=main)) == "second"
    assert choose_signature(graph(weights=silent, first=other)) == "first"
    with pytest.raises(ModelError, match=r"model\.signature: none of the model's takes and gives something"):
        choose_signature(graph(weights=silent))
    main_graph = Subgraph("", (), (), (0,), (1,))
    assert choose_signature(graph(weights=silent)._replace(subgraphs=(main_graph,))) is None, (
        "the main subgraph can be asked"
    )


# --- TOML ------------------------------------------------------------------------------------


@given(st.text(), st.lists(st.text()), st.text())
def test_what_is_written_is_read_back(key: str, values: list[str], remark: str) -> None:
    lines = [
        *toml.remark(remark),
        f"[{toml.key(key)}]",
        *toml.assign("values", list(map(toml.text, values)), toml.line(remark)),
    ]

    assert tomllib.loads("\n".join(lines)) == {key: {"values": values}}
