"""The signal chain and the model without a broker: for `edged try`, and for `edged pack` before it seals."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edged.base.errors import ConfigError, OutputError, ReadingShapeError
from edged.formats.channel.result_encoder import ResultEncoder
from edged.formats.package.self_test import ARRAYS
from edged.formats.spec import Chain
from edged.model.author import Author
from edged.model.known_answers import clear_ones, make_self_test
from edged.model.live import Floats, Memory, Model
from edged.model.runtime import DelegateLibrary, Engine, choose
from edged.model.samples import Samples
from edged.model.signal.decide import Decider, Decision
from edged.model.signal.rows import Cleaner, Piece, Timeline
from edged.model.signal.window import new_window

_SELF_TESTS, _CANDIDATES = 8, 64


class TriedWindow(NamedTuple):
    """A window and the model's answer to it.

    :ivar best: the label of this window by itself, of a classifier the one with the highest score; None for a
        regressor.
    :ivar right: the label that the file gives, where it gives one.
    """

    rows: Floats
    scores: Floats
    decision: Decision
    best: str | None
    right: str | None


def check_weights(author: Author, base: Path, weights: Path, delegates: Sequence[DelegateLibrary] = ()) -> Author:
    """Refuse weights that the runtime refuses, that do not fit the manifest, or that fail its self-test.

    Return the manifest with the layouts stated that the shapes of the model's inputs decide: they stay as they are when
    the next version has other shapes.

    :raises ModelError: so they do.
    :raises ConfigError: the manifest or its self-test cannot be used.
    """
    model = open_model(author, weights, choose("auto"), delegates)
    try:
        model.self_test(author.read_self_test(base))
        ResultEncoder.of(author, author.name, author.version, bytes(32), outputs=model.outputs, tune={})
        return author.with_layouts({name: order.layout for name, order in model.orders.items()})
    finally:
        model.close()


def open_model(chain: Chain, weights: Path, engine: Engine, delegates: Sequence[DelegateLibrary] = ()) -> Model:
    """Load a .tflite file as it is, for a publisher who has it in plain anyway.

    :raises ModelError: the runtime refuses it, or it does not fit ``chain``.
    """
    table = chain.model
    return Model(chain, engine.open(str(weights), table.threads, signature=table.signature, delegates=delegates))


class _SampleWindow(NamedTuple):
    """A window of a file.

    :ivar right: the label that the file gives it, if any.
    :ivar restarts: nothing before the window belongs to it.
    """

    rows: Floats
    right: str | None
    restarts: bool


def try_samples(model: Model, chain: Chain, samples: Samples) -> Iterator[TriedWindow]:
    """Answer every window of ``samples``, whole ones as they come and rows through the manifest's window.

    :raises ReadingShapeError: the samples have another shape than the manifest's windows.
    :raises ReadingValueError: they hold a value that the manifest wants refused.
    """
    decider = Decider(chain, {})
    memory = None if chain.model.reset == "window" else Memory()
    labels = chain.output.labels
    for window in _windows(chain, samples):
        if memory is not None and window.restarts:
            memory.clear()
        scores = model.scores(window.rows, memory)
        best = labels[int(np.argmax(scores))] if chain.output.kind == "classifier" else None
        decision = decider.step(scores, time.monotonic())
        yield TriedWindow(window.rows, scores, decision, best or decision.label, _label_name(window.right, labels))


def _windows(chain: Chain, samples: Samples) -> Iterator[_SampleWindow]:
    values, labels = samples.values, samples.labels
    rows, channels = chain.rows, len(chain.input.channels)
    clean = Cleaner(chain.input)
    if values.ndim > 2 and values[0].size == (rows or values.shape[1]) * channels:  # noqa: PLR2004  whole windows
        for at, window in enumerate(values):
            yield _SampleWindow(clean(window.reshape(-1, channels)), None if labels is None else labels[at], at == 0)
        return
    if values.ndim != 2 or values.shape[1] != channels:  # noqa: PLR2004  rows of channels
        raise ReadingShapeError(
            f"samples of shape {values.shape} are neither rows of {channels} channels nor windows of"
            f" ({'rows' if rows is None else rows}, {channels})"
        )
    yield from _rows_to_windows(chain, samples, clean(values))


def _rows_to_windows(chain: Chain, samples: Samples, values: Floats) -> Iterator[_SampleWindow]:
    window, restarts, labels = new_window(chain), True, samples.labels
    times = samples.times
    if times is None:
        times = np.arange(len(values)) / (chain.input.hertz or 1.0)
    pieces = Timeline(chain).push(values, times) if Timeline.needed(chain) else [Piece(values, times, restarts=False)]
    for piece in pieces:
        if piece.restarts:
            window.reset()
            restarts = True
        for full in window.push(piece.rows, piece.times):
            known = labels is not None and chain.input.resample == "none"
            yield _SampleWindow(full.rows.copy(), labels[full.last] if known and labels is not None else None, restarts)
            restarts = False


def _label_name(right: str | None, labels: Sequence[str]) -> str | None:
    """Return a label's name; files often number them."""
    if right is None or right in labels or not right.isdecimal() or int(right) >= len(labels):
        return right
    return labels[int(right)]


class Recorded(NamedTuple):
    """Windows that were written as a self-test, and those that were left out.

    :ivar unclear: windows whose two best labels lie too close: another runtime may well turn them over.
    """

    written: int
    unclear: int


def record_self_test(
    model: Model, chain: Chain, tried: Sequence[TriedWindow], path: Path, tolerance: float
) -> Recorded:
    """Write windows with their scores for ``[self_test]``: a few, spread over the labels.

    The state of a model is cleared before each.

    :param tolerance: of the manifest's self-test.
    :raises ConfigError: there is nothing to record.
    :raises OutputError: it cannot be written.
    """
    if not tried:
        raise ConfigError("there is no window to record a self-test from")
    by_label: dict[str | None, list[TriedWindow]] = {}
    for window in tried:
        by_label.setdefault(window.best, []).append(window)
    rounds = max(map(len, by_label.values()))
    chosen = [group[at] for at in range(rounds) for group in by_label.values() if at < len(group)][:_CANDIDATES]
    scores = [model.scores(window.rows) for window in chosen]
    clear = clear_ones(scores, tolerance, chain.output.kind)
    if not clear:
        raise ConfigError(
            f"none of {len(chosen)} windows has a clear best label: another runtime may answer any of them otherwise",
            hint="record from windows that the model is surer of, or with a smaller self_test.tolerance",
        )
    kept = clear[:_SELF_TESTS]
    test = make_self_test(chain, tolerance, [chosen[at].rows for at in kept], [scores[at] for at in kept])
    windows = [
        np.frombuffer(case.window.data, ARRAYS[case.window.tag]).reshape(chosen[at].rows.shape)
        for case, at in zip(test.cases, kept, strict=True)
    ]
    if len({window.shape for window in windows}) == 1 and len({window.dtype for window in windows}) == 1:
        arrays = {"windows": np.stack(windows)}
    else:
        arrays = {f"window_{number}": window for number, window in enumerate(windows)}
    try:
        np.savez(path, allow_pickle=False, scores=np.stack([scores[at] for at in kept]), **arrays)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    unclear = len(chosen) - len(clear)
    return Recorded(len(kept), unclear)
