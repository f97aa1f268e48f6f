"""Accelerators: a delegate is a library of its own, which the runtime's own loader opens."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edged.base.errors import ConfigError
from edged.model.runtime.engine import Engine

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
