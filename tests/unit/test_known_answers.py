"""Real models, from a manifest and their own data alone: the accuracy or the answers that are known of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from edged.model.author import Author
from edged.model.dry_run import open_model, try_samples
from edged.model.runtime import choose
from edged.model.samples import Samples
from support.engines import ENGINES

Floats = npt.NDArray[np.float32]
Golden = dict[str, npt.NDArray[Any]]

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"

FEATURES = """
name = "m"
version = 1
[input]
channels = [{channels}]
[output]
kind = "{kind}"
{output}
""".replace("{channels}", ", ".join(f'"f{number}"' for number in range(16)))
DNN = FEATURES.format(kind="classifier", output='labels = ["healthy", "broken"]')
AUTOENCODER = FEATURES.format(kind="anomaly", output='labels = ["broken", "healthy"]\n[decide]\nenter = 0.01071137')
HEALTH = ["healthy", "broken"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def author(manifest: str, directory: Path) -> Author:
    """Return an example of the documentation by its file's name, or a manifest that is written out."""
    if manifest.endswith(".toml"):
        return Author.read(EXAMPLES / manifest)
    (directory / "m.toml").write_text(manifest)
    return Author.read(directory / "m.toml")


class Known(NamedTuple):
    """A model, its manifest, and which share of its own data it is known to get right."""

    model: str
    manifest: str
    samples: Callable[[Golden], tuple[Floats, list[str]]]
    share: float


def raw_windows(golden: Golden) -> tuple[Floats, list[str]]:
    return golden["raw_windows"], [HEALTH[y] for y in golden["raw_y"]]


def features(golden: Golden) -> tuple[Floats, list[str]]:
    """The dnn was trained on features as they are."""
    spread = golden["norm_max"] - golden["norm_min"]
    return golden["features_norm"] * spread + golden["norm_min"], [HEALTH[y] for y in golden["features_y"]]


def normalised(golden: Golden) -> tuple[Floats, list[str]]:
    return golden["features_norm"], [HEALTH[y] for y in golden["features_y"]]


def pixels(golden: Golden) -> tuple[Floats, list[str]]:
    """The file holds pixels as the int8 tensor does: less 128."""
    return golden["x"] + np.float32(128), list(golden["labels"])


def coefficients(golden: Golden) -> tuple[Floats, list[str]]:
    """The file holds the int8 tensor; scale and zero point are the model's."""
    names = [{"unkown": "unknown"}.get(label, label) for label in golden["labels"]]
    return (golden["x"] - np.float32(83)) * np.float32(0.58470290899), names


def gestures(golden: Golden) -> tuple[Floats, list[str]]:
    """The first window is all zeros, which is no gesture."""
    return golden["x"][1:], list(golden["names"][1:])


KNOWN = [
    Known("gearbox/dnn", "classifier.toml", raw_windows, 1.0),
    Known("gearbox/dnn_int8quantized", "classifier.toml", raw_windows, 1.0),
    Known("gearbox/dnn", DNN, features, 0.977),
    Known("gearbox/dnn_int8quantized", DNN, features, 0.98),
    Known("gearbox/autoencoder", AUTOENCODER, normalised, 0.9187),
    Known("gearbox/autoencoder_int8quantized", AUTOENCODER, normalised, 0.9142),
    Known("kws/kws_ref_model", "keywords.toml", coefficients, 1.0),
    Known("kws/kws_ref_model_float32", "keywords.toml", coefficients, 1.0),
    Known("ic_resnet/pretrainedResnet_quant", "pictures.toml", pixels, 1.0),
    Known("ic_resnet/pretrainedResnet", "pictures.toml", pixels, 1.0),
    Known("magic_wand/magic_wand_float", "gestures.toml", gestures, 1.0),
    Known("magic_wand/magic_wand_quant", "gestures.toml", gestures, 1.0),
]


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: f"{known.model}-{known.samples.__name__}")
def test_a_manifest_alone_gives_the_known_accuracy(known: Known, engine: str, models: Path, tmp_path: Path) -> None:
    folder = known.model.partition("/")[0]
    with np.load(models / folder / "golden.npz") as archive:
        values, right = known.samples({name: archive[name] for name in archive.files})
    chain = author(known.manifest, tmp_path)
    model = open_model(chain, models / f"{known.model}.tflite", choose(engine))

    tried = list(try_samples(model, chain, Samples(values.astype(np.float32), labels=tuple(right))))

    share = sum(one.best == one.right for one in tried) / len(right)
    assert len(tried) == len(right)
    assert round(share, 4) == pytest.approx(known.share, abs=0.0005)


def test_gestures_have_the_scores_that_are_known(engine: str, models: Path) -> None:
    with np.load(models / "magic_wand" / "golden.npz") as archive:
        values, expected = archive["x"], archive["y_quant"]
    chain = author("gestures.toml", models)
    model = open_model(chain, models / "magic_wand" / "magic_wand_quant.tflite", choose(engine))

    tried = list(try_samples(model, chain, Samples(values)))

    assert np.array([one.scores for one in tried]) == pytest.approx(expected, abs=1e-6)


def test_a_model_for_training_answers_through_its_signature(engine: str, models: Path) -> None:
    """y = wx + b, and nobody has trained w and b yet."""
    chain = author("regressor.toml", models)
    model = open_model(chain, models / "ondevice_training" / "training_model.tflite", choose(engine))

    zero, one, two = (model.scores(np.array([[x]], np.float32)).item() for x in (0.0, 1.0, 2.0))

    assert two - one == pytest.approx(one - zero, abs=1e-6)


def test_each_of_several_signatures_is_run(engine: str, models: Path, tmp_path: Path) -> None:
    """Ten rows of a and b; the model adds, multiplies or subtracts them."""
    columns = [f"{side}{number}" for side in "ab" for number in range(10)]
    a, b = np.full((10, 10), 6, np.float32), np.arange(100, dtype=np.float32).reshape(10, 10)
    expected = {"add": a + b, "mul": a * b, "sub": a - b}
    for signature, result in expected.items():
        chain = author(
            f"""
name = "m"
version = 1
[model]
signature = "{signature}"
[input]
channels = {columns}
[window]
size = 10
[tensors.a]
channels = {columns[:10]}
[tensors.b]
channels = {columns[10:]}
[output]
kind = "regressor"
""",
            tmp_path,
        )
        model = open_model(chain, models / "odd" / "multi_signature_model.tflite", choose(engine))

        assert model.scores(np.hstack((a, b))) == pytest.approx(result.reshape(-1))


def test_inputs_of_different_types_are_filled_from_one_window(engine: str, models: Path) -> None:
    chain = author("several-inputs.toml", models)
    model = open_model(chain, models / "odd" / "mixed_input_model.tflite", choose(engine))
    window = np.stack((np.arange(10), np.full(10, 0.5)), axis=1).astype(np.float32)

    assert model.scores(window) == pytest.approx(2 * (np.arange(10) + 0.5))


def test_a_batch_that_the_model_leaves_open_is_one_window(engine: str, models: Path, tmp_path: Path) -> None:
    rows = 128
    chain = author(
        f"""
name = "m"
version = 1
[input]
channels = ["a", "b", "c", "d"]
[window]
size = {rows}
[tensors.arg0]
[tensors.arg1]
[output]
kind = "regressor"
""",
        tmp_path,
    )
    model = open_model(chain, models / "odd" / "simple_add_dynamic_shape.tflite", choose(engine))
    window = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)

    assert model.scores(window) == pytest.approx(2 * window.reshape(-1))
