"""Make the small models that the tests run: ``python tests/models/make.py counter feedback moving_sum wide gearbox``.

* ``counter.tflite`` adds its input to a resource variable and answers with the sum (needs TensorFlow);
* ``feedback.tflite`` does so with its state as an input and an output (needs TensorFlow);
* ``moving_sum.tflite`` sums its last three inputs, in a variable tensor (needs LiteRT and flatbuffers);
* ``wide.tflite`` gives back its input, 200 numbers: a large result (needs LiteRT and flatbuffers);
* ``gearbox/`` is a stand-in for the real gearbox's model, of the same shapes, with 100 simulated windows that it decides
  right, so that `make test` needs nothing beside a clone (needs TensorFlow).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent


def make_counter() -> bytes:
    import tensorflow as tf

    class Counter(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.total = tf.Variable(tf.zeros((1, 1)), trainable=False)

        @tf.function(input_signature=[tf.TensorSpec((1, 1), tf.float32)])
        def add(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            self.total.assign_add(x)
            return {"total": self.total.read_value()}

    module = Counter()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.add.get_concrete_function()], module)
    converter.experimental_enable_resource_variables = True
    return converter.convert()


def make_feedback() -> bytes:
    import tensorflow as tf

    class Feedback(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 1), tf.float32), tf.TensorSpec((1, 1), tf.float32)])
        def step(self, x: tf.Tensor, state: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"total": x + state, "doubled": 2 * (x + state)}

    module = Feedback()
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures={"serving_default": module.step})
        return tf.lite.TFLiteConverter.from_saved_model(directory).convert()


def make_moving_sum() -> bytes:
    """An SVDF layer of one unit whose filters are all ones: a sum over its memory."""
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as tflite

    def tensor(name: str, shape: list[int], buffer: int = 0, *, variable: bool = False) -> tflite.TensorT:
        made = tflite.TensorT()
        made.name, made.shape, made.buffer, made.isVariable = name, shape, buffer, variable
        made.type = tflite.TensorType.FLOAT32
        return made

    ones = [np.ones(count, "<f4").view(np.uint8) for count in (1, 3)]
    model, graph, operator, code, options = (
        tflite.ModelT(), tflite.SubGraphT(), tflite.OperatorT(), tflite.OperatorCodeT(), tflite.SVDFOptionsT()
    )  # fmt: skip
    code.builtinCode = code.deprecatedBuiltinCode = tflite.BuiltinOperator.SVDF
    code.version = 1
    options.rank = 1
    operator.inputs, operator.outputs = [0, 1, 2, -1, 3], [4]
    operator.builtinOptionsType, operator.builtinOptions = tflite.BuiltinOptions.SVDFOptions, options
    graph.tensors = [
        tensor("x", [1, 1]), tensor("feature", [1, 1], 1), tensor("time", [1, 3], 2), tensor("state", [1, 3], variable=True),
        tensor("sum", [1, 1]),
    ]  # fmt: skip
    graph.inputs, graph.outputs, graph.operators = [0], [4], [operator]
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [tflite.BufferT() for _ in range(3)]
    for buffer, data in zip(model.buffers[1:], ones, strict=True):
        buffer.data = data
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def make_wide() -> bytes:
    """A reshape of [1, 50, 4] to [1, 200]."""
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as tflite

    model, graph, operator, code, options = (
        tflite.ModelT(), tflite.SubGraphT(), tflite.OperatorT(), tflite.OperatorCodeT(), tflite.ReshapeOptionsT()
    )  # fmt: skip
    code.builtinCode = code.deprecatedBuiltinCode = tflite.BuiltinOperator.RESHAPE
    code.version = 1
    options.newShape = [1, 200]
    operator.inputs, operator.outputs = [0, 1], [2]
    operator.builtinOptionsType, operator.builtinOptions = tflite.BuiltinOptions.ReshapeOptions, options
    for number, (name, shape, type_) in enumerate(
        [("x", [1, 50, 4], tflite.TensorType.FLOAT32), ("shape", [2], tflite.TensorType.INT32), ("y", [1, 200], 0)]
    ):
        made = tflite.TensorT()
        made.name, made.shape, made.type, made.buffer = name, shape, type_, number == 1
        graph.tensors = [*(graph.tensors or []), made]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operator]
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [tflite.BufferT(), tflite.BufferT()]
    model.buffers[1].data = np.array([1, 200], "<i4").view(np.uint8)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def make_gearbox() -> bytes:
    """Fit a dense model to the statistics of simulated windows; write those that it is tested with beside it."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(13)
    tf.keras.utils.set_random_seed(13)

    def simulate(*, broken: bool) -> np.ndarray:
        """Return a window, float32 [300, 4], in sixteenths: a gear that meshes, and knocks where a tooth is broken."""
        at = np.arange(300)[:, np.newaxis] / 30 + rng.uniform(0, 1, 4)
        rows = rng.uniform(2, 4, 4) * np.sin(2 * np.pi * rng.uniform(2, 5) * at) + rng.normal(0, 2, (300, 4))
        if broken:
            rows[rng.integers(30) :: 30] += rng.choice((-1, 1), 4) * rng.uniform(14, 20, 4)
        return (np.round(rows * 16) / 16).astype(np.float32)

    def features(windows: np.ndarray) -> np.ndarray:
        """Return sum of magnitudes, standard deviation, maximum and excess kurtosis of each channel, [n, 16]."""
        x = windows.astype(np.float64)
        n, centred = x.shape[1], x - x.mean(axis=1, keepdims=True)
        ratio = (centred**4).mean(axis=1) / (centred**2).mean(axis=1) ** 2
        kurtosis = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * ratio - 3 * (n - 1))
        return np.concatenate([np.abs(x).sum(axis=1), x.std(axis=1, ddof=1), x.max(axis=1), kurtosis], axis=1)

    labels = np.tile([0, 1], 1000)
    windows = np.stack([simulate(broken=bool(label)) for label in labels])
    x = features(windows)
    scale = tf.keras.layers.Normalization()
    scale.adapt(x)
    dense = [tf.keras.layers.Dense(units, "relu") for units in (16, 8, 16, 8)]
    model = tf.keras.Sequential([tf.keras.Input((16,)), scale, *dense, tf.keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1800], labels[:1800], epochs=20, verbose=0)
    held_out = slice(1800, 1900)
    assert (model.predict(x[held_out], verbose=0).argmax(axis=1) == labels[held_out]).all()
    folder = _HERE / "gearbox"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "golden.npz", raw_windows=windows[held_out], raw_y=labels[held_out])
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    (folder / "dnn.tflite").write_bytes(content)
    return content


if __name__ == "__main__":
    for name in sys.argv[1:]:
        content = globals()[f"make_{name}"]()
        if name != "gearbox":  # which is a folder
            (_HERE / f"{name}.tflite").write_bytes(content)
        print(f"{name}.tflite: {len(content)} bytes")
