"""The time and the numbers of epochs, which go on while the state can neither be read nor written."""

from __future__ import annotations

from edged.base.clock import Clock
from edged.base.errors import StateError
from edged.board.daemon.audit_trail import AuditTrail
from edged.board.health import Health
from edged.board.state import State


class BoardTime:
    """The best known time.

    :param trusted: somebody vouches for the clock.
    """

    def __init__(self, state: State, health: Health, *, trusted: bool) -> None:
        self._state = state
        self._health = health
        self._trusted = trusted
        self._signed = 0

    def read(self) -> Clock:
        """Return the time; without a state that can be read, by the newest signed date that it held before."""
        try:
            self._signed = self._state.newest_created()
        except StateError as error:
            self._health.trouble(error.message, "StateError")
        return Clock.read(trusted=self._trusted, signed=self._signed)


class Epochs:
    """Numbers the epochs of the channel key."""

    def __init__(self, state: State, time: BoardTime, audit_trail: AuditTrail, health: Health) -> None:
        self._state = state
        self._time = time
        self._audit_trail = audit_trail
        self._health = health
        self._last, self._kid = 0, b""

    def begin(self, kid: bytes, at_least: int) -> int:
        """Return the number of a new epoch, durable where the state can be written; of the same key the same number.

        It is above all that this process gave before: some of them the state may never have heard of.

        :raises StateError: it cannot be, and nothing else says that the number was never used.
        """
        clock = self._time.read()
        above = self._last if kid == self._kid else self._last + 1
        least = max(at_least, above, int(clock.now) if clock.synchronised else 0)
        try:
            number = self._state.begin_epoch(kid, least)
        except StateError as error:
            if not clock.synchronised and not self._last:
                raise
            self._health.trouble(error.message, "StateError")
            number = least
        self._last, self._kid = number, kid
        self._audit_trail.epoch(number, kid)
        return number
