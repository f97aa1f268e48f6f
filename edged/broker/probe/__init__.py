"""Find out what a broker really does, for `edged check`: MQTT 3.1.1 announces none of its limits, and 5 not all.

Everything is asked with the board's own credentials, under client ids of its own (the board's, and ``-check`` behind
it), so that a daemon that runs is not thrown out; and on topics below ``check/`` of the board's own, which nobody else
listens to. What was asked leaves nothing behind: retained messages are cleared, and the session is ended.

``talk`` is one connection with bounded waits, ``questions`` asks, ``result`` holds the answers, ``words`` says what
they mean to the board.
"""

from __future__ import annotations

from edged.broker.probe.questions import probe
from edged.broker.probe.result import Behaviour, ProbeResult, Redelivery
from edged.broker.probe.words import Remark, remarks

__all__ = ["Behaviour", "ProbeResult", "Redelivery", "Remark", "probe", "remarks"]
