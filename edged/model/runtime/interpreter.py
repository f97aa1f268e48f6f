"""One model in one interpreter, and the runtime's refusals in plain words."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.base.errors import MissingFileError, ModelError
from edged.model.runtime.engine import DelegateLibrary, Engine
from edged.model.runtime.flatbuffer import is_complete
from edged.model.runtime.graph import ModelState, Operator, find_state
from edged.model.runtime.refusal import explain
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
    :ivar inputs: the tensors that go in, by name.
    :ivar outputs: the tensors that come out, by name.
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


class Interpreter:
    """A model that is loaded and ready to answer.

    Inputs and outputs are those of the chosen signature, else of the main subgraph, in the order of its signature if it
    has one.

    :param path: the model's file, which the runtime maps.
    :param signature: one of the model's signatures; default: the main subgraph.
    :param delegates: accelerators that run what they can.
    :param on_mapped: called when the file is mapped and no weight was read yet.
    :ivar inputs: the tensors that go in.
    :ivar outputs: the tensors that come out.
    :ivar subgraph: the number of the subgraph that is run.
    :ivar input_indices: the numbers of the inputs' tensors in it.
    :ivar output_indices: likewise.
    :ivar has_variables: the model has variable tensors, which :meth:`reset` clears.
    :ivar has_resources: the model assigns resource variables, which :meth:`reset` clears by reloading the model.
    :raises MissingFileError: the file cannot be read.
    :raises ConfigError: a delegate cannot be loaded.
    :raises ModelError: it is no model, or the runtime refuses it.
    """

    def __init__(
        self,
        engine: Engine,
        path: str,
        threads: int = 1,
        *,
        signature: str | None = None,
        delegates: Sequence[DelegateLibrary] = (),
        on_mapped: Callable[[], None] | None = None,
    ) -> None:
        self._subject = "the model" if path.startswith("/proc/self/fd/") else path
        self._path = path
        self._engine = engine
        self._threads = threads
        self._signature = signature
        self._delegates = delegates
        self._on_mapped = on_mapped
        self._shapes: Sequence[tuple[int, ...]] | None = None
        self._state = self._check_file(path)
        self.has_variables, self.has_resources = self._state.variables, self._state.resources
        self._load()

    def _load(self) -> None:
        delegates = [delegate.load(self._engine) for delegate in self._delegates]
        try:
            packed = Path(self._path).stat().st_size <= self._engine.xnnpack_limit
            module, options = self._engine.module, {}
            if not packed:
                without = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                options["experimental_op_resolver_type"] = without
            if delegates:
                options["experimental_delegates"] = delegates
            self._runtime = module.Interpreter(model_path=self._path, num_threads=self._threads, **options)
            if self._on_mapped is not None:
                self._on_mapped()
            self._runtime.allocate_tensors()
            self._choose_signature()
            if self._shapes is not None:
                self._set_shapes(self._shapes)
            self._describe()
        except (ValueError, RuntimeError) as error:
            self.close()
            # Its traceback would keep the runtime alive, and with it the weights.
            raise self._refusal(error) from error.with_traceback(None)
        except ModelError:
            self.close()
            raise

    def _choose_signature(self) -> None:
        """Find the tensors to work with: of the main subgraph where that is what is wanted, else of a runner."""
        runtime, known = self._runtime, self._state.signatures
        if self._signature is not None and self._signature not in known:
            raise ModelError(
                f"model.signature: {self._subject} has no signature {self._signature!r}",
                hint=f"it has {', '.join(map(repr, known)) or 'none'}",
            )
        self._runner, self.subgraph = None, 0
        self._inputs = _by_name(runtime.get_input_details())
        self._outputs = _by_name(runtime.get_output_details())
        for key in known if self._signature is None else (self._signature,):
            if self._signature is None and known[key] != 0:
                continue
            runner = runtime.get_signature_runner(key)
            inputs, outputs = (
                {name: one["index"] for name, one in side.items()}
                for side in (runner.get_input_details(), runner.get_output_details())
            )
            if self._signature is not None or self._is_main(inputs, outputs):
                self._inputs, self._outputs, self.subgraph = inputs, outputs, known[key]
                self._runner = runner if self.subgraph else None
                return

    def _is_main(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bool:
        """Return True if a signature of the main subgraph names all its tensors."""
        same = (set(inputs.values()), set(outputs.values()))
        return same == (set(self._inputs.values()), set(self._outputs.values()))

    def _describe(self) -> None:
        runtime, runner = self._runtime, self._runner
        if runner is not None:
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
        else:
            found = {one["index"]: one for one in (*runtime.get_input_details(), *runtime.get_output_details())}
            inputs = {name: found[index] for name, index in self._inputs.items()}
            outputs = {name: found[index] for name, index in self._outputs.items()}
        self.inputs = tuple(tensor_info(name, detail) for name, detail in inputs.items())
        self.outputs = tuple(tensor_info(name, detail) for name, detail in outputs.items())
        self.input_indices = list(self._inputs.values())
        self.output_indices = list(self._outputs.values())

    def run(self, *values: Array) -> list[Array]:
        """Answer a value for each of :attr:`inputs` with one for each of :attr:`outputs`, copies.

        :raises ModelError: a value does not fit its tensor, or the runtime fails.
        """
        runtime = self._runtime
        try:
            if self._runner is not None:
                found = self._runner(**dict(zip(self._inputs, values, strict=True)))
                return [found[name] for name in self._outputs]
            for index, value in zip(self.input_indices, values, strict=True):
                runtime.set_tensor(index, value)
            runtime.invoke()
            return [runtime.get_tensor(index) for index in self.output_indices]
        except (ValueError, RuntimeError) as error:
            raise self._refusal(error) from error

    def signature(self, key: str) -> Signature:
        """Return another of the model's signatures; after a :meth:`reset` it may have to be fetched again.

        :raises ModelError: there is none of that name, or the runtime refuses it.
        """
        known = self._state.signatures
        if key not in known:
            raise ModelError(
                f"{self._subject} has no signature {key!r}", hint=f"it has {', '.join(map(repr, known)) or 'none'}"
            )
        try:
            return Signature(key, self._runtime.get_signature_runner(key))
        except (ValueError, RuntimeError) as error:
            raise self._refusal(error) from error

    def resize(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Give each input a shape, where the model leaves sizes open; :attr:`inputs` and :attr:`outputs` follow.

        :raises ModelError: the runtime refuses it.
        """
        try:
            self._shapes = shapes
            self._set_shapes(shapes)
            self._describe()
        except (ValueError, RuntimeError) as error:
            raise self._refusal(error) from error

    def _set_shapes(self, shapes: Sequence[tuple[int, ...]]) -> None:
        if self._runner is not None:
            raise ModelError(
                f"model.signature: {self._signature!r} has open sizes, which only the main subgraph may have"
            )
        for index, shape in zip(self.input_indices, shapes, strict=True):
            self._runtime.resize_tensor_input(index, shape, strict=True)
        self._runtime.allocate_tensors()

    def reset(self) -> None:
        """Clear the state between calls: variable tensors at once, resource variables by reloading the model.

        :raises ModelError: the runtime refuses it.
        """
        if self.has_resources:
            self._load()
        else:
            self._runtime.reset_all_variables()

    def nodes(self) -> list[Operator]:
        """Return the main subgraph's operators in the file's order, and then what delegates put in their place."""
        return [
            Operator(one["op_name"], tuple(map(int, one["inputs"])), tuple(map(int, one["outputs"])))
            for one in self._runtime._get_ops_details()  # noqa: SLF001  there is no other way
        ]

    def close(self) -> None:
        """Let go of the runtime, its map of the file and its packed copy of the weights."""
        self._runtime = self._runner = None

    def _check_file(self, path: str) -> ModelState:
        """Find the state in a model's file; refuse a file on which the runtimes disagree, or crash."""
        try:
            with Path(path).open("rb") as file:
                head = file.read(32)
                if head.startswith(b"version https://git-lfs."):
                    raise ModelError(f"{self._subject} is a Git LFS pointer, not the model itself", hint="git lfs pull")
                if head[4:8] != b"TFL3":
                    raise ModelError(f"{self._subject} is not a TFLite model", hint="convert it to .tflite first")
                with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                    state = find_state(data, self._signature) if is_complete(data) else None
        except (struct.error, IndexError):
            state = None
        except OSError as error:
            raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error
        if state is None:
            raise ModelError(f"{self._subject} is truncated or damaged", hint="copy it again")
        return state

    def _refusal(self, error: Exception) -> ModelError:
        """Put the runtime's own sentence into plain words where it is a known one."""
        sentence = str(error).strip().partition("\n")[0].rstrip(". ")
        if self._delegates and "delegate application failure" in sentence:
            names = ", ".join(f"runtime.delegates.{delegate.name}" for delegate in self._delegates)
            return ModelError(
                f"{names}: the delegate fails to take {self._subject}",
                hint="look at its own messages above, or leave `delegate` out of the [[model]]",
            )
        return explain(self._subject, sentence, self._state.custom)


def _by_name(details: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the tensors' numbers by their names; one whose name another has, too, has its number at the end."""
    named: dict[str, int] = {}
    for one in details:
        taken = not one["name"] or one["name"] in named
        named[f"{one['name']}:{one['index']}" if taken else one["name"]] = one["index"]
    return named
