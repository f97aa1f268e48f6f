"""The self-test: windows and scores as arrays, how far an answer may lie from the signed one, which windows serve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.base.errors import ConfigError, FormatError, SelfTestError
from edged.formats.package.self_test import ARRAYS, FLOAT32, SELF_TEST_LIMIT, SelfTest, SelfTestCase, TypedArray
from edged.formats.spec import Chain

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


def check_answer(got: Floats, expected: Floats, *, within: Floats, kind: str) -> None:
    """Check an answer against the signed one: each output, and which of a classifier's is the best.

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
    if kind == "classifier" and expected[np.argmax(got)] != expected.max():
        best, signed = int(np.argmax(got)), int(np.argmax(expected))
        raise SelfTestError(f"output {best} is the best, and output {signed} was signed as the best", hint=hint)


def clear_ones(scores: Sequence[Floats], tolerance: float, kind: str) -> list[int]:
    """Return the numbers of those scores whose label no runtime may turn over within the tolerance."""
    if kind != "classifier" or not scores or len(scores[0]) == 1:
        return list(range(len(scores)))
    least = 2 * tolerance * spread(np.stack(scores), kind)[0]
    return [number for number, one in enumerate(scores) if np.diff(np.sort(one)[-2:])[0] >= least]


def answers_of(test: SelfTest) -> Iterable[tuple[Floats, Floats]]:
    """Yield the window (flat) and the scores of each case, float32."""
    for case in test.cases:
        yield to_floats(case.window), to_floats(case.scores)
