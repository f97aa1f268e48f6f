"""Which runtime: LiteRT or TFLite, whichever is installed or configured."""

from __future__ import annotations

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
