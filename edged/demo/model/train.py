"""Train the demo's model: simulate, fit, convert, measure on what was held out, record the self-test.

Needs TensorFlow beside edged (on Python 3.12 or newer, where the two agree on numpy), and takes about a minute:

    pip install . tensorflow
    python edged/demo/model/train.py

It overwrites ``pump.tflite`` and ``pump-selftest.npz`` beside it and prints the figures that README.md states. Features
come from edged's own signal chain, as ``pump.toml`` describes it: what is trained on is what the daemon computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edged.demo.machine import CHANNELS, RATE, Condition, simulate
from edged.model.author import Author
from edged.model.dry_run import open_model
from edged.model.live import Model
from edged.model.runtime import choose
from edged.model.signal.chain import CompiledChain
from edged.model.signal.tensor import TensorInfo

Floats = npt.NDArray[np.float32]

HERE = Path(__file__).parent
MANIFEST = HERE / "pump.toml"
WEIGHTS = HERE / "pump.tflite"
SELF_TEST = HERE / "pump-selftest.npz"
CONDITIONS = tuple(Condition)
FEATURES = 4 * len(CHANNELS)  # as pump.toml says; refused where it does not

TRAINING_SEED, HELD_OUT_SEED, SELF_TEST_SEED = 1, 2, 3
TRAINING_WINDOWS, HELD_OUT_WINDOWS = 4000, 1000  # for each condition
SEVERITIES = (0.15, 1.0)  # below, a fault drowns in the difference between operating points
UNSURE = (0.08, 0.15)  # where the scores lie between 0 and 1, so that any mistake in the chain moves them
EPOCHS = 60


class Windows(NamedTuple):
    """Simulated windows, each at an operating point and severity of its own.

    :ivar rows: float32 [n, size, channels].
    :ivar labels: int [n], an index into ``CONDITIONS``.
    :ivar severities: float64 [n].
    """

    rows: Floats
    labels: npt.NDArray[np.intp]
    severities: npt.NDArray[np.float64]

    @classmethod
    def draw(cls, seed: int, size: int, each: int, between: tuple[float, float] = SEVERITIES) -> Windows:
        """Simulate ``each`` windows of every condition, of severities ``between`` two bounds."""
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(len(CONDITIONS)), each)
        severities = rng.uniform(*between, size=len(labels))
        rows = [
            simulate(rng, CONDITIONS[label], severity, size / RATE)
            for label, severity in zip(labels, severities, strict=True)
        ]
        return cls(np.stack(rows), labels, severities)


def features(author: Author, windows: Windows) -> Floats:
    """Return what the daemon would hand to the model: float32 [n, features]."""
    chain = CompiledChain(
        author,
        [TensorInfo("features", (1, FEATURES), np.dtype(np.float32))],
        [TensorInfo("scores", (1, len(CONDITIONS)), np.dtype(np.float32))],
    )
    return np.concatenate([chain.prepare(rows).tensors[0] for rows in windows.rows])


def fit(inputs: Floats, labels: npt.NDArray[np.intp]) -> keras.Model:
    """Return a trained network that takes ``inputs`` as they are."""
    mean, std = inputs.mean(axis=0), inputs.std(axis=0)
    network = keras.Sequential(
        [
            keras.layers.Input(batch_shape=(1, inputs.shape[1]), name="features"),
            keras.layers.Dense(24, activation="relu"),
            keras.layers.Dense(12, activation="relu"),
            keras.layers.Dense(len(CONDITIONS), activation="softmax", name="scores"),
        ],
    )
    # A fixed batch of one is for the board; training goes through a twin that shares the layers.
    trainee = keras.Sequential(network.layers)
    trainee.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    trainee.fit((inputs - mean) / std, labels, batch_size=64, epochs=EPOCHS, verbose=2)

    # W((x - mean) / std) + b = (W / std) x + (b - W(mean / std))
    kernel, bias = network.layers[0].get_weights()
    network.layers[0].set_weights([kernel / std[:, None], bias - (mean / std) @ kernel])
    return network


def measure(model: Model, windows: Windows) -> None:
    """Print the accuracy by condition and by severity, and the confusion matrix."""
    guesses = np.array([np.argmax(model.scores(rows)) for rows in windows.rows])
    right = guesses == windows.labels
    print(f"{len(right)} held-out windows, {right.mean():.1%} right")
    for index, condition in enumerate(CONDITIONS):
        mine = windows.labels == index
        confused = ", ".join(f"{(guesses[mine] == other).sum()} {name}" for other, name in enumerate(CONDITIONS))
        print(f"  {condition:10} {right[mine].mean():6.1%} right, taken for: {confused}")
    faulty = windows.labels != CONDITIONS.index(Condition.HEALTHY)
    for low, high in ((SEVERITIES[0], 0.25), (0.25, 0.5), (0.5, SEVERITIES[1])):
        band = faulty & (windows.severities >= low) & (windows.severities < high)
        print(f"  faults of severity {low:.2f} to {high:.2f}: {right[band].mean():6.1%} right")


def record_self_test(model: Model, size: int) -> None:
    """Write two windows of each condition and what the model answers."""
    windows = Windows.draw(SELF_TEST_SEED, size, 2, UNSURE).rows
    np.savez_compressed(SELF_TEST, windows=windows, scores=np.stack([model.scores(rows) for rows in windows]))


def main() -> None:
    """Make the model anew."""
    tf.keras.utils.set_random_seed(TRAINING_SEED)
    tf.config.experimental.enable_op_determinism()
    author = Author.read(MANIFEST)
    size = int(author.window.extent)
    training = Windows.draw(TRAINING_SEED, size, TRAINING_WINDOWS)
    network = fit(features(author, training), training.labels)

    WEIGHTS.write_bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    model = open_model(author, WEIGHTS, choose("auto"))
    print(f"{WEIGHTS.name}: {WEIGHTS.stat().st_size} bytes")
    measure(model, Windows.draw(HELD_OUT_SEED, size, HELD_OUT_WINDOWS))
    record_self_test(model, size)


if __name__ == "__main__":
    main()
