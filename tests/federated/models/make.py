"""Make the small models that the tests of gradients train: ``python tests/federated/models/make.py`` (needs TensorFlow).

Between them they have every layer, activation and loss that boards train.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras

from edged.federated.export import export

_HERE = Path(__file__).parent
_layers = keras.layers


def classifier() -> keras.Sequential:
    """Dense layers alone, as on features."""
    return keras.Sequential(
        [
            _layers.Input((6,)),
            _layers.Dense(8, activation="relu"),
            _layers.Dense(5, activation="tanh"),
            _layers.Dense(3, activation="softmax"),
        ]
    )


def convolution() -> keras.Sequential:
    """Convolutions along time: strided and padded, spread, causal and without a bias; pools, and a mean over time."""
    return keras.Sequential(
        [
            _layers.Input((21, 3)),
            _layers.Conv1D(5, 4, strides=2, padding="same", activation="relu"),
            _layers.MaxPooling1D(2),
            _layers.Conv1D(4, 2, dilation_rate=2, padding="causal", activation="sigmoid", use_bias=False),
            _layers.Conv1D(4, 3, activation="tanh"),
            _layers.GlobalAveragePooling1D(),
            _layers.Dense(2),
        ]
    )


def reconstruction() -> keras.Sequential:
    """An autoencoder: windows back from a few numbers."""
    return keras.Sequential(
        [
            _layers.Input((8, 2)),
            _layers.AveragePooling1D(2),
            _layers.Flatten(),
            _layers.Dense(3, activation="tanh"),
            _layers.Dense(16),
            _layers.Reshape((8, 2)),
        ]
    )


def detector() -> keras.Sequential:
    """Two questions of yes or no."""
    return keras.Sequential(
        [_layers.Input((6,)), _layers.Dense(4), _layers.ReLU(), _layers.Dense(2), _layers.Activation("sigmoid")]
    )


MODELS: dict[str, tuple[Callable[[], keras.Sequential], str]] = {
    "classifier": (classifier, "cross_entropy"),
    "convolution": (convolution, "cross_entropy"),
    "reconstruction": (reconstruction, "mean_squared_error"),
    "detector": (detector, "binary_cross_entropy"),
}


def main() -> None:
    """Write all of them."""
    keras.utils.set_random_seed(1)
    for name, (make, loss) in MODELS.items():
        path = _HERE / f"{name}.tflite"
        path.write_bytes(export(make(), loss=loss, batch=4))
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
