"""``[model]`` and ``[tensors]``: how the model is asked."""

from __future__ import annotations

from typing import Literal

import msgspec

from edged.base.errors import ConfigError
from edged.formats.spec.features import Features, Normalise
from edged.formats.spec.table import Table


class ModelTable(Table, frozen=True):
    """``[model]``: how the model is asked.

    :ivar signature: which of its signatures; default: the main subgraph.
    :ivar output: which of its outputs holds the answer, by name; it may be left out where there is one.
    :ivar reset: when a model with state begins anew: with each ``window``, with each ``message`` that holds several
        windows, or at a ``gap`` alone (and whenever a window starts anew).
    :ivar feedback: state that goes through tensors: input = output, by name. It begins with zeros.
    :ivar threads: how many the model was tried with; a board may say otherwise.
    """

    signature: str | None = None
    output: str | None = None
    reset: Literal["window", "message", "gap"] = "window"
    feedback: dict[str, str] = msgspec.field(default_factory=dict)
    threads: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.threads <= 64:  # noqa: PLR2004  a bound, used here only
            raise ConfigError("model.threads: between 1 and 64")
        if self.feedback and self.reset == "window":
            raise ConfigError("model.reset: 'message' or 'gap' with model.feedback: state is of use between windows")


class Tensor(Table, frozen=True):
    """``[tensors.NAME]``: what one of several inputs is given, out of the same window.

    :ivar channels: which of ``input.channels``, in this order; default: all.
    :ivar features: as ``[features]``.
    :ivar normalise: as ``[normalise]``.
    """

    channels: tuple[str, ...] = ()
    features: Features | None = None
    normalise: Normalise = Normalise()
