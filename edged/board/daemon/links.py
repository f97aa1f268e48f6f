"""The broker that readings come from, and the one that results go to: often the same."""

from __future__ import annotations

from collections.abc import Callable

from edged.board.board import Board
from edged.broker import Broker, Message, run_once


class Links:
    """One broker or two, served from one loop.

    :ivar sensors: readings come from it.
    :ivar uplink: results go to it.
    """

    def __init__(self, board: Board, status: str) -> None:
        config = board.config
        will = Message(status, b"offline", qos=1, retain=True)
        if config.uplink is None:
            self.sensors = self.uplink = Broker(board.broker_options(will=will))
        else:
            self.sensors = Broker(board.broker_options())
            self.uplink = Broker(board.broker_options(config.uplink, will))
        self._all = tuple(dict.fromkeys((self.sensors, self.uplink)))

    def on_error(self, callback: Callable[[Exception], None]) -> None:
        """Have what goes wrong with any of them told."""
        for broker in self._all:
            broker.on_error = callback

    def on_sensors_up(self, callback: Callable[[], None]) -> None:
        """Have it told when the connection that readings come over stands, beside what else is told then."""
        before = self.sensors.on_up

        def both() -> None:
            callback()
            before()

        self.sensors.on_up = both

    def connect(self) -> None:
        """Connect, and again whenever a connection is lost."""
        for broker in self._all:
            broker.connect()

    def run_once(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for something to do, and do it."""
        run_once(self._all, timeout)

    def wake(self) -> None:
        """Have :meth:`run_once` return at once; from any thread, and from signal handlers."""
        self.sensors.wake()

    @property
    def tried(self) -> bool:
        """Whether the first attempts to connect have come to an end, good or bad."""
        return all(broker.tried for broker in self._all)

    def describe(self) -> str:
        """Say in a few words how things stand."""
        if len(self._all) == 1:
            return self.sensors.describe()
        return f"{self.sensors.describe()}; uplink {self.uplink.describe()}"

    def close(self) -> None:
        """Say goodbye. Blocks for about three seconds a broker at most."""
        for broker in self._all:
            broker.close()
