"""Make the models that boards train, and their self-tests.

Needs TensorFlow beside edged, and takes a few seconds:

    pip install . tensorflow
    python examples/federated/train.py

It overwrites the ``.tflite`` and ``-selftest.npz`` files beside it. The weights are drawn, not trained: that is what
the boards are for. The figures of README.md come of ``compare.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
from compare import ANOMALY_MANIFEST, ANOMALY_WEIGHTS, MANIFEST, WEIGHTS, Chain
from machines import CONDITIONS, Labels, Machine

from edged.federated.export import export
from edged.model.author import Author
from edged.model.dry_run import open_model
from edged.model.runtime import choose

WORKSHOP = 1_000_000  # the number of the machine that the publisher has; no board is on it
SEED = 1
CLOSE = 0.01  # of a standard deviation
FEATURES = 18  # as the manifests say; refused where they do not


def classifier() -> keras.Sequential:
    """Return the model that tells conditions apart: small enough to train in milliseconds."""
    return keras.Sequential(
        [
            keras.layers.Input((FEATURES,)),
            keras.layers.Dense(24, activation="relu"),
            keras.layers.Dense(12, activation="relu"),
            keras.layers.Dense(len(CONDITIONS), activation="softmax"),
        ]
    )


def autoencoder() -> keras.Sequential:
    """Return the model that gives healthy windows back through four numbers."""
    return keras.Sequential(
        [
            keras.layers.Input((FEATURES,)),
            keras.layers.Dense(12, activation="tanh"),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.Dense(12, activation="tanh"),
            keras.layers.Dense(FEATURES),
        ]
    )


def check_normalisation(manifest: Path, weights: Path, labels: Labels, spread: float) -> None:
    """Refuse a manifest whose ``[normalise]`` is not that of the workshop's machine, and print what it should be.

    :param labels: the conditions that it is in.
    :param spread: how many standard deviations are to become 1.
    """
    chain = Chain(manifest, weights)
    x = chain.examples(Machine.number(WORKSHOP).windows(np.random.default_rng(SEED), labels), labels).x
    scaled = Author.read(manifest).normalise
    if np.abs(x.mean(axis=0)).max() > CLOSE or np.abs(spread * x.std(axis=0) - 1).max() > CLOSE:
        mean = np.asarray(scaled.mean) + np.asarray(scaled.std) * x.mean(axis=0)
        for name, values in (("mean", mean), ("std", spread * np.asarray(scaled.std) * x.std(axis=0))):
            print(f"{name} = [{', '.join(f'{value:.4g}' for value in values)}]")
        sys.exit(f"put these into [normalise] of {manifest}, and run this again")


def make(model: keras.Sequential, loss: str, manifest: Path, weights: Path, labels: Labels, spread: float) -> None:
    """Write one of the models, and what it answers to two windows of every condition."""
    weights.write_bytes(export(model, loss=loss, batch=16))
    print(f"{weights.name}: {weights.stat().st_size} bytes")
    check_normalisation(manifest, weights, labels, spread)
    every = np.repeat(np.arange(len(CONDITIONS)), 2)
    windows = Machine.number(WORKSHOP).windows(np.random.default_rng(SEED + 1), every)
    opened = open_model(Author.read(manifest), weights, choose())
    scores = np.stack([opened.scores(rows) for rows in windows])
    np.savez_compressed(manifest.with_name(f"{manifest.stem}-selftest.npz"), windows=windows, scores=scores)


def main() -> None:
    """Make both anew."""
    keras.utils.set_random_seed(SEED)
    every = np.tile(np.arange(len(CONDITIONS)), 500)
    make(classifier(), "cross_entropy", MANIFEST, WEIGHTS, every, spread=1.0)
    make(autoencoder(), "mean_squared_error", ANOMALY_MANIFEST, ANOMALY_WEIGHTS, np.zeros_like(every), spread=3.0)


if __name__ == "__main__":
    main()
