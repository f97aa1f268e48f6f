"""The engines that edged knows, and the choice among those that are installed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from edged.base.errors import ConfigError
from edged.config.board import EngineChoice, EngineName, XnnpackChoice
from edged.model.runtime.engine import Engine, Runner
from edged.model.runtime.interpreter import Interpreter


class EngineKind(NamedTuple):
    """An engine that may be installed.

    :ivar package: its distribution's package, which states the version.
    :ivar module: the module of it that runs models.
    :ivar runner: class that loads a model into it.
    :ivar xnnpack_limit: bytes of a model above which it does without XNNPACK, unless the site says otherwise.
    """

    package: str
    module: str
    runner: Callable[..., Runner]
    xnnpack_limit: float = math.inf


ENGINES: Mapping[EngineName, EngineKind] = {
    "litert": EngineKind("ai_edge_litert", "ai_edge_litert.interpreter", Interpreter),
    # XNNPACK packs a second copy of all float weights, and a small board has better use for that memory.
    "tflite": EngineKind("tflite_runtime", "tflite_runtime.interpreter", Interpreter, xnnpack_limit=16_000_000),
}
"""In order of preference."""


def installed() -> list[Engine]:
    """Import every engine that is installed, in order of preference."""
    found = []
    for name in ENGINES:
        with suppress(ConfigError):
            found.append(choose(name))
    return found


_EXTRA = "pip install 'edged[litert]' on 64-bit systems; tflite-runtime exists for Python 3.11 and older only"


def choose(engine: EngineChoice = "auto", xnnpack: XnnpackChoice = "auto") -> Engine:
    """Import an engine: the one that is named, or with ``auto`` the first of :data:`ENGINES` that is installed.

    :param xnnpack: use of XNNPACK, which is faster and works on a copy of the float weights; ``auto`` leaves it out for
        large models on tflite-runtime.
    :raises ConfigError: it is not installed, or does not fit the numpy that is.
    """
    failures = []
    for name in ENGINES if engine == "auto" else (engine,):
        kind = ENGINES[name]
        try:
            module = importlib.import_module(kind.module)
        except ImportError as error:
            failures.append(str(error).partition("\n")[0])
            continue
        reason = "as configured" if engine != "auto" else "; ".join(failures) or "preferred where it is installed"
        version = importlib.import_module(kind.package).__version__
        limit = {"auto": kind.xnnpack_limit, "on": math.inf, "off": 0.0}[xnnpack]
        return Engine(name, version, reason, module, kind.runner, limit)
    raise ConfigError(f"runtime.engine = {engine!r} cannot be used: {'; '.join(failures)}", hint=_EXTRA)
