"""A signature beside the one that answers windows: what training calls, by the names that its author gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.base.errors import ModelError
from edged.model.signal.tensor import TensorInfo

Array = npt.NDArray[np.generic]


def tensor_info(name: str, detail: Mapping[str, Any]) -> TensorInfo:
    """Return what a runtime says of a tensor in the signal chain's words."""
    scale, zero_point = detail["quantization"]
    shape = tuple(int(size) for size in detail["shape"])
    extents = tuple(int(size) for size in detail["shape_signature"])
    return TensorInfo(name, shape, np.dtype(detail["dtype"]), float(scale), int(zero_point), extents or shape)


class Signature:
    """One of a model's signatures, ready to be called. All of an interpreter's share its resource variables.

    :ivar key: its name.
    :ivar inputs: what goes in, by name.
    :ivar outputs: what comes out, by name.
    """

    def __init__(self, key: str, runner: Any) -> None:  # noqa: ANN401  the runtimes have no types
        self.key = key
        self.inputs = {name: tensor_info(name, detail) for name, detail in runner.get_input_details().items()}
        self.outputs = {name: tensor_info(name, detail) for name, detail in runner.get_output_details().items()}
        self._runner = runner

    def __call__(self, **values: Array) -> dict[str, Array]:
        """Answer a value for each of :attr:`inputs` with one for each of :attr:`outputs`, copies.

        :raises ModelError: a value does not fit its tensor, or the runtime fails.
        """
        for name, tensor in self.inputs.items():
            value = values.get(name)
            # The runners would resize the tensor instead, and not every operator survives that.
            if value is None or value.shape != tensor.shape or value.dtype != tensor.dtype:
                got = "nothing" if value is None else f"{value.dtype} {list(value.shape)}"
                raise ModelError(f"signature {self.key!r}: {name} is {tensor.dtype} {list(tensor.shape)}, not {got}")
        try:
            found: dict[str, Array] = self._runner(**values)
        except (ValueError, RuntimeError) as error:
            sentence = str(error).strip().partition("\n")[0]
            raise ModelError(f"signature {self.key!r}: the runtime fails: {sentence}") from error
        return found
