"""An engine runs models: what edged asks of one, and the accelerators that it may use."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edged.base.errors import ConfigError
from edged.config.board import EngineName
from edged.model.signal.tensor import TensorInfo

Array = npt.NDArray[np.generic]


class Runner(Protocol):
    """A model that an engine has loaded: all that answering windows takes.

    To add an engine: its name in :mod:`edged.config.board`, a class with these members, made as :meth:`Engine.open`
    says, and a row in :data:`edged.model.runtime.engines.ENGINES`.
    """

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        """The tensors that go in, in the order of :meth:`run`."""

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        """The tensors that come out, in the order of :meth:`run`."""

    @property
    def has_variables(self) -> bool:
        """True if the model keeps state between calls that :meth:`reset` clears at once."""

    @property
    def has_resources(self) -> bool:
        """True if the model keeps state that :meth:`reset` clears only by reloading the model."""

    def resize(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Give each input a shape, where the model leaves sizes open; :attr:`inputs` and :attr:`outputs` follow.

        :raises ModelError: the engine refuses it.
        """

    def run(self, *values: Array) -> list[Array]:
        """Answer a value for each input with one for each output, copies.

        :raises ModelError: a value does not fit its tensor, or the engine fails.
        """

    def reset(self) -> None:
        """Clear the state that the model keeps between calls.

        :raises ModelError: the engine refuses it.
        """

    def close(self) -> None:
        """Let go of the model's file, and of every copy of its weights."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is installed and can be imported.

    :ivar version: of its package.
    :ivar reason: why it was chosen, for the log.
    :ivar module: its own module, as imported.
    :ivar runner: class that loads a model into it.
    :ivar xnnpack_limit: bytes of a model up to which XNNPACK runs it.
    """

    name: EngineName
    version: str
    reason: str
    module: ModuleType = field(repr=False)
    runner: Callable[..., Runner] = field(repr=False)
    xnnpack_limit: float

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"

    def open(
        self,
        path: str,
        threads: int = 1,
        *,
        signature: str | None = None,
        delegates: Sequence[DelegateLibrary] = (),
        on_mapped: Callable[[], None] | None = None,
    ) -> Runner:
        """Load a model.

        :param path: the model's file, which the engine maps.
        :param signature: one of the model's signatures; default: the main graph.
        :param delegates: accelerators that run what they can.
        :param on_mapped: called when the file is mapped and no weight was read yet.
        :raises MissingFileError: the file cannot be read.
        :raises ConfigError: a delegate cannot be loaded.
        :raises ModelError: it is no model, or the engine refuses it.
        """
        return self.runner(self, path, threads, signature=signature, delegates=delegates, on_mapped=on_mapped)


_FUNCTIONS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
"""Functions that every delegate exports (tensorflow/lite/delegates/external/external_delegate_interface.h)."""


@dataclass(frozen=True)
class DelegateLibrary:
    """A delegate as the board's configuration names it.

    :ivar name: of its table, ``[runtime.delegates.NAME]``.
    :ivar path: of the library, or a name that the dynamic linker finds.
    :ivar options: as the library knows them.
    """

    name: str
    path: str
    options: Mapping[str, str] = field(default_factory=dict)

    def load(self, engine: Engine) -> Any:  # noqa: ANN401  the runtimes have no types
        """Return the runtime's delegate.

        :raises ConfigError: the library is absent, is no delegate, or refuses its options.
        """
        try:
            library = ctypes.PyDLL(self.path)
            for function in _FUNCTIONS:  # the runtimes' loaders would leave a traceback behind where one is absent
                getattr(library, function)
            return engine.module.load_delegate(self.path, dict(self.options))
        except (OSError, ValueError, RuntimeError, AttributeError) as error:
            what = str(error).strip().rpartition("\n")[2]  # the delegate's own words, if it has any, come last
            what = what.removeprefix(f"{self.path}: ")
            raise ConfigError(
                f"runtime.delegates.{self.name}.library: {self.path} cannot be used: {what}",
                hint="install the accelerator's library, or leave `delegate` out of the [[model]]",
            ) from error
