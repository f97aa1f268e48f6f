"""The signal chain and the model without a broker: for `edged try`, and for `edged pack` before it seals."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edged.base.errors import ConfigError, EdgedError, FormatError, OutputError, ReadingShapeError
from edged.formats.channel.epoch import MAX_COUNT
from edged.formats.channel.result import LONGEST_SOURCE, Answer, Result, Sealed
from edged.formats.channel.result_encoder import ResultEncoder
from edged.formats.package.self_test import ARRAYS, SELF_TEST_LIMIT, SelfTest
from edged.formats.spec import Chain, Layout, Tensor
from edged.model.author import TOLERANCE, Author
from edged.model.known_answers import Judge, clear_ones, make_self_test, spread
from edged.model.live import Floats, Memory, Model
from edged.model.runtime import DelegateLibrary, Engine, choose, installed
from edged.model.samples import Samples
from edged.model.signal.axes import axes_of, fits
from edged.model.signal.decide import Decider, Decision
from edged.model.signal.rows import Cleaner, Piece, Timeline
from edged.model.signal.window import new_window

_SELF_TESTS, _CANDIDATES = 8, 64
_ROOM = SELF_TEST_LIMIT - 128 * 1024
"""Bytes for the windows of a self-test; scores take the rest."""


class TriedWindow(NamedTuple):
    """A window and the model's answer to it.

    :ivar best: the label of this window by itself, of a classifier the one with the highest score; None for a
        regressor.
    :ivar right: the label that the file gives, where it gives one.
    :ivar clipped: share of its values that the model's integer inputs clip.
    """

    rows: Floats
    scores: Floats
    decision: Decision
    best: str | None
    right: str | None
    clipped: float


class CheckedWeights(NamedTuple):
    """Weights that answer the self-test of their manifest.

    :ivar author: the manifest, with the layouts stated that the shapes of the model's inputs decide: they stay as they
        are when the next version has other shapes.
    :ivar outputs: number of scores.
    :ivar tested: engines that answer the self-test: those that it was recorded with, and those that are installed here.
    :ivar failures: of engines that are installed here, by their names.
    """

    author: Author
    outputs: int
    tested: tuple[str, ...]
    failures: Mapping[str, EdgedError]


def check_weights(author: Author, base: Path, weights: Path) -> CheckedWeights:
    """Refuse weights that the preferred engine refuses, that do not fit the manifest, or that fail its self-test.

    :raises ModelError: so they do.
    :raises ConfigError: the manifest or its self-test cannot be used.
    """
    test, recorded = author.read_recording(base)
    preferred = choose("auto")
    author, outputs = _check_with(preferred, author, weights, test)
    tested, failures = [preferred.title], {}
    for engine in installed():
        if engine.name != preferred.name:
            try:
                _check_with(engine, author, weights, test)
                tested.append(engine.title)
            except EdgedError as error:
                failures[engine.title] = error
    others = [one for one in recorded if one not in tested and one not in failures]
    return CheckedWeights(author, outputs, (*tested, *others), failures)


def _check_with(engine: Engine, author: Author, weights: Path, test: SelfTest) -> tuple[Author, int]:
    model = open_model(author, weights, engine)
    try:
        model.self_test(test)
        ResultCheck(author, model.outputs).check(Decider(author, {}).step(np.zeros(model.outputs, np.float32), 0.0))
        return author.with_layouts({name: order.layout for name, order in model.orders.items()}), model.outputs
    finally:
        model.close()


class ResultCheck:
    """Encodes decisions as a board does, and opens them as a hub does.

    :raises ConfigError: a result holds more scores than hubs accept.
    """

    def __init__(self, chain: Chain, outputs: int) -> None:
        self._encoder = ResultEncoder.of(chain, "tried", 1, bytes(32), outputs=outputs, tune={})

    def check(self, decision: Decision) -> None:
        """Check that hubs accept the result of a decision.

        :raises ConfigError: they refuse it.
        """
        label, score, value, scores, top, _ = decision
        answer = Answer(label, score, value, scores, top, "+" * LONGEST_SOURCE)
        try:
            Result.parse(self._encoder.encode(answer, MAX_COUNT, 0.0, Sealed(bytes(8), 0, MAX_COUNT)))
        except FormatError as error:
            raise ConfigError(f"output: hubs would refuse its results: {error.message}") from error


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
    :raises ConfigError: hubs would refuse the results.
    """
    decider, results = Decider(chain, {}), ResultCheck(chain, model.outputs)
    memory = None if chain.model.reset == "window" else Memory()
    labels = chain.output.labels
    for window in _windows(chain, samples):
        if memory is not None and window.restarts:
            memory.clear()
        scores = model.scores(window.rows, memory)
        best = labels[int(np.argmax(scores))] if chain.output.kind == "classifier" else None
        decision = decider.step(scores, time.monotonic())
        results.check(decision)
        right, clipped = _label_name(window.right, labels), model.clipped(window.rows)
        yield TriedWindow(window.rows, scores, decision, best or decision.label, right, clipped)


