"""The guard of the main loop: work that fails, as over a file that is gone, is a degraded part, and is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec

from edged.base.errors import EdgedError, advice
from edged.board.health import Health

_CALM = 1.0
"""Seconds without a failure after which a part works again: one that fails now and then is logged once."""

_Args = ParamSpec("_Args")


class Guard:
    """Wraps the recurring work of the daemon, so that no :class:`EdgedError` or :class:`OSError` ends the process."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._failed: dict[str, float] = {}

    def __call__(self, part: str, work: Callable[_Args, object]) -> Callable[_Args, None]:
        """Return ``work`` guarded.

        :param part: its name, in ``degraded`` while it fails.
        """

        def guarded(*args: _Args.args, **kwargs: _Args.kwargs) -> None:
            try:
                work(*args, **kwargs)
            except (EdgedError, OSError) as error:
                self._failed[part] = time.monotonic()
                self._health.note_state(part, advice(error))
                return
            if part in self._failed and time.monotonic() - self._failed[part] >= _CALM:
                del self._failed[part]
                self._health.note_state(part, "")

        return guarded
