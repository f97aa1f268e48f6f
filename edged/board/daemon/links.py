"""The brokers that a daemon talks to."""

from __future__ import annotations

from collections.abc import Callable

from edged.board.installation import Board
from edged.broker import Broker, Message, run_once


class Links:
    """The sensor broker and the uplink, often the same, served from one loop.

    :ivar sensors: the broker that readings come from.
    :ivar uplink: the broker that results go to.
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
        """Call ``callback`` with each error of either broker."""
        for broker in self._all:
            broker.on_error = callback

    def connect(self) -> None:
        """Connect, and reconnect whenever a connection is lost."""
        for broker in self._all:
            broker.connect()

    def run_once(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for socket events, and process them."""
        run_once(self._all, timeout)

    def wake(self) -> None:
        """Make :meth:`run_once` return at once; from any thread, and from signal handlers."""
        self.sensors.wake()

    @property
    def tried(self) -> bool:
        """True once the first attempts to connect have succeeded or failed."""
        return all(broker.tried for broker in self._all)

    def faults(self) -> dict[str, str]:
        """Return the reason for each thing that is wrong with a link, by its name."""
        faults: dict[str, str] = {}
        for name, broker in {"uplink": self.uplink, "broker": self.sensors}.items():
            faults |= {f"{name} {part}": why for part, why in broker.faults.items()}
            if broker.tried and not broker.is_up:
                faults[name] = broker.describe()
        return faults if len(self._all) > 1 else {one: why for one, why in faults.items() if one.startswith("broker")}

    def describe(self) -> str:
        """Describe the connections in a few words."""
        if len(self._all) == 1:
            return self.sensors.describe()
        return f"{self.sensors.describe()}; uplink {self.uplink.describe()}"

    def close(self) -> None:
        """Disconnect. Blocks for about three seconds a broker at most."""
        for broker in self._all:
            broker.close()
