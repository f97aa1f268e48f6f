"""Ask a broker whether it takes this client, for `edged check`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from edged.broker.client import Broker
from edged.broker.options import Address, BrokerOptions
from edged.errors import BrokerError


@dataclass(frozen=True)
class ProbeResult:
    """What a broker that took this client is like.

    :ivar seconds: from nothing to being accepted.
    """

    description: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.description}, {self.seconds * 1000:.0f} ms"


def probe(options: BrokerOptions, timeout: float) -> ProbeResult:
    """Connect once and leave again. The client id is another one, so that a daemon that runs is not thrown out.

    :raises BrokerError: the broker cannot be reached within ``timeout`` seconds, or refuses.
    """
    client_id = f"{options.client_id}-check" if options.client_id else ""
    broker = Broker(replace(options, client_id=client_id, session_expiry=0, will=None))
    began = time.monotonic()
    try:
        broker.on_error = _say_nothing
        broker.connect()
        while not broker.is_up:
            left = began + timeout - time.monotonic()
            if broker.last_error is not None:
                raise broker.last_error
            if left <= 0:
                raise BrokerError(f"broker {Address.parse(options.url)}: no answer within {timeout:.0f} seconds")
            broker.run_once(left)
        return ProbeResult(broker.describe(), time.monotonic() - began)
    finally:
        broker.close()


def _say_nothing(_error: Exception) -> None:
    """Leave it to the caller, who gets it raised."""
