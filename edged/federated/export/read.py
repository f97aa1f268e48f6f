"""From Keras's layers to the steps that boards can take forwards and backwards; what is not among them is refused."""

from __future__ import annotations

from typing import Any

import keras

from edged.base.errors import ModelError
from edged.federated.export.layers import Activation, Conv1D, Dense, Mean, Pool, Reshape, Step

_ACTIVATIONS = ("relu", "tanh", "sigmoid", "softmax")
_KNOWN = "Dense, Conv1D, Flatten, Reshape, GlobalAveragePooling1D, AveragePooling1D, MaxPooling1D, Activation, ReLU"


def read_steps(model: keras.Sequential) -> list[Step]:
    """Return a model's layers as steps, activations as steps of their own.

    :raises ModelError: a layer or one of its options is not among those that boards can train; the message names it.
    """
    if not isinstance(model, keras.Sequential):
        raise ModelError(
            f"model {model.name!r} is no keras.Sequential: boards train layers that follow one another",
            hint="keras.Sequential(model.layers), where they do",
        )
    return [step for layer in model.layers for step in _steps(layer)]


def _steps(layer: Any) -> list[Step]:  # noqa: ANN401, PLR0911  Keras has no types; a line for each kind of layer
    kind = type(layer)
    if not layer.trainable:
        raise _refusal(layer, "it is frozen (trainable=False), and boards train all layers")
    if kind is keras.layers.Dense:
        if layer.lora_enabled or layer.quantization_mode:
            raise _refusal(layer, "it is quantised or has LoRA enabled")
        return [Dense(bias=layer.use_bias), *_activation(layer)]
    if kind is keras.layers.Conv1D:
        return [_convolution(layer), *_activation(layer)]
    if kind in {keras.layers.Flatten, keras.layers.Reshape}:
        return [Reshape([int(size) for size in layer.output.shape[1:]])]
    if kind is keras.layers.GlobalAveragePooling1D and not layer.keepdims and layer.data_format == "channels_last":
        return [Mean()]
    if kind in {keras.layers.AveragePooling1D, keras.layers.MaxPooling1D}:
        return [_pool(layer)]
    if kind is keras.layers.Activation:
        return _activation(layer)
    if kind is keras.layers.ReLU and layer.max_value is None and not layer.negative_slope and not layer.threshold:
        return [Activation("relu")]
    raise _refusal(layer, f"boards train {_KNOWN}")


def _convolution(layer: Any) -> Step:  # noqa: ANN401  as above
    if layer.groups != 1 or layer.data_format != "channels_last":
        raise _refusal(layer, "groups and channels_first are not supported")
    (taps,), (stride,), (spread,) = layer.kernel_size, layer.strides, layer.dilation_rate
    return Conv1D(taps, stride, spread, layer.padding, bias=layer.use_bias)


def _pool(layer: Any) -> Step:  # noqa: ANN401  as above
    if layer.padding != "valid" or layer.strides != layer.pool_size or layer.data_format != "channels_last":
        raise _refusal(layer, "pools may not overlap or be padded")
    return Pool(layer.pool_size[0], largest=type(layer) is keras.layers.MaxPooling1D)


def _activation(layer: Any) -> list[Step]:  # noqa: ANN401  as above
    name = keras.activations.serialize(layer.activation)
    if name == "linear":
        return []
    if name not in _ACTIVATIONS:
        raise _refusal(layer, f"its activation is {name}, and boards know {', '.join(_ACTIVATIONS)} and linear")
    return [Activation(name)]


def _refusal(layer: Any, why: str) -> ModelError:  # noqa: ANN401  as above
    return ModelError(
        f"layer {layer.name!r} ({type(layer).__name__}) cannot be trained on boards: {why}",
        hint="put another in its place, or fold it into the layer before",
    )
