"""Which runtime: LiteRT or TFLite, whichever is installed or configured."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from edged.errors import ConfigError

EngineName = Literal["litert", "tflite"]
EngineChoice = Literal["auto", "litert", "tflite"]

_PACKAGES: dict[EngineName, str] = {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}  # in order of preference
_EXTRA = "pip install 'edged[litert]' on 64-bit systems; tflite-runtime exists for Python 3.11 and older only"


@dataclass(frozen=True, slots=True)
class Engine:
    """A runtime that is installed and can be imported.

    :ivar reason: why it was chosen, for the log.
    :ivar interpret: its class ``Interpreter``.
    """

    name: EngineName
    version: str
    reason: str
    interpret: Callable[..., Any] = field(repr=False)


def choose(engine: EngineChoice = "auto") -> Engine:
    """Import a runtime: the one that is named, or with ``auto`` LiteRT where it is installed, else TFLite.

    :raises ConfigError: it is not installed, or does not fit the numpy that is.
    """
    failures = []
    for name in _PACKAGES if engine == "auto" else (engine,):
        package = _PACKAGES[name]
        try:
            interpret = importlib.import_module(f"{package}.interpreter").Interpreter
        except ImportError as error:
            failures.append(str(error).partition("\n")[0])
            continue
        reason = "as configured" if engine != "auto" else "; ".join(failures) or "preferred where it is installed"
        return Engine(name, importlib.import_module(package).__version__, reason, interpret)
    raise ConfigError(f"runtime.engine = {engine!r} cannot be used: {'; '.join(failures)}", hint=_EXTRA)
