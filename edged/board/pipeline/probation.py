"""The trial of a new version: it has to answer its first windows, in time, before the version before it goes."""

from __future__ import annotations

import math
import time

from edged.base.errors import EdgedError, ReadingShapeError, TrialError
from edged.base.units import parse_duration
from edged.config.model import TrialTable
from edged.model.live import Floats, LiveModel, Memory

_SLOW = 3
"""Slow windows before a version has failed: a single one may have met a busy moment."""


class Probation:
    """Watches a version until it has answered enough windows.

    :param before: the version to fall back to; None if there is none in memory.
    """

    def __init__(self, trial: TrialTable, before: LiveModel | None) -> None:
        self.before = before
        self._left = trial.windows
        self._longest = math.inf if trial.latency is None else parse_duration(trial.latency)
        self._slow = 0
        self._failed: TrialError | None = None

    @property
    def passed(self) -> bool:
        """True once the version has answered enough windows."""
        return self._left <= 0

    def ask(self, model: LiveModel, window: Floats, memory: Memory | None) -> Floats:
        """Return the model's scores for a window.

        :raises TrialError: it fails, its answers are not finite, or it is too slow too often.
        """
        if self._failed is not None:
            raise TrialError(self._failed.message)
        if self.passed:
            return model.scores(window, memory)
        start = time.perf_counter()
        try:
            scores = model.scores(window, memory)
        except ReadingShapeError:  # too few rows came in a window's time, which is no version's fault
            raise
        except EdgedError as error:
            self._failed = TrialError(f"its trial ended with an error: {error.message}")
            raise self._failed from error
        took = time.perf_counter() - start
        if took > self._longest:
            self._slow += 1
            if self._slow >= _SLOW:
                self._failed = TrialError(f"{_SLOW} windows of its trial took over {self._longest * 1000:g} ms")
                raise self._failed
        self._left -= 1
        return scores
