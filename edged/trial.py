"""The signal chain and the model without a broker: what `edged try` runs, and `edged pack` asks before it seals."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edged.errors import ConfigError, ReadingShapeError
from edged.model import Floats, Model
from edged.package.author import Author
from edged.runtime import Engine, Interpreter, choose
from edged.samples import Samples
from edged.signal.decide import Decider, Decision
from edged.signal.spec import Chain
from edged.signal.window import Window

_SELF_TESTS = 8


class Trial(NamedTuple):
    """One window's answer.

    :ivar best: the label with the highest score; None for a regressor.
    :ivar right: the label that the file gives, where it gives one.
    """

    window: Floats
    scores: Floats
    decision: Decision
    best: str | None
    right: str | None


def check_weights(author: Author, base: Path, weights: Path) -> None:
    """Refuse weights that the runtime refuses, that do not fit the manifest, or that fail its self-test.

    :raises ModelError: so they do.
    :raises ConfigError: the manifest or its self-test cannot be used.
    """
    model = open_model(author, weights, choose("auto"))
    try:
        model.self_test(author.read_self_test(base), _window_shape(author))
    finally:
        model.close()


def open_model(chain: Chain, weights: Path, engine: Engine) -> Model:
    """Load a .tflite file as it is, for a publisher who has it in plain anyway.

    :raises ModelError: the runtime refuses it, or it does not fit ``chain``.
    """
    return Model(chain, Interpreter(engine, str(weights), 1))


def try_samples(model: Model, chain: Chain, samples: Samples) -> Iterator[Trial]:
    """Answer every window of ``samples``, whole ones as they come and rows through the manifest's window.

    :raises ReadingShapeError: the samples have another shape than the manifest's windows.
    """
    decider = Decider(chain, {})
    labels = chain.output.labels
    for window, right in _windows(chain, samples):
        scores = model.scores(window)
        best = labels[int(np.argmax(scores))] if labels else None
        yield Trial(window, scores, decider.step(scores, time.monotonic()), best, _label_name(right, labels))


def _windows(chain: Chain, samples: Samples) -> Iterator[tuple[Floats, str | None]]:
    values, labels = samples.values, samples.labels
    shape = _window_shape(chain)
    if values.ndim > 2 and values[0].size == shape[0] * shape[1]:  # noqa: PLR2004  windows of rows of channels
        for at in range(len(values)):
            yield values[at].reshape(shape), None if labels is None else labels[at]
        return
    if values.ndim != 2 or values.shape[1] != shape[1]:  # noqa: PLR2004  rows of channels
        raise ReadingShapeError(
            f"samples of shape {values.shape} are neither rows of {shape[1]} channels nor windows of {shape}"
        )
    window = Window(chain.window.size, chain.window.step, shape[1])
    for full in window.push(values):
        yield full.rows.copy(), None if labels is None else labels[full.last]


def _window_shape(chain: Chain) -> tuple[int, int]:
    return chain.window.size, len(chain.input.channels)


def _label_name(right: str | None, labels: Sequence[str]) -> str | None:
    """Return a label's name; files often number them."""
    if right is None or right in labels or not right.isdecimal() or int(right) >= len(labels):
        return right
    return labels[int(right)]


def record_self_test(trials: Sequence[Trial], path: Path) -> int:
    """Write windows with their scores for ``[self_test]``: a few, spread over the labels. Return how many.

    :raises ConfigError: there is nothing to record.
    """
    if not trials:
        raise ConfigError("there is no window to record a self-test from")
    by_label: dict[str | None, list[Trial]] = {}
    for trial in trials:
        by_label.setdefault(trial.best, []).append(trial)
    rounds = max(map(len, by_label.values()))
    chosen = [group[at] for at in range(rounds) for group in by_label.values() if at < len(group)][:_SELF_TESTS]
    np.savez(
        path, windows=np.stack([trial.window for trial in chosen]), scores=np.stack([trial.scores for trial in chosen])
    )
    return len(chosen)
