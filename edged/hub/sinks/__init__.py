"""Result sinks: the places that accepted results go to, one file each.

A further sink, say a time-series database, is one file here and one entry in ``Hub.sinks`` (:mod:`edged.hub.assembly`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from edged.formats.channel.receiver import Opened
from edged.hub.topics import Place


class AcceptedResult(NamedTuple):
    """A result that was opened and accepted.

    :ivar payload: the result as JSON.
    :ivar newest: True unless the result is late, or a newer one of its place was accepted before.
    """

    opened: Opened
    place: Place
    payload: bytes
    newest: bool


class ResultSink:
    """A place that accepted results go to. Each sink derives from this class and overrides the methods that it needs.

    All methods are called from the hub's main loop: none of them may wait for anything.
    """

    def store(self, result: AcceptedResult) -> None:
        """Queue a result in the hub's state, within the transaction that accepts the result.

        Nothing but the state may change here: the transaction may be rolled back, and the result opened once more.

        :raises StateError: the state cannot be written; the hub tries the whole turn again.
        """

    def deliver(self, result: AcceptedResult) -> None:
        """Pass on a result whose acceptance is durable."""

    def turn(self, now: float) -> None:
        """Do the work that is due.

        :param now: monotonic seconds.
        """

    def due_in(self, now: float) -> float:  # noqa: ARG002  sinks that override it use the time
        """Return the seconds until :meth:`turn` has work to do."""
        return math.inf

    def forget(self, device: str) -> None:
        """Remove everything of a board that is no longer enrolled."""

    def close(self) -> None:
        """Finish before the process ends, while brokers and state are still open."""
