"""The broker: one connection to an MQTT broker that comes back by itself, served from the caller's own loop.

The only importer of paho. :class:`Broker` outlives its connections: it dials (``dial``), speaks MQTT over what was
dialled (``connection``, one paho client for each), and keeps what must survive a loss: subscriptions and messages that
the broker has not acknowledged (``client``). May import: config, formats, base.
"""

from __future__ import annotations

from edged.broker.client import Broker, run_once
from edged.broker.options import Address, BrokerOptions, Delivery, Message, Outcome, Stats, configured
from edged.broker.probe import ProbeResult, probe

__all__ = [
    "Address",
    "Broker",
    "BrokerOptions",
    "Delivery",
    "Message",
    "Outcome",
    "ProbeResult",
    "Stats",
    "configured",
    "probe",
    "run_once",
]
