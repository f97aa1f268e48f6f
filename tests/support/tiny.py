"""Tiny models made by hand: operators between tensors, as a converter would write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema


class Values(NamedTuple):
    """A tensor of a model.

    :ivar data: of a constant.
    :ivar extents: the shape with -1 where the model leaves a size open.
    """

    name: str
    shape: Sequence[int]
    dtype: str = "float32"
    scale: float = 0.0
    zero_point: int = 0
    data: npt.NDArray[Any] | None = None
    extents: Sequence[int] = ()


class Step(NamedTuple):
    """An operator: the name of a built-in one, or any other as a custom one; the numbers of its tensors."""

    name: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: tuple[str, Any] | None = None


def build(tensors: Sequence[Values], steps: Sequence[Step], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    """Return a model of one subgraph."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    graph.tensors, graph.inputs, graph.outputs = [], list(inputs), list(outputs)
    for tensor in tensors:
        one = schema.TensorT()
        one.name, one.shape, one.type = (
            tensor.name,
            list(tensor.shape),
            getattr(schema.TensorType, tensor.dtype.upper()),
        )
        if tensor.extents:
            one.shapeSignature = list(tensor.extents)
        if tensor.scale:
            one.quantization = schema.QuantizationParametersT()
            one.quantization.scale, one.quantization.zeroPoint = [tensor.scale], [tensor.zero_point]
        if tensor.data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
            model.buffers.append(buffer)
            one.buffer = len(model.buffers) - 1
        graph.tensors.append(one)
    model.operatorCodes, graph.operators = [], []
    for at, step in enumerate(steps):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        number = getattr(schema.BuiltinOperator, step.name, None)
        code.version = 1
        code.builtinCode = schema.BuiltinOperator.CUSTOM if number is None else number
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = step.name if number is None else None
        operator.opcodeIndex, operator.inputs, operator.outputs = at, list(step.inputs), list(step.outputs)
        if step.options is not None:
            kind, operator.builtinOptions = step.options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def identity(
    shape: Sequence[int], out: Sequence[int] = (), dtype: str = "float32", *, scale: float = 0.0, zero_point: int = 0
) -> bytes:
    """Return a model that gives its input back, in the shape ``out``."""
    out = out or shape
    options = schema.ReshapeOptionsT()
    options.newShape = list(out)
    tensors = [
        Values("x", shape, dtype, scale, zero_point),
        Values("shape", [len(out)], "int32", data=np.array(out, np.int32)),
        Values("y", out, dtype, scale, zero_point),
    ]
    return build(tensors, [Step("RESHAPE", [0, 1], [2], ("ReshapeOptions", options))], [0], [2])


def means(shape: Sequence[int], axes: Sequence[int], extents: Sequence[int] = ()) -> bytes:
    """Return a model that gives the means over ``axes``."""
    out = [size for axis, size in enumerate(shape) if axis not in axes]
    tensors = [
        Values("x", shape, extents=extents),
        Values("axes", [len(axes)], "int32", data=np.array(axes, np.int32)),
        Values("y", out),
    ]
    return build(tensors, [Step("MEAN", [0, 1], [2], ("ReducerOptions", schema.ReducerOptionsT()))], [0], [2])


def dense(weights: npt.NDArray[np.float32], bias: npt.NDArray[np.float32] | None = None, last: str = "") -> bytes:
    """Return a model of one layer, ``weights`` [outputs, inputs], and the operator ``last`` behind it."""
    outputs, inputs = weights.shape
    bias = np.zeros(outputs, np.float32) if bias is None else bias
    tensors = [
        Values("x", [1, inputs]),
        Values("weights", weights.shape, data=weights.astype(np.float32)),
        Values("bias", [outputs], data=bias.astype(np.float32)),
        Values("sums", [1, outputs]),
    ]
    steps = [Step("FULLY_CONNECTED", [0, 1, 2], [3], ("FullyConnectedOptions", schema.FullyConnectedOptionsT()))]
    if last:
        tensors.append(Values("y", [1, outputs]))
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        steps.append(Step(last, [3], [4], ("SoftmaxOptions", options) if last == "SOFTMAX" else None))
    return build(tensors, steps, [0], [len(tensors) - 1])
