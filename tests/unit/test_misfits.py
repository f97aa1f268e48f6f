"""Manifests that fit no model, or not this one: refused with the key, and with both sizes where there are two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edged.base.errors import ConfigError, ModelError
from edged.cli import cli
from edged.model.author import Author
from edged.model.dry_run import open_model
from edged.model.runtime import choose
from edged.model.signal.chain import CompiledChain, shapes_for
from edged.model.signal.tensor import TensorInfo

FLOAT = np.dtype(np.float32)
STATE = Path(__file__).resolve().parents[1] / "models"

HEAD = 'name = "m"\nversion = 1\n'
ROW = HEAD + '[input]\nchannels = ["a", "b"]\nrate = "10 Hz"\n'
NUMBERS = ROW + '[output]\nkind = "regressor"\n'
LABELS = ROW + '[output]\nkind = "classifier"\nlabels = ["x", "y"]\n'
ANOMALY = ROW + '[output]\nkind = "anomaly"\nlabels = ["x", "y"]\n'
PICTURE = HEAD + '[output]\nkind = "regressor"\n[input]\nimage = { width = 8, height = 8 }\n'


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        # a chain that contradicts itself
        (NUMBERS + '[window]\nsize = "2 s"', "window.size: in time it holds now more rows, now fewer"),
        (NUMBERS + '[window]\nsize = "2 s"\nhop = 3', "window.hop: in rows or in time as window.size is"),
        (NUMBERS + '[window]\nsize = 5\nhop = "1 s"', "window.hop: in rows or in time as window.size is"),
        (NUMBERS + '[window]\nsize = "1 s"\nhop = "2 s"', "window.hop: above 0 and at most window.size, 1 s"),
        (NUMBERS.replace("10 Hz", '10 Hz"\nresample = "linear') + '[window]\nsize = "1 ms"', "window.size: at input.rate it holds 0 rows"),
        (NUMBERS.replace('rate = "10 Hz"', 'resample = "hold"'), "input.rate: wanted with input.resample"),
        (NUMBERS.replace('rate = "10 Hz"', 'gap = { over = "1 s", then = "fill" }'), "input.rate: wanted with input.gap.then = 'fill'"),
        (NUMBERS.replace('rate = "10 Hz"', 'outside = "clamp"'), "input.outside: nothing is outside without input.range"),
        (NUMBERS.replace('rate = "10 Hz"', 'join = { when = "any" }'), "input.join.within: wanted with when = 'any'"),
        (NUMBERS + '[features]\nuse = ["mean", "entropy"]', "features.use: unknown feature 'entropy'"),
        (NUMBERS + '[features]\nuse = ["band_energy"]', "features.use: band_energy needs bands"),
        (NUMBERS + '[features]\nuse = [{ name = "band_energy", bands = [[4, 2]] }]', "a band from 4.0 up to 2.0 holds no frequency"),
        (NUMBERS.replace('rate = "10 Hz"', "") + '[features]\nuse = [{ name = "band_energy", bands = [[0, 2]] }]', "input.rate: wanted with features in hertz"),
        (NUMBERS + '[features]\nuse = [{ name = "mean", taper = "hann" }]', "features.use: mean takes no taper"),
        (NUMBERS + '[normalise]\nmethod = "zscore"\nby = "whole"\nmean = 1.0', "normalise.mean: not known with method 'zscore' by 'whole'"),
        (NUMBERS + '[normalise]\nby = "whole"', "normalise.by: 'whole' needs method 'zscore' or 'minmax'"),
        (NUMBERS + '[tensors.t]\n[features]\nuse = ["mean"]', "tensors: features and normalise stand below each of them"),
        (NUMBERS + '[tensors.t]\nchannels = ["c"]', "tensors.t.channels: 'c' is none of input.channels"),
        (NUMBERS + '[model]\nreset = "gap"\nfeedback = { t = "o" }\n[tensors.t]', "tensors.t: model.feedback fills it already"),
        (NUMBERS + '[model]\nfeedback = { t = "o" }', "model.reset: 'message' or 'gap' with model.feedback"),
        (NUMBERS + "[model]\nthreads = 0", "model.threads: between 1 and 64"),
        (NUMBERS + '[decide]\nwatch = "x"', "decide: a regressor has decide.smooth alone"),
        (NUMBERS + '[decide]\nsmooth = { method = "majority", over = 3 }', "decide: a regressor has decide.smooth alone"),
        (NUMBERS + '[publish]\nwhen = "change"', "publish.by: wanted with publish.when = 'change'"),
        (NUMBERS + "[publish]\nby = 1.0", "publish.by: a number above 0, with publish.when = 'change'"),
        (NUMBERS + 'activation = "softmax"', "output.activation: a regressor has none"),
        (LABELS + "scale = 2.0", "output.scale: a classifier has none"),
        (LABELS + "top_k = 3", "output.top_k: of a classifier, between 1 and 5 of its labels"),
        (LABELS + "[publish]\nwhen = 'change'\nby = 1.0", "publish.by: for a regressor"),
        (LABELS + "[decide]\nenter = 0.7", "decide.watch: wanted with decide.enter"),
        (LABELS + "[decide]\nthresholds = { x = 0.7 }", "decide.thresholds and decide.otherwise go together"),
        (LABELS + '[decide]\nthresholds = { z = 0.7 }\notherwise = "x"', "decide.thresholds: 'z' is none of output.labels"),
        (LABELS + '[decide]\nwatch = "y"\nthresholds = { x = 0.7 }\notherwise = "x"', "decide.watch and decide.thresholds do not go together"),
        (LABELS + '[decide]\nsmooth = { method = "mean", over = 1 }', "decide.smooth.over: between 2 and 1000 windows"),
        (ANOMALY, "decide.enter: wanted: the error from which on it is an anomaly"),
        (ANOMALY + '[decide]\nenter = 1.0\nwatch = "x"', "decide: an anomaly detector watches 'y'"),
        (ANOMALY.replace(', "y"', ""), "output.labels: an anomaly detector has two, not 1"),
        (PICTURE + 'channels = ["r", "x"]', 'input.channels: with input.image, "r", "g" and "b"'),
        (PICTURE + 'channels = ["r"]\nrate = "1 Hz"', "input.image: a picture has no rate, gap or resample"),
        (PICTURE + 'channels = ["r"]\n[window]\nsize = 64', "window: with input.image, each picture is the window"),
        (PICTURE.replace("8,", "0,") + 'channels = ["r"]', "input.image: 0 x 8 is not between 1 and"),
    ],
)  # fmt: skip
def test_a_chain_that_contradicts_itself_is_refused_by_its_key(tmp_path: Path, manifest: str, said: str) -> None:
    (tmp_path / "m.toml").write_text(manifest)

    with pytest.raises(ConfigError) as caught:
        Author.read(tmp_path / "m.toml")

    assert said in caught.value.message


def tensors(*named: tuple[str, tuple[int, ...]]) -> list[TensorInfo]:
    return [TensorInfo(name, shape, FLOAT, extents=shape) for name, shape in named]


@pytest.mark.parametrize(
    ("manifest", "inputs", "outputs", "said"),
    [
        (NUMBERS, [("i", (1, 3))], [("o", (1,))], "window.size x input.channels gives 2 values, the model's input (1, 3) takes 3"),
        (NUMBERS, [("i", (1, 2)), ("j", (1, 2))], [("o", (1,))], "tensors: the model has 2 inputs to fill: 'i', 'j'"),
        (NUMBERS + "[tensors.i]", [("i", (1, 2)), ("j", (1, 2))], [("o", (1,))], "tensors.j: missing: nothing fills this input"),
        (NUMBERS + "[tensors.k]", [("i", (1, 2))], [("o", (1,))], "tensors: the model has no input 'k'"),
        (NUMBERS + '[tensors.i]\nchannels = ["b"]', [("i", (1, 2))], [("o", (1,))], "tensors.i: window.size x channels gives 1 values, the model's input (1, 2) takes 2"),
        (NUMBERS, [("i", (1, 2))], [("o", (1,)), ("p", (1,))], "model.output: wanted: the model has 2 outputs"),
        (NUMBERS + '[model]\noutput = "q"', [("i", (1, 2))], [("o", (1,))], "model.output: the model has no output 'q'"),
        (NUMBERS + '[model]\nreset = "gap"\nfeedback = { s = "q" }', [("i", (1, 2)), ("s", (1,))], [("o", (1,))], "model.feedback: the model has no output 'q'"),
        (NUMBERS + '[model]\nreset = "gap"\nfeedback = { z = "o" }', [("i", (1, 2))], [("o", (1,))], "model.feedback: the model has no input 'z'"),
        (NUMBERS + '[model]\nreset = "gap"\nfeedback = { s = "o" }', [("i", (1, 2)), ("s", (1, 4))], [("o", (1,)), ("p", (1,))], "model.feedback: 'o' (1,) float32 does not fit into 's' (1, 4) float32"),
        (LABELS, [("i", (1, 2))], [("o", (1, 7))], "output.labels names 2 labels, the model's output (1, 7) has 7"),
        (ANOMALY + "[decide]\nenter = 1.0", [("i", (1, 2))], [("o", (1, 3))], "an anomaly detector gives back its input of 2 values, this output (1, 3) has 3"),
        (PICTURE + 'channels = ["g"]', [("i", (1, 8, 8, 3))], [("o", (1,))], "input.image x input.channels gives 64 values, the model's input (1, 8, 8, 3) takes 192"),
    ],
)  # fmt: skip
def test_a_chain_that_does_not_fit_its_model_is_refused_with_both_sizes(
    tmp_path: Path,
    manifest: str,
    inputs: list[tuple[str, tuple[int, ...]]],
    outputs: list[tuple[str, tuple[int, ...]]],
    said: str,
) -> None:
    (tmp_path / "m.toml").write_text(manifest)
    chain = Author.read(tmp_path / "m.toml")

    with pytest.raises(ModelError) as caught:
        CompiledChain(chain, tensors(*inputs), tensors(*outputs))

    assert said in caught.value.message


@pytest.mark.parametrize(
    ("model", "manifest", "said"),
    [
        ("counter", NUMBERS.replace(', "b"', ""), "model.reset: 'window' would load the model anew each time"),
        ("counter", NUMBERS.replace(', "b"', "") + '[model]\nsignature = "sub"', "has no signature 'sub'"),
        ("feedback", NUMBERS.replace(', "b"', ""), "tensors: the model has 2 inputs to fill: 'state', 'x'"),
    ],
)
def test_a_real_model_is_refused_by_try_and_pack_alike(tmp_path: Path, model: str, manifest: str, said: str) -> None:
    weights = STATE / f"{model}.tflite"
    (tmp_path / "m.toml").write_text(manifest)
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 1), np.float32))
    with pytest.raises(ModelError) as caught:
        open_model(Author.read(tmp_path / "m.toml"), weights, choose("auto"))
    assert said in caught.value.message

    done = CliRunner().invoke(cli, ["try", str(weights), "-m", str(tmp_path / "m.toml"), "-i", str(tmp_path / "x.npz")])

    assert isinstance(done.exception, ModelError)
    assert said in done.exception.message


@pytest.mark.parametrize(
    ("extents", "values", "shape"),
    [
        ((-1, 16), 16, (1, 16)),
        ((-1, 16), 32, (1, 16)),  # two windows are no batch: the misfit is named later
        ((-1, -1, 4), 40, (1, 10, 4)),
        ((1, -1), 7, (1, 7)),
        ((-1,), 5, (5,)),
        ((-1, -1, -1), 6, (1, 1, 6)),
        ((1, -1, 3), 7, (1, 1, 3)),
    ],
)
def test_a_size_that_the_model_leaves_open_is_filled_by_the_window(
    tmp_path: Path, extents: tuple[int, ...], values: int, shape: tuple[int, ...]
) -> None:
    (tmp_path / "m.toml").write_text(NUMBERS.replace('["a", "b"]', str([f"c{number}" for number in range(values)])))
    chain = Author.read(tmp_path / "m.toml")
    stated = tuple(1 if extent < 0 else extent for extent in extents)

    assert shapes_for(chain, [TensorInfo("i", stated, FLOAT, extents=extents)]) == [shape]
