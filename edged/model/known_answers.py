"""The self-test: windows and scores as arrays, how far an answer may lie from the signed one, which windows serve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edged.base.errors import ConfigError, FormatError, SelfTestError
from edged.formats.package.self_test import (
    ARRAYS,
    FLOAT32,
    MOST_CASES,
    SELF_TEST_LIMIT,
    SelfTest,
    SelfTestCase,
    TypedArray,
)
from edged.formats.spec import Chain, Decide, Needed
from edged.model.signal.decide import chooser

Floats = npt.NDArray[np.float32]
_TAGS = {np.dtype(form): tag for tag, form in ARRAYS.items()}
_BYTE = np.dtype(np.uint8)
_MOST_BYTE, _EXACT = 255, 1 << 24


def make_self_test(
    chain: Chain, tolerance: float, windows: Sequence[npt.NDArray[Any]], scores: Sequence[npt.NDArray[Any]]
) -> SelfTest:
    """Return a self-test of ``windows`` ([rows, channels] each) and ``scores`` ([outputs] each).

    Windows keep their dtype where it has a typed array; a picture's become uint8, all others float32.

    :raises ConfigError: they do not fit ``chain``, are not exact in float32, or take too much room.
    """
    channels = len(chain.input.channels)
    fits = all(
        window.ndim == 2 and window.shape[1] == channels and len(window) == (chain.rows or len(window))  # noqa: PLR2004
        for window in windows
    ) and all(one.ndim == 1 for one in scores)
    numbers = all(array.dtype.kind in "fiu" for array in (*scores, *windows))
    if not (fits and numbers) or not 0 < len(windows) == len(scores) <= MOST_CASES:
        rows = "rows" if chain.rows is None else chain.rows
        found, answers = (array[0].shape if len(array) else () for array in (windows, scores))
        raise ConfigError(
            f"{len(windows)} windows {found} and {len(scores)} scores {answers} are not"
            f" n of [{rows}, {channels}] and n of [outputs] with n from 1 to {MOST_CASES}"
        )
    cases = (
        SelfTestCase(_encode_window(chain, window), TypedArray(FLOAT32, score.astype("<f4").tobytes()))
        for window, score in zip(windows, scores, strict=True)
    )
    test = SelfTest(float(tolerance), tuple(cases))
    try:
        test.check(chain)
    except FormatError as error:
        raise ConfigError(error.message) from error
    size = len(test.encode())
    if size > SELF_TEST_LIMIT:
        raise ConfigError(
            f"the self-test takes {size} bytes, and a package has room for {SELF_TEST_LIMIT}",
            hint="record it from fewer windows, or from windows of smaller numbers (int16, uint8)",
        )
    return test


def _encode_window(chain: Chain, window: npt.NDArray[Any]) -> TypedArray:
    if chain.input.image is not None and window.dtype != _BYTE:
        as_bytes = window.astype(np.uint8) if window.min() >= 0 and window.max() <= _MOST_BYTE else window
        window = as_bytes if np.array_equal(as_bytes, window) else window
    dtype = window.dtype.newbyteorder("<")
    if dtype not in _TAGS:
        if window.dtype.kind != "f" and not -_EXACT <= window.min() <= window.max() <= _EXACT:
            raise ConfigError(f"a window of {window.dtype} holds numbers that float32 does not hold exactly")
        window, dtype = window.astype("<f4"), np.dtype("<f4")
    return TypedArray(_TAGS[dtype], window.astype(dtype).tobytes())


def to_floats(array: TypedArray) -> Floats:
    """Return the numbers of a typed array, in memory of their own: float32 [n]."""
    return np.frombuffer(array.data, ARRAYS[array.tag]).astype(np.float32)


def spread(scores: Floats, kind: str) -> Floats:
    """Return what tolerances are relative to: float32 [outputs].

    :param scores: the signed ones, float32 [cases, outputs].
    :param kind: of the output. The outputs of a regressor have a spread each, all others one together.
    """
    axis = 0 if kind == "regressor" else None
    found = np.asarray(scores.max(axis) - scores.min(axis))
    largest = np.asarray(np.abs(scores).max(axis))
    found = np.where(found > 0, found, np.where(largest > 0, largest, 1.0))
    return np.broadcast_to(found, scores.shape[1:]).astype(np.float32)


class Judge:
    """Judges answers by what they come to: the label of each window by itself, by the manifest's own thresholds.

    A regressor has no labels.
    """

    def __init__(self, chain: Chain) -> None:
        self._output = chain.output
        self._labels = chain.all_labels
        decide = chain.decide or Decide()
        self._decide = msgspec.structs.replace(decide, smooth=None, needed=Needed())

    def label(self, scores: Floats) -> int:
        """Return the number of the label of a window; 0 for a regressor."""
        if self._output.kind == "regressor":
            return 0
        return chooser(self._labels, self._output, self._decide)(scores)

    def agree(self, got: Floats, expected: Floats) -> bool:
        """Return True if two answers come to one label, or to two that were signed as equal."""
        mine, signed = self.label(got), self.label(expected)
        return mine == signed or (max(mine, signed) < len(expected) and bool(expected[mine] == expected[signed]))

    def is_clear(self, scores: Floats, within: Floats) -> bool:
        """Return True if no change of each score by at most ``within`` turns the label over."""
        label, others = self.label(scores), scores + within
        if label < len(scores):
            others[label] = scores[label] - within[label]
        return all(self.label(changed) == label for changed in (others, scores + within, scores - within))

    def name(self, scores: Floats) -> str:
        """Return the label of a window."""
        return self._labels[self.label(scores)]


def check_answer(got: Floats, expected: Floats, *, within: Floats, judge: Judge) -> None:
    """Check an answer against the signed one: each output, and the label that they come to.

    :param within: the largest difference of each output.
    :raises SelfTestError: it is another answer.
    """
    hint = "this runtime answers unlike the publisher's: try another engine, or ask the publisher"
    if got.shape != expected.shape:
        raise SelfTestError(f"{got.size} scores where {expected.size} were signed", hint=hint)
    error = np.abs(got - expected)
    if not (error <= within).all():
        worst = int(np.argmax(np.where(np.isnan(error), np.inf, error) / np.maximum(within, np.finfo("f4").tiny)))
        raise SelfTestError(f"off by {error[worst]:.4g}, more than {within[worst]:.4g}", hint=hint)
    if not judge.agree(got, expected):
        raise SelfTestError(f"it comes to {judge.name(got)!r}, and {judge.name(expected)!r} was signed", hint=hint)


def clear_ones(scores: Sequence[Floats], tolerance: float, chain: Chain) -> list[int]:
    """Return the numbers of those scores whose label no runtime may turn over within the tolerance."""
    if not scores:
        return []
    judge, within = Judge(chain), tolerance * spread(np.stack(scores), chain.output.kind)
    return [number for number, one in enumerate(scores) if judge.is_clear(one, within)]


def answers_of(test: SelfTest) -> Iterable[tuple[Floats, Floats]]:
    """Yield the window (flat) and the scores of each case, float32."""
    for case in test.cases:
        yield to_floats(case.window), to_floats(case.scores)
