"""Dense models of any size with random weights, written straight in TFLite's schema: no TensorFlow needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import tflite  # type: ignore[import-untyped]

_SCHEMA = 3
_FULLY_CONNECTED_VERSION = 4  # the first that takes int8
_STEP = 1 / 256
"""What one count of an int8 activation is worth."""
_INT8_SPREAD = 73.3
"""The standard deviation of int8 values that are spread evenly."""


class _Kind(NamedTuple):
    code: int
    dtype: str


_FLOAT32 = _Kind(tflite.TensorType.FLOAT32, "<f4")
_INT32 = _Kind(tflite.TensorType.INT32, "<i4")
_INT8 = _Kind(tflite.TensorType.INT8, "i1")


def _ints(builder: flatbuffers.Builder, start: Callable[[flatbuffers.Builder, int], Any], values: list[int]) -> int:
    start(builder, len(values))
    for value in reversed(values):
        builder.PrependInt32(value)
    return int(builder.EndVector())


def _offsets(builder: flatbuffers.Builder, start: Callable[[flatbuffers.Builder, int], Any], offsets: list[int]) -> int:
    start(builder, len(offsets))
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def dense(path: Path, sizes: Sequence[int], *, rows: int = 1, int8: bool = False) -> None:
    """Write a chain of dense layers, ReLU between them: ``[rows, sizes[0]]`` in, ``[1, sizes[-1]]`` out.

    The weights are random, not zero, so that nothing in memory can be shared or compressed away.

    :param rows: each layer but the last answers each row on its own, so that more rows make a model slower, not
        larger; the last takes all rows at once.
    :param int8: weights and activations are int8, biases int32; otherwise all is float32.
    """
    rng = np.random.default_rng(1)
    kind, bias_kind = (_INT8, _INT32) if int8 else (_FLOAT32, _FLOAT32)
    builder = flatbuffers.Builder(1024)
    buffers = [_buffer(builder, None)]
    tensors = [_tensor(builder, "input", [rows, sizes[0]], kind, _STEP)]
    operators = []
    for layer, (size, outputs) in enumerate(pairwise(sizes)):
        last = layer == len(sizes) - 2
        inputs, answers = (size * rows, 1) if last else (size, rows)
        weights: npt.NDArray[np.generic]
        if int8:
            weights = rng.integers(-127, 128, (outputs, inputs), np.int8)
        else:
            weights = rng.standard_normal((outputs, inputs), np.float32) / np.float32(inputs**0.5)
        step = 1 / (_INT8_SPREAD * inputs**0.5)
        buffers += [_buffer(builder, weights), _buffer(builder, np.zeros(outputs, bias_kind.dtype))]
        source = 3 * layer
        tensors += [
            _tensor(builder, f"weights{layer}", [outputs, inputs], kind, step, len(buffers) - 2),
            _tensor(builder, f"bias{layer}", [outputs], bias_kind, step * _STEP, len(buffers) - 1),
            _tensor(builder, f"dense{layer}", [answers, outputs], kind, _STEP),
        ]
        operators.append(_operator(builder, [source, source + 1, source + 2], source + 3, relu=not last))
    path.write_bytes(_finish(builder, buffers, tensors, operators))


def _buffer(builder: flatbuffers.Builder, data: npt.NDArray[np.generic] | None) -> int:
    if data is None:
        tflite.BufferStart(builder)
        return int(tflite.BufferEnd(builder))
    raw = data.tobytes()
    builder.StartVector(1, len(raw), 16)
    builder.head -= len(raw)
    builder.Bytes[builder.head : builder.head + len(raw)] = raw
    vector = builder.EndVector()
    tflite.BufferStart(builder)
    tflite.BufferAddData(builder, vector)
    return int(tflite.BufferEnd(builder))


def _tensor(
    builder: flatbuffers.Builder, name: str, shape: list[int], kind: _Kind, step: float, buffer: int = 0
) -> int:
    text = builder.CreateString(name)
    dims = _ints(builder, tflite.TensorStartShapeVector, shape)
    quantisation = 0 if kind is _FLOAT32 else _quantisation(builder, step)
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, dims)
    tflite.TensorAddType(builder, kind.code)
    tflite.TensorAddBuffer(builder, buffer)
    tflite.TensorAddName(builder, text)
    if quantisation:
        tflite.TensorAddQuantization(builder, quantisation)
    return int(tflite.TensorEnd(builder))


def _quantisation(builder: flatbuffers.Builder, step: float) -> int:
    tflite.QuantizationParametersStartScaleVector(builder, 1)
    builder.PrependFloat32(step)
    scale = builder.EndVector()
    tflite.QuantizationParametersStartZeroPointVector(builder, 1)
    builder.PrependInt64(0)
    zero_point = builder.EndVector()
    tflite.QuantizationParametersStart(builder)
    tflite.QuantizationParametersAddScale(builder, scale)
    tflite.QuantizationParametersAddZeroPoint(builder, zero_point)
    return int(tflite.QuantizationParametersEnd(builder))


def _operator(builder: flatbuffers.Builder, inputs: list[int], output: int, *, relu: bool) -> int:
    activation = tflite.ActivationFunctionType.RELU if relu else tflite.ActivationFunctionType.NONE
    tflite.FullyConnectedOptionsStart(builder)
    tflite.FullyConnectedOptionsAddFusedActivationFunction(builder, activation)
    options = tflite.FullyConnectedOptionsEnd(builder)
    sources = _ints(builder, tflite.OperatorStartInputsVector, inputs)
    results = _ints(builder, tflite.OperatorStartOutputsVector, [output])
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, 0)
    tflite.OperatorAddInputs(builder, sources)
    tflite.OperatorAddOutputs(builder, results)
    tflite.OperatorAddBuiltinOptionsType(builder, tflite.BuiltinOptions.FullyConnectedOptions)
    tflite.OperatorAddBuiltinOptions(builder, options)
    return int(tflite.OperatorEnd(builder))


def _finish(builder: flatbuffers.Builder, buffers: list[int], tensors: list[int], operators: list[int]) -> bytes:
    all_tensors = _offsets(builder, tflite.SubGraphStartTensorsVector, tensors)
    inputs = _ints(builder, tflite.SubGraphStartInputsVector, [0])
    outputs = _ints(builder, tflite.SubGraphStartOutputsVector, [len(tensors) - 1])
    all_operators = _offsets(builder, tflite.SubGraphStartOperatorsVector, operators)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, all_tensors)
    tflite.SubGraphAddInputs(builder, inputs)
    tflite.SubGraphAddOutputs(builder, outputs)
    tflite.SubGraphAddOperators(builder, all_operators)
    graph = tflite.SubGraphEnd(builder)
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, tflite.BuiltinOperator.FULLY_CONNECTED)
    tflite.OperatorCodeAddBuiltinCode(builder, tflite.BuiltinOperator.FULLY_CONNECTED)
    tflite.OperatorCodeAddVersion(builder, _FULLY_CONNECTED_VERSION)
    code = tflite.OperatorCodeEnd(builder)
    codes = _offsets(builder, tflite.ModelStartOperatorCodesVector, [code])
    graphs = _offsets(builder, tflite.ModelStartSubgraphsVector, [graph])
    all_buffers = _offsets(builder, tflite.ModelStartBuffersVector, buffers)
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, _SCHEMA)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, all_buffers)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())