def _windows(chain: Chain, samples: Samples) -> Iterator[_SampleWindow]:
    values, labels = samples.values, samples.labels
    rows, channels = chain.rows, len(chain.input.channels)
    clean = Cleaner(chain.input)
    if values.ndim > 2 and (layout := _layout_of(chain, values.shape[1:])) is not None:  # noqa: PLR2004  whole windows
        for at, window in enumerate(values):
            ordered = window.reshape(channels, -1).T if layout == "channels_first" else window.reshape(-1, channels)
            whole = clean(ordered.astype(np.float32, copy=False))
            yield _SampleWindow(whole, None if labels is None else labels[at], at == 0)
        return
    if values.ndim != 2 or values.shape[1] != channels:  # noqa: PLR2004  rows of channels
        raise ReadingShapeError(
            f"samples of shape {values.shape} are neither rows of {channels} channels nor windows of"
            f" ({'rows' if rows is None else rows}, {channels})"
        )
    yield from _rows_to_windows(chain, samples, clean(values))


def _layout_of(chain: Chain, shape: tuple[int, ...]) -> Layout | None:
    """Return the layout of whole windows of a shape; None if they are none."""
    channels = len(chain.input.channels)
    if chain.rows is None:
        return "channels_last" if shape[1:] == (channels,) else None
    axes = axes_of(chain, Tensor(layout=chain.input.layout))
    return next((layout for layout, of in axes.items() if fits(of, shape)), None)


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

    :ivar unclear: windows whose label another engine turns over, or may well turn over.
    :ivar tolerance: that was written with them.
    :ivar apart: largest difference of two engines' scores, as a share of their spread.
    :ivar doubtful: all windows are unclear, and those that were written are such on which the engines here agree.
    """

    written: int
    unclear: int
    tolerance: float
    apart: float
    doubtful: bool


def record_self_test(
    model: Model,
    chain: Chain,
    tried: Sequence[TriedWindow],
    path: Path,
    tolerance: float = TOLERANCE,
    *,
    engines: Mapping[str, Model] | None = None,
) -> Recorded:
    """Write windows with their scores for ``[self_test]``: a few, spread over the labels, or over the values.

    The state of a model is cleared before each. Windows on which the engines agree come first; the tolerance that is
    written is at least twice as large as what lies between them.

    :param tolerance: the least.
    :param engines: the same model in each engine that shall answer, too, by the engines' names.
    :raises ConfigError: there is nothing to record.
    :raises OutputError: it cannot be written.
    """
    if not tried:
        raise ConfigError("there is no window to record a self-test from")
    chosen = _candidates(tried)
    scores = np.stack([model.scores(window.rows) for window in chosen])
    others = [np.stack([other.scores(window.rows) for window in chosen]) for other in (engines or {}).values()]
    judge, kind = Judge(chain), chain.output.kind
    apart = np.max([np.abs(scores - one) for one in others], axis=0) if others else np.zeros_like(scores)
    close = (apart <= tolerance / 2 * spread(scores, kind)).all(axis=1)
    agreed = [at for at in range(len(chosen)) if all(judge.agree(one[at], scores[at]) for one in others)]
    clear = [at for at in clear_ones(list(scores), tolerance, chain) if at in agreed]
    if not agreed:
        raise ConfigError(
            f"none of {len(chosen)} windows has one label in all of {', '.join(engines or ())}",
            hint="record from windows that the model is surer of",
        )
    usable = sorted(clear or agreed, key=lambda at: not close[at])
    kept = usable[: max(1, min(_SELF_TESTS, _ROOM // _encoded_size(chain, chosen[usable[0]].rows)))]
    share = float((apart[kept] / spread(scores[kept], kind)).max())
    tolerance = max(tolerance, 2 * share)
    test = make_self_test(chain, tolerance, [chosen[at].rows for at in kept], [scores[at] for at in kept])
    windows = [
        np.frombuffer(case.window.data, ARRAYS[case.window.tag]).reshape(chosen[at].rows.shape)
        for case, at in zip(test.cases, kept, strict=True)
    ]
    if len({window.shape for window in windows}) == 1 and len({window.dtype for window in windows}) == 1:
        arrays = {"windows": np.stack(windows)}
    else:
        arrays = {f"window_{number}": window for number, window in enumerate(windows)}
    names = np.array(list(engines or ()), np.str_)
    try:
        np.savez(path, allow_pickle=False, scores=scores[kept], tolerance=tolerance, engines=names, **arrays)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    return Recorded(len(kept), len(chosen) - len(clear), tolerance, share, doubtful=not clear)


def _candidates(tried: Sequence[TriedWindow]) -> Sequence[TriedWindow]:
    """Return windows in turn of each label; of a regressor those of the lowest and highest values, and between them."""
    by_label: dict[str | None, list[TriedWindow]] = {}
    for window in tried:
        by_label.setdefault(window.best, []).append(window)
    if None in by_label:
        ordered = sorted(tried, key=lambda window: float(window.scores[0]))
        places = np.linspace(0, len(ordered) - 1, min(_SELF_TESTS, len(ordered)))
        return [ordered[round(place)] for place in places]
    rounds = max(map(len, by_label.values()))
    return [group[at] for at in range(rounds) for group in by_label.values() if at < len(group)][:_CANDIDATES]


def _encoded_size(chain: Chain, window: Floats) -> int:
    """Return the bytes that a window takes in a self-test, at most."""
    return window.size * (1 if chain.input.image is not None else window.itemsize)
