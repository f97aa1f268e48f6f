"""The time, for a board that may have started in 1970.

now = max(synchronised clock, newest publisher-signed ``created``, date of this build). An unsigned clock that nothing
synchronised is not trusted beyond that, and never stored.
"""

from __future__ import annotations

import ctypes
import time

import msgspec

BUILD = 1_795_219_200
"""2026-11-21, in Unix seconds: no board that runs this release lives earlier."""

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_SIZE = 256  # struct timex takes 208 bytes on 64-bit Linux; with modes = 0 the kernel only fills it


def is_synchronised() -> bool:
    """Return whether the kernel holds its clock to be synchronised (adjtimex(2)), as NTP clients tell it."""
    timex = ctypes.create_string_buffer(_TIMEX_SIZE)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    return state not in (-1, _TIME_ERROR)


class Clock(msgspec.Struct, frozen=True):
    """A reading of the time, in Unix seconds.

    :ivar synchronised: whether it may be used to say that something lies in the future.
    """

    now: float
    synchronised: bool

    @classmethod
    def read(cls, *, trusted: bool, signed: int = 0) -> Clock:
        """Read the clock.

        :param trusted: the operator vouches for it (``device.clock = "trusted"``).
        :param signed: newest ``created`` that a publisher signed and this board accepted.
        """
        synchronised = trusted or is_synchronised()
        return cls(max(time.time() if synchronised else 0.0, signed, BUILD), synchronised)
