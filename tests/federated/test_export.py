"""From Keras to a model that boards train, where TensorFlow is: in the Python that EDGED_TENSORFLOW names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edged
from edged.federated.trainer import Trainer
from edged.federated.weights import initial_weights
from edged.model.runtime import choose
from edged.model.runtime.graph import read_graph
from support import vibration

FOLDER = Path(__file__).parent / "models"

_FOUND = Path(edged.__file__).parents[1]
SOURCE = {} if "site-packages" in _FOUND.parts else {"PYTHONPATH": str(_FOUND)}
"""Another Python has an edged of its own, as this one has; or both take it from the source tree."""

HEAD = """
import sys
from pathlib import Path
import keras
from edged.base.errors import EdgedError
from edged.federated.export import export
L = keras.layers

def attempt(model, loss="cross_entropy", batch=4):
    try:
        return export(model, loss=loss, batch=batch)
    except EdgedError as error:
        print(f"{type(error).__name__}: {error.message}")

def chain(*layers, shape=(8, 2)):
    return keras.Sequential([L.Input(shape), *layers])
"""


@pytest.fixture(scope="module")
def tensorflow() -> str:
    python = os.environ.get("EDGED_TENSORFLOW")
    if not python:
        pytest.skip(
            "TensorFlow makes these models: name a Python that has it, and edged's own needs, in EDGED_TENSORFLOW"
        )
    return python


def run(python: str, script: str | Path, *, cwd: Path) -> str:
    source = ["-c", HEAD + script] if isinstance(script, str) else [str(script)]
    kept = {
        name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"
    }  # a script finds its neighbours
    found = subprocess.run(
        [python, *source],
        cwd=cwd,
        env={**kept, **SOURCE, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


REFUSED = {
    "L.BatchNormalization(name='here'), L.Flatten(), L.Dense(2)": r"layer 'here' (BatchNormalization) cannot be trained on boards: boards train Dense, Conv1D",
    "L.LSTM(3, name='here')": "layer 'here' (LSTM) cannot be trained",
    "L.Dropout(0.5, name='here'), L.Flatten(), L.Dense(2)": "layer 'here' (Dropout) cannot be trained",
    "L.Flatten(), L.Dense(2, activation='gelu', name='here')": "layer 'here' (Dense) cannot be trained on boards: its activation is gelu",
    "L.Conv1D(4, 3, groups=2, name='here'), L.Flatten(), L.Dense(2)": "layer 'here' (Conv1D) cannot be trained on boards: groups",
    "L.MaxPooling1D(3, strides=1, name='here'), L.Flatten(), L.Dense(2)": "layer 'here' (MaxPooling1D) cannot be trained on boards: pools may not overlap",
    "L.Flatten(), L.Dense(4, trainable=False, name='here'), L.Dense(2)": "layer 'here' (Dense) cannot be trained on boards: it is frozen",
}


def test_layers_that_boards_cannot_train_are_refused_by_name(tensorflow: str, tmp_path: Path) -> None:
    script = "".join(f"attempt(chain({layers}))\n" for layers in REFUSED)

    told = run(tensorflow, script, cwd=tmp_path).splitlines()

    assert len(told) == len(REFUSED)
    for line, expected in zip(told, REFUSED.values(), strict=True):
        assert line.startswith(f"ModelError: {expected}")


def test_models_that_are_no_chain_and_unknown_losses_are_refused(tensorflow: str, tmp_path: Path) -> None:
    script = """
x = L.Input((3,))
attempt(keras.Model(x, L.Add(name="sum")([x, L.Dense(3)(x)]), name="loop"))
attempt(chain(L.Flatten(), L.Dense(2)), loss="hinge")
attempt(keras.Sequential([L.Dense(2)], name="unbuilt"))
"""
    told = run(tensorflow, script, cwd=tmp_path).splitlines()

    assert told[0].startswith("ModelError: model 'loop' is no keras.Sequential")
    assert told[1].startswith("UsageError: loss 'hinge' is not known")
    assert told[2].startswith("ModelError: model 'unbuilt' has no weights yet")


def test_a_gradient_that_is_not_tensorflows_is_refused(tensorflow: str, tmp_path: Path) -> None:
    """The comparison before a model is let out of hand: here, after the derivative of tanh was spoilt."""
    script = """
from edged.federated.export.layers import Activation
right = Activation.backward
Activation.backward = lambda self, x, out, back, weights: (1.01 * right(self, x, out, back, weights)[0], [])
attempt(chain(L.Flatten(), L.Dense(3, activation="tanh"), L.Dense(2)))
"""
    assert "the converted model and TensorFlow are" in run(tensorflow, script, cwd=tmp_path)


def test_weights_that_are_alike_get_a_value_each_in_the_file(tensorflow: str, tmp_path: Path) -> None:
    """Biases all begin with zeros; one buffer for all of them could not be rewritten."""
    script = "Path('alike.tflite').write_bytes(attempt(chain(*[L.Dense(3) for _ in range(4)], shape=(3,)), 'mean_squared_error'))"
    run(tensorflow, script, cwd=tmp_path)

    weights = initial_weights((tmp_path / "alike.tflite").read_bytes())

    assert [each.shape for each in weights] == [(3, 3), (3,)] * 4
    assert not any(each.any() for each in weights[1::2])
    assert all(each.any() for each in weights[::2])


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("folder", "script"), [(FOLDER, "make.py"), (vibration.FOLDER, "train.py")], ids=["tests", "example"]
)
def test_the_committed_models_are_what_their_scripts_make(
    tensorflow: str, tmp_path: Path, folder: Path, script: str
) -> None:
    """The same graph, the same shapes; the bytes may be another release's."""
    for source in [*folder.glob("*.py"), *folder.glob("*.toml"), *folder.glob("*.md")]:
        (tmp_path / source.name).write_bytes(source.read_bytes())
    run(tensorflow, tmp_path / script, cwd=tmp_path)
    for committed in folder.glob("*.tflite"):
        made = Trainer(tmp_path / committed.name, choose())
        kept = Trainer(committed, choose())
        assert (made.batch, made.inputs, made.outputs, made.shapes) == (
            kept.batch,
            kept.inputs,
            kept.outputs,
            kept.shapes,
        )
        made.use(kept.weights())
        x = np.random.default_rng(1).normal(size=(3, *kept.inputs)).astype(np.float32)
        assert np.allclose(made.infer(x), kept.infer(x), atol=1e-6)


@pytest.mark.parametrize(
    "path", [*sorted(FOLDER.glob("*.tflite")), vibration.WEIGHTS, vibration.ANOMALY_WEIGHTS], ids=lambda path: path.stem
)
def test_models_need_builtin_operators_only(path: Path) -> None:
    graph = read_graph(path.read_bytes())
    used = {operator.name for subgraph in graph.subgraphs for operator in subgraph.operators}

    assert not {name for name in used if name.startswith(("Flex", "STABLEHLO", "operator")) or name != name.upper()}
    assert set(graph.signatures) == {"infer", "get_weights", "set_weights", "grads", "grads_clipped"}


def test_nothing_but_export_imports_tensorflow() -> None:
    script = "import sys, edged.federated.fit, edged.federated.weights, edged.federated.privacy; print({'tensorflow', 'keras', 'flwr'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **SOURCE},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "set()"
