"""Trained weights become the model's first ones, in the file's own bytes; both runtimes then answer with them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import FormatError, ModelError
from edged.federated.fit import fit
from edged.federated.trainer import Trainer
from edged.federated.weights import Weights, digest, initial_weights, rewritten, shapes
from edged.model.author import Author
from edged.model.dry_run import check_weights, open_model
from edged.model.runtime import Engine, Interpreter
from support import vibration

FOLDER = Path(__file__).parent / "models"
MODELS = [*sorted(FOLDER.glob("*.tflite")), vibration.WEIGHTS, vibration.ANOMALY_WEIGHTS]
SMALL = (FOLDER / "detector.tflite").read_bytes()


def drawn(data: bytes) -> Weights:
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes(data)]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_the_file_and_the_runtime_agree_on_the_first_weights(path: Path, engine: Engine) -> None:
    trainer = Trainer(path, engine)

    assert shapes(path.read_bytes()) == trainer.shapes
    assert digest(initial_weights(path.read_bytes())) == digest(trainer.weights())


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_rewritten_model_answers_as_one_that_was_given_the_weights(path: Path, engine: Engine) -> None:
    data = path.read_bytes()
    weights = drawn(data)
    given, made = Trainer(path, engine), Trainer(rewritten(data, weights), engine)
    x = np.random.default_rng(2).normal(size=(5, *given.inputs)).astype(np.float32)
    before = given.infer(x)
    given.use(weights)

    assert np.array_equal(made.infer(x), given.infer(x))
    assert not np.array_equal(made.infer(x), before)
    assert digest(made.weights()) == digest(weights)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_nothing_but_the_weights_changes(path: Path) -> None:
    data = path.read_bytes()
    weights = initial_weights(data)
    changed = rewritten(data, drawn(data))

    assert rewritten(data, weights) == data
    assert rewritten(changed, weights) == data
    assert len(changed) == len(data)
    assert sum(one != other for one, other in zip(data, changed, strict=True)) <= sum(4 * each.size for each in weights)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_weights_that_are_not_finite_do_not_get_into_a_model(wrong: float) -> None:
    weights = drawn(SMALL)
    weights[0][0, 0] = wrong
    with pytest.raises(FormatError, match="weight 0 holds values that are not finite"):
        rewritten(SMALL, weights)


def test_weights_of_another_model_do_not_get_into_a_model() -> None:
    with pytest.raises(FormatError, match="weights where the model has 4"):
        rewritten(SMALL, drawn(vibration.WEIGHTS.read_bytes()))


def test_a_model_without_weights_that_can_be_set_is_refused(models: Path) -> None:
    with pytest.raises(ModelError, match="has no signature 'get_weights'"):
        initial_weights((models / "gearbox/dnn.tflite").read_bytes())


def test_a_model_that_gives_its_weights_by_other_names_is_refused(models: Path) -> None:
    with pytest.raises(ModelError, match=r"signature 'get_weights'"):
        initial_weights((models / "ondevice_training/training_model.tflite").read_bytes())


# --- damage ----------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_within_its_bounds(data: st.DataObject) -> None:
    """Whatever bytes change: an error of ours, or weights of the file, never a crash and never bytes beyond it."""
    damaged = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        found = initial_weights(bytes(damaged))
        changed = rewritten(bytes(damaged), [np.zeros(each.shape, np.float32) for each in found])
    except (ModelError, FormatError):
        return
    assert len(changed) == len(damaged)


@pytest.mark.parametrize("size", [0, 3, 8, 100, 1000, len(SMALL) // 2, len(SMALL) - 1])
def test_a_truncated_file_is_refused(size: int) -> None:
    with pytest.raises(ModelError):
        initial_weights(SMALL[:size])


@given(st.binary(max_size=300))
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        initial_weights(data[:4] + b"TFL3" + data[4:])


# --- as a model of a board -------------------------------------------------------------------


@pytest.fixture
def author() -> Author:
    return Author.read(vibration.MANIFEST)


@pytest.mark.parametrize("manifest", [vibration.MANIFEST, vibration.ANOMALY_MANIFEST], ids=lambda path: path.stem)
def test_the_example_fits_its_manifest_and_answers_its_self_test(manifest: Path) -> None:
    """These are the questions of `edged pack` before it seals."""
    author = Author.read(manifest)
    check_weights(author, vibration.FOLDER, author.weights_path(vibration.FOLDER, None))


def test_weights_that_can_be_trained_are_no_state_that_a_model_remembers(author: Author, engine: Engine) -> None:
    """Only `set_weights` assigns them, and answering goes through `infer`: nothing is refused or loaded anew."""
    interpreter = Interpreter(engine, str(vibration.WEIGHTS), signature="infer")
    model = open_model(author, vibration.WEIGHTS, engine)

    assert (interpreter.has_variables, interpreter.has_resources) == (False, False)
    assert not model.keeps_state
    assert author.model.reset == "window"


def test_learned_weights_reach_the_answers_of_the_daemons_own_chain(
    author: Author, engine: Engine, tmp_path: Path
) -> None:
    """From windows as measured to scores, by what the daemon runs: right far more often than before."""
    chain = vibration.Chain()
    mine, test = vibration.board(chain, 2, 200), vibration.held_out(chain, 3, 10)
    trainer = Trainer(vibration.WEIGHTS, engine)
    weights = fit(trainer, trainer.weights(), mine.x, mine.y, vibration.PLAN, np.random.default_rng(1)).weights
    path = tmp_path / "learned.tflite"
    path.write_bytes(rewritten(vibration.WEIGHTS.read_bytes(), weights))
    shares = []
    for file in (vibration.WEIGHTS, path):
        model = open_model(author, file, engine)
        guesses = [int(np.argmax(model.scores(rows))) for rows in test.rows]
        shares.append(float(np.mean(np.array(guesses) == test.labels)))

    assert shares[1] > shares[0] + 0.3
    assert shares[1] == pytest.approx(vibration.accuracy(trainer, weights, test), abs=0.01)
