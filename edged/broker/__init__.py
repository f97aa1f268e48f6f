"""The broker: one connection to an MQTT broker that reconnects by itself, served from the caller's own loop.

The only importer of paho. :class:`Broker` outlives its connections: it dials (``dial``), speaks MQTT over the open
socket (``connection``, one ``lean_paho`` client for each), and keeps ``subscriptions``, ``publications`` and
``arrivals`` across them (``client``). ``probe`` asks a broker about its limits. May import: config, formats, base.
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
