"""The way from a message to an answer of one model: open, decode, clean, window, infer, decide.

``lane`` is one model in use, ``stream`` its windows; delivery seals and publishes the answers. May import: state.
"""

from edged.board.pipeline.binding import check_binding, check_chain, check_state
from edged.board.pipeline.example_selector import Example, ExampleSelector, like
from edged.board.pipeline.lane import Lane
from edged.board.pipeline.message import Answered, Job, Message, Reading
from edged.board.pipeline.stream import Decoders, Start

__all__ = [
    "Answered",
    "Decoders",
    "Example",
    "ExampleSelector",
    "Job",
    "Lane",
    "Message",
    "Reading",
    "Start",
    "check_binding",
    "check_chain",
    "check_state",
    "like",
]
