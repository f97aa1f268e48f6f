"""Make the small models with state that the tests run: ``python tests/models/make.py counter feedback moving_sum``.

* ``counter.tflite`` adds its input to a resource variable and answers with the sum (needs TensorFlow);
* ``feedback.tflite`` does so with its state as an input and an output (needs TensorFlow);
* ``moving_sum.tflite`` sums its last three inputs, in a variable tensor (needs LiteRT and flatbuffers).
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


if __name__ == "__main__":
    for name in sys.argv[1:]:
        content = globals()[f"make_{name}"]()
        (_HERE / f"{name}.tflite").write_bytes(content)
        print(f"{name}.tflite: {len(content)} bytes")
