"""One model in one interpreter, and the runtime's refusals in plain words."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.errors import MissingFileError, ModelError
from edged.runtime.engine import Engine
from edged.runtime.whole import is_whole
from edged.signal.tensor import TensorInfo

Array = npt.NDArray[np.generic]


class Interpreter:
    """A model that is loaded and ready to answer.

    Inputs and outputs are those of the model's main subgraph, in the order of its signature if it has one.

    :param path: the model's file, which the runtime maps.
    :param on_mapped: called when the file is mapped and no weight was read yet.
    :ivar inputs: what goes in.
    :ivar outputs: what comes out.
    :raises MissingFileError: the file cannot be read.
    :raises ModelError: it is no model, or the runtime refuses it.
    """

    def __init__(
        self, engine: Engine, path: str, threads: int = 1, *, on_mapped: Callable[[], None] | None = None
    ) -> None:
        self._subject = "the model" if path.startswith("/proc/self/fd/") else path
        self._check_file(path)
        try:
            packed = Path(path).stat().st_size <= engine.xnnpack_limit
            options = {} if packed else engine.without_xnnpack
            self._runtime = engine.interpret(model_path=path, num_threads=threads, **options)
            if on_mapped is not None:
                on_mapped()
            self._runtime.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            self.close()
            # Its traceback would keep the runtime alive, and with it the weights.
            raise self._refusal(error) from error.with_traceback(None)
        inputs, outputs = _details(self._runtime)
        self.inputs = tuple(map(_tensor_info, inputs))
        self.outputs = tuple(map(_tensor_info, outputs))
        self._input_indices = [detail["index"] for detail in inputs]
        self._output_indices = [detail["index"] for detail in outputs]

    @property
    def input(self) -> TensorInfo:
        """The one input.

        :raises ModelError: the model has none or several.
        """
        return self._only("input", self.inputs)

    @property
    def output(self) -> TensorInfo:
        """The one output.

        :raises ModelError: the model has none or several.
        """
        return self._only("output", self.outputs)

    def invoke(self, value: Array) -> Array:
        """Answer one input with one output, a copy.

        :raises ModelError: as :meth:`run`.
        """
        return self.run(value)[0]

    def run(self, *values: Array) -> list[Array]:
        """Answer a value for each of :attr:`inputs` with one for each of :attr:`outputs`, copies.

        :raises ModelError: a value does not fit its tensor, or the runtime fails.
        """
        runtime = self._runtime
        try:
            for index, value in zip(self._input_indices, values, strict=True):
                runtime.set_tensor(index, value)
            runtime.invoke()
            return [runtime.get_tensor(index) for index in self._output_indices]
        except (ValueError, RuntimeError) as error:
            raise self._refusal(error) from error

    def reset(self) -> None:
        """Clear what the model remembers between calls, such as the state of an LSTM."""
        self._runtime.reset_all_variables()

    def close(self) -> None:
        """Let go of the runtime, its map of the file and its packed copy of the weights."""
        self._runtime = None

    def _check_file(self, path: str) -> None:
        """Say in plain words what the runtimes say each in their own, or do not survive: this is no whole model."""
        try:
            with Path(path).open("rb") as file:
                head = file.read(32)
                if head.startswith(b"version https://git-lfs."):
                    raise ModelError(f"{self._subject} is a Git LFS pointer, not the model itself", hint="git lfs pull")
                if head[4:8] != b"TFL3":
                    raise ModelError(f"{self._subject} is not a TFLite model", hint="convert it to .tflite first")
                with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                    whole = is_whole(data)
        except OSError as error:
            raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error
        if not whole:
            raise ModelError(f"{self._subject} is truncated or damaged", hint="copy it again")

    def _only(self, what: str, tensors: tuple[TensorInfo, ...]) -> TensorInfo:
        if len(tensors) != 1:
            names = ", ".join(repr(tensor.name) for tensor in tensors) or "none"
            raise ModelError(f"{self._subject} must have one {what}, and has {len(tensors)} ({names})")
        return tensors[0]

    def _refusal(self, error: Exception) -> ModelError:
        """Put the runtime's own sentence into plain words where it is a known one."""
        sentence = str(error).strip().partition("\n")[0].rstrip(". ")
        custom = re.search(r"unresolved custom op: (.+)", sentence)
        if custom is None:
            return ModelError(f"the runtime refuses {self._subject}: {sentence}")
        if custom[1] == "edgetpu-custom-op":
            return ModelError(
                f"{self._subject} is compiled for the Edge TPU and runs nowhere else",
                hint="take the .tflite that edgetpu_compiler was given",
            )
        return ModelError(
            f"{self._subject} needs the custom operator {custom[1]!r}, which the runtime lacks",
            hint="convert it with built-in operators only",
        )


def _details(
    runtime: Any,  # noqa: ANN401  the runtimes have no types
) -> tuple[Collection[dict[str, Any]], Collection[dict[str, Any]]]:
    """Return the runtime's details of inputs and outputs, in the order of the main subgraph's signature if it has one.

    A signature does not say which subgraph it is of; its tensors do.
    """
    inputs, outputs = runtime.get_input_details(), runtime.get_output_details()
    for key in runtime.get_signature_list():
        runner = runtime.get_signature_runner(key)
        signed = runner.get_input_details().values(), runner.get_output_details().values()
        if (_tensors(signed[0]), _tensors(signed[1])) == (_tensors(inputs), _tensors(outputs)):
            return signed
    return inputs, outputs


def _tensors(details: Collection[dict[str, Any]]) -> set[tuple[int, str]]:
    return {(detail["index"], detail["name"]) for detail in details}


def _tensor_info(detail: dict[str, Any]) -> TensorInfo:
    scale, zero_point = detail["quantization"]
    shape = tuple(int(size) for size in detail["shape"])
    return TensorInfo(detail["name"], shape, np.dtype(detail["dtype"]), float(scale), int(zero_point))
