"""``[model]`` and ``[output]``: how the model is asked, and what comes out of it."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from edged.base.errors import ConfigError
from edged.formats.spec.input import Table

MOST_LABELS, LONGEST_LABEL = 1024, 40
"""A sealed result has one size per model: the label's length is made up for by padding, and padding has bounds."""

MOST_TOP = 5


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


class Output(Table, frozen=True):
    """``[output]``: what comes out of the model, and what it means.

    :ivar kind: ``classifier``: a score a label. ``regressor``: numbers. ``anomaly``: the model gives back its input,
        and the error of that is the score.
    :ivar activation: what the model lacks: applied to a classifier's outputs.
    :ivar labels: of a classifier: one an output, in their order. Of an anomaly detector two: what holds below
        ``decide.enter``, and what holds from there on.
    :ivar top_k: results carry this many of the best labels with their scores, instead of all scores.
    :ivar tell: what results say of a decision: the ``label`` alone, its ``score`` too, or all ``scores`` (the best ones
        with ``top_k``) as well.
    :ivar error: of an anomaly detector: mean absolute or mean squared error, in what the model is given (after
        features and normalisation).
    :ivar scale: of a regressor: output * scale + offset is the value.
    :ivar offset: likewise.
    :ivar unit: of a regressor's value.
    """

    kind: Literal["classifier", "regressor", "anomaly"]
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    labels: tuple[str, ...] = ()
    top_k: int | None = None
    tell: Literal["label", "score", "scores"] = "scores"
    error: Literal["mae", "mse"] = "mae"
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""

    def __post_init__(self) -> None:
        who = {"classifier": "a classifier", "regressor": "a regressor", "anomaly": "an anomaly detector"}[self.kind]
        wanted = {"classifier": "at least one", "regressor": "none", "anomaly": "two"}[self.kind]
        fits = {"classifier": bool(self.labels), "regressor": not self.labels, "anomaly": len(self.labels) == 2}  # noqa: PLR2004
        if not fits[self.kind]:
            raise ConfigError(f"output.labels: {who} has {wanted}, not {len(self.labels)}")
        if len(self.labels) > MOST_LABELS or len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"output.labels: at most {MOST_LABELS}, each once")
        for label in self.labels:
            check_label("output.labels", label)
        if self.top_k is not None and not (
            self.kind == "classifier" and 0 < self.top_k <= min(MOST_TOP, len(self.labels))
        ):
            raise ConfigError(f"output.top_k: of a classifier, between 1 and {MOST_TOP} of its labels")
        if self.top_k is not None and self.tell != "scores":
            raise ConfigError("output.top_k: of results that tell scores (output.tell)")
        for key, given, kind in (
            ("activation", self.activation != "none", "classifier"),
            ("error", self.error != "mae", "anomaly"),
            ("scale", self.scale != 1.0, "regressor"),
            ("offset", self.offset != 0.0, "regressor"),
        ):
            if given and kind != self.kind:
                raise ConfigError(f"output.{key}: {who} has none")
        if not (math.isfinite(self.scale) and math.isfinite(self.offset)):
            raise ConfigError("output.scale and output.offset are finite numbers")


def check_label(key: str, label: str) -> None:
    """Refuse a label that does not fit into results.

    :raises ConfigError: so it does.
    """
    if not 0 < len(label.encode()) <= LONGEST_LABEL:
        raise ConfigError(f"{key}: {label!r} is not between 1 and {LONGEST_LABEL} bytes long in UTF-8")
