"""Accelerators: a delegate is a library of its own, which the runtime's own loader opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edged.errors import ConfigError
from edged.runtime.engine import Engine


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
            return engine.load_delegate(self.path, dict(self.options))
        except (OSError, ValueError, RuntimeError, AttributeError) as error:
            what = str(error).strip().partition("\n")[0] or "it refuses"
            raise ConfigError(
                f"runtime.delegates.{self.name}.library: {self.path} cannot be used: {what}",
                hint="install the accelerator's library, or leave `delegate` out of the [[model]]",
            ) from error
