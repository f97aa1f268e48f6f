"""``[publish]``: which decisions are told."""

from __future__ import annotations

import math

from edged.base.units import parse_duration
from edged.formats.spec import Publish

_ENOUGH = 0.999
"""Share of `by` that is as good as all of it: 0.7 - 0.6 is a little below 0.1 in float32, as values are."""


class Teller:
    """What was told last, and when."""

    def __init__(self, publish: Publish) -> None:
        self._changes = publish.when == "change"
        self._by = None if publish.by is None else _ENOUGH * publish.by
        self._least = math.inf if publish.at_least_every is None else parse_duration(publish.at_least_every)
        self._most = 0.0 if publish.at_most_every is None else parse_duration(publish.at_most_every)
        self._told = math.nan
        self._told_at = -math.inf

    def step(self, what: float, now: float) -> bool:
        """Return whether a window's decision is told; the first one is.

        What is compared is what was told last: a change that comes too early is told later, if it still holds then.

        :param what: the label's number, or a regressor's value.
        :param now: monotonic seconds.
        """
        since = now - self._told_at
        if since < self._most or (self._changes and since < self._least and not self._has_changed(what)):
            return False
        self._told, self._told_at = what, now
        return True

    def _has_changed(self, what: float) -> bool:
        if self._by is None:
            return what != self._told
        return abs(what - self._told) >= self._by
