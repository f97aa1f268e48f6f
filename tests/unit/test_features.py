"""Features: those of NumPy, SciPy and pandas, to six digits and more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edged.errors import ConfigError
from edged.signal.features import Extractor
from edged.signal.spec import FEATURE_NAMES, Feature

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def frame(window: Doubles) -> pd.DataFrame:
    return pd.DataFrame(window)


def doubles(values: object) -> Doubles:
    return np.asarray(values, np.float64)


EXPECTED: dict[Feature, Callable[[Doubles], object]] = {
    Feature(name="sum_abs"): lambda x: np.abs(x).sum(axis=0),
    Feature(name="mean"): lambda x: frame(x).mean(),
    Feature(name="std"): lambda x: np.std(x, axis=0),
    Feature(name="std", ddof=1): lambda x: frame(x).std(),
    Feature(name="std", ddof=2): lambda x: np.std(x, axis=0, ddof=2),
    Feature(name="rms"): lambda x: np.sqrt(np.mean(x**2, axis=0)),
    Feature(name="min"): lambda x: frame(x).min(),
    Feature(name="max"): lambda x: frame(x).max(),
    Feature(name="kurtosis"): lambda x: scipy.stats.kurtosis(x, axis=0),
    Feature(name="kurtosis", bias=False): lambda x: frame(x).kurt(),
}

# Integers in steps of 1/64 and a spread that is no rounding error: what a sensor sends, and what float64 holds exactly.
STEPS = st.integers(-(2**16), 2**16).map(lambda number: number / 64)
WINDOWS = hnp.arrays(np.float32, st.tuples(st.integers(4, 40), st.integers(1, 4)), elements=STEPS.map(np.float32))


def extract(window: Floats, *features: Feature) -> Doubles:
    return Extractor(features, len(window))(window)


def identity(feature: Feature) -> str:
    return f"{feature.name}-{feature.ddof}-{feature.bias}"


def test_every_feature_is_compared() -> None:
    assert {feature.name for feature in EXPECTED} == set(FEATURE_NAMES)


@pytest.mark.parametrize("feature", EXPECTED, ids=identity)
@given(window=WINDOWS)
def test_feature_is_the_libraries_own(feature: Feature, window: Floats) -> None:
    varies = window.min(axis=0) < window.max(axis=0)
    got = extract(window, feature)

    assert (got.dtype, got.shape) == (np.float64, (window.shape[1],))
    if varies.any():
        expected = doubles(EXPECTED[feature](window[:, varies].astype(np.float64)))
        np.testing.assert_allclose(got[varies], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("feature", EXPECTED, ids=identity)
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False), rows=st.integers(4, 400))
def test_a_constant_channel(feature: Feature, value: float, rows: int) -> None:
    """Its spread is 0 exactly, so that its kurtosis is not made of rounding errors."""
    window = np.full((rows, 1), value, np.float32)
    expected = {"sum_abs": rows * abs(value), "rms": abs(value), "std": 0.0, "kurtosis": 0.0}.get(feature.name, value)

    np.testing.assert_allclose(extract(window, feature), [expected], rtol=1e-12, atol=1e-150)


@pytest.mark.parametrize("feature", EXPECTED, ids=identity)
@pytest.mark.parametrize("offset", [0, 1e3, -1e3])
@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_long_windows_of_noise(feature: Feature, offset: float, scale: float) -> None:
    noise = np.random.default_rng(7).normal(offset, scale, (3000, 4)).astype(np.float32)

    expected = doubles(EXPECTED[feature](noise.astype(np.float64)))

    np.testing.assert_allclose(extract(noise, feature), expected, rtol=1e-6)


def test_the_largest_values_of_float32_do_not_overflow() -> None:
    window = np.array([[3e38], [-3e38]] * 150, np.float32)

    assert np.isfinite(extract(window, *EXPECTED)).all()
    np.testing.assert_allclose(extract(window, Feature(name="kurtosis")), [-2.0])


@given(WINDOWS, st.permutations(list(EXPECTED)))
def test_values_stand_by_feature_and_then_by_channel(window: Floats, features: list[Feature]) -> None:
    """Also where features share what they are made of."""
    together = extract(window, *features)

    assert together.tolist() == np.concatenate([extract(window, feature) for feature in features]).tolist()
    for at in range(window.shape[1]):
        alone = extract(np.ascontiguousarray(window[:, at : at + 1]), *features)
        np.testing.assert_allclose(together[at :: window.shape[1]], alone, rtol=1e-12, atol=1e-12)


def test_the_window_is_left_as_it_was() -> None:
    window = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    before = window.copy()
    window.flags.writeable = False

    extract(window, *EXPECTED)

    assert window.tolist() == before.tolist()


@pytest.mark.parametrize(
    ("feature", "least"),
    [
        (Feature(name="kurtosis"), 4),
        (Feature(name="kurtosis", bias=False), 4),
        (Feature(name="std"), 1),
        (Feature(name="std", ddof=1), 2),
        (Feature(name="std", ddof=3), 4),
        (Feature(name="max"), 1),
    ],
    ids=str,
)
def test_a_window_that_is_too_short_is_refused_with_both_sizes(feature: Feature, least: int) -> None:
    assert np.isfinite(extract(np.ones((least, 2), np.float32), feature)).all()
    with pytest.raises(ConfigError) as caught:
        Extractor([feature], least - 1)
    assert caught.value.message == f"features.use: {feature.name} needs {least} rows, window.size is {least - 1}"


@pytest.mark.parametrize("name", ["medain", "__init__", ""])
def test_an_unknown_feature_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"features.use: unknown feature '{name}'") as caught:
        Feature(name=name)
    assert caught.value.hint == "known: sum_abs, mean, std, rms, min, max, kurtosis"
