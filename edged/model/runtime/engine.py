"""Which runtime: LiteRT or TFLite, whichever is installed or configured; and the accelerators that it may use."""

from __future__ import annotations

import ctypes
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edged.base.errors import ConfigError

EngineName = Literal["litert", "tflite"]
EngineChoice = Literal["auto", "litert", "tflite"]
XnnpackChoice = Literal["auto", "on", "off"]

_PACKAGES: dict[EngineName, str] = {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}  # in order of preference
_PACKING_LIMIT = 16_000_000
"""Bytes of a model above which tflite-runtime, the runtime of small boards, does without XNNPACK.

It packs a second copy of all float weights, and a small board has better use for that memory.
"""

_EXTRA = "pip install 'edged[litert]' on 64-bit systems; tflite-runtime exists for Python 3.11 and older only"


@dataclass(frozen=True, slots=True)
class Engine:
    """A runtime that is installed and can be imported.

    :ivar reason: why it was chosen, for the log.
    :ivar interpret: its class ``Interpreter``.
    :ivar load_delegate: its loader of delegates.
    :ivar xnnpack_limit: bytes of a model up to which XNNPACK runs it.
    :ivar without_xnnpack: what ``interpret`` is told beyond that.
    """

    name: EngineName
    version: str
    reason: str
    interpret: Callable[..., Any] = field(repr=False)
    load_delegate: Callable[..., Any] = field(repr=False)
    xnnpack_limit: float
    without_xnnpack: Mapping[str, object] = field(repr=False)


def choose(engine: EngineChoice = "auto", xnnpack: XnnpackChoice = "auto") -> Engine:
    """Import a runtime: the one that is named, or with ``auto`` LiteRT where it is installed, else TFLite.

    :param xnnpack: whether XNNPACK runs what it can, faster, and from a copy of float weights of its own; ``auto``
        leaves it out where tflite-runtime is given a large model.
    :raises ConfigError: it is not installed, or does not fit the numpy that is.
    """
    failures = []
    for name in _PACKAGES if engine == "auto" else (engine,):
        package = _PACKAGES[name]
        try:
            module = importlib.import_module(f"{package}.interpreter")
        except ImportError as error:
            failures.append(str(error).partition("\n")[0])
            continue
        reason = "as configured" if engine != "auto" else "; ".join(failures) or "preferred where it is installed"
        return Engine(
            name,
            importlib.import_module(package).__version__,
            reason,
            module.Interpreter,
            module.load_delegate,
            xnnpack_limit=_xnnpack_limit(name, xnnpack),
            without_xnnpack={"experimental_op_resolver_type": module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES},
        )
    raise ConfigError(f"runtime.engine = {engine!r} cannot be used: {'; '.join(failures)}", hint=_EXTRA)


def _xnnpack_limit(name: EngineName, choice: XnnpackChoice) -> float:
    if choice == "off":
        return 0.0
    return _PACKING_LIMIT if choice == "auto" and name == "tflite" else math.inf


_FUNCTIONS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
"""What makes a library a delegate (tensorflow/lite/delegates/external/external_delegate_interface.h)."""


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
            return engine.load_delegate(self.path, dict(self.options))
        except (OSError, ValueError, RuntimeError, AttributeError) as error:
            what = str(error).strip().rpartition("\n")[2]  # the delegate's own words, if it has any, come last
            what = what.removeprefix(f"{self.path}: ")
            raise ConfigError(
                f"runtime.delegates.{self.name}.library: {self.path} cannot be used: {what}",
                hint="install the accelerator's library, or leave `delegate` out of the [[model]]",
            ) from error
