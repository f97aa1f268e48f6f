"""One model's way from a message to an answer: open, decode, clean, window, infer, decide.

Sealing, publishing and time are the daemon's.
"""

from edged.pipeline.binding import check_binding, check_chain, check_state
from edged.pipeline.collect import Collected, Collector, like
from edged.pipeline.lane import Answered, Job, Lane
from edged.pipeline.message import Decoders, Message, Reading
from edged.pipeline.stream import Start
from edged.pipeline.worker import Worker

__all__ = [
    "Answered",
    "Collected",
    "Collector",
    "Decoders",
    "Job",
    "Lane",
    "Message",
    "Reading",
    "Start",
    "Worker",
    "check_binding",
    "check_chain",
    "check_state",
    "like",
]
