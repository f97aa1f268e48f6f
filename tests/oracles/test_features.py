"""Features: those of NumPy, SciPy and pandas, to six digits and more."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import scipy.signal
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edged.base.errors import ConfigError, ReadingShapeError
from edged.formats.spec import FEATURES, Feature, Features
from edged.model.signal.features import REGISTRY, Extractor

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
RATE = 100.0
BANDS = ((0.0, 12.3), (12.3, 33.3), (5.0001, 5.0002), (33.3, 100.0))


def frame(window: Doubles) -> pd.DataFrame:
    return pd.DataFrame(window)


def crest(window: Doubles) -> Doubles:
    rms = np.sqrt(np.mean(window**2, axis=0))
    factor: Doubles = np.divide(np.abs(window).max(axis=0), rms, out=np.zeros_like(rms), where=rms > 0)
    return factor


def crossings(window: Doubles) -> object:
    return np.diff(np.signbit(window + 0.0), axis=0).sum(axis=0)  # -0.0 + 0.0 is +0.0


def periodogram(window: Doubles, taper: str, rate: float = RATE) -> tuple[Doubles, Doubles]:
    frequencies, density = scipy.signal.periodogram(
        window, rate, window=taper, detrend=False, scaling="density", axis=0
    )
    return frequencies, density * (rate / len(window))


def energies(taper: str, window: Doubles) -> Doubles:
    frequencies, power = periodogram(window, taper)
    return np.array([power[(low <= frequencies) & (frequencies < high)].sum(axis=0) for low, high in BANDS])


EXPECTED: dict[Feature, Callable[[Doubles], object]] = {
    Feature(name="sum_abs"): lambda x: np.abs(x).sum(axis=0),
    Feature(name="mean"): lambda x: frame(x).mean(),
    Feature(name="std"): lambda x: np.std(x, axis=0),
    Feature(name="std", ddof=1): lambda x: frame(x).std(),
    Feature(name="std", ddof=2): lambda x: np.std(x, axis=0, ddof=2),
    Feature(name="rms"): lambda x: np.sqrt(np.mean(x**2, axis=0)),
    Feature(name="min"): lambda x: frame(x).min(),
    Feature(name="max"): lambda x: frame(x).max(),
    Feature(name="peak_to_peak"): lambda x: np.ptp(x, axis=0),
    Feature(name="skewness"): lambda x: scipy.stats.skew(x, axis=0),
    Feature(name="skewness", bias=False): lambda x: frame(x).skew(),
    Feature(name="kurtosis"): lambda x: scipy.stats.kurtosis(x, axis=0),
    Feature(name="kurtosis", bias=False): lambda x: frame(x).kurt(),
    Feature(name="crest_factor"): crest,
    Feature(name="zero_crossings"): crossings,
    Feature(name="zero_crossings", about="mean"): lambda x: crossings(x - x.mean(axis=0)),
    Feature(name="mad"): lambda x: scipy.stats.median_abs_deviation(x, axis=0),
    Feature(name="band_energy", bands=BANDS): partial(energies, "boxcar"),
    Feature(name="band_energy", bands=BANDS, taper="hann"): partial(energies, "hann"),
}
LEAST_ROWS = {
    Feature(name="std", ddof=1): 2,
    Feature(name="std", ddof=2): 3,
    Feature(name="skewness"): 3,
    Feature(name="skewness", bias=False): 3,
    Feature(name="kurtosis"): 4,
    Feature(name="kurtosis", bias=False): 4,
    Feature(name="band_energy", bands=BANDS, taper="hann"): 2,
}

# Integers in steps of 1/64 and a spread that is no rounding error: what a sensor sends, and what float64 holds exactly.
STEPS = st.integers(-(2**16), 2**16).map(lambda number: number / 64)


def windows(least: int = 4) -> st.SearchStrategy[Floats]:
    return hnp.arrays(np.float32, st.tuples(st.integers(least, 40), st.integers(1, 4)), elements=STEPS.map(np.float32))


def extractor(*features: Feature, channels: int, rows: int | None, by_channel: bool = False) -> Extractor:
    return Extractor(Features(use=features, order="channel" if by_channel else "feature"), channels, rows, RATE)


def extract(window: Floats, *features: Feature, by_channel: bool = False) -> Doubles:
    return extractor(*features, channels=window.shape[1], rows=len(window), by_channel=by_channel)(window)


def expected_of(feature: Feature, window: Floats) -> Doubles:
    """Return float64 [values, channels]."""
    return np.asarray(EXPECTED[feature](window.astype(np.float64)), np.float64).reshape(feature.values, -1)


def identity(feature: Feature) -> str:
    return f"{feature.name}-{feature.ddof}-{feature.bias}-{feature.about}-{feature.taper}"


def test_every_feature_is_there_and_is_compared() -> None:
    assert sorted(REGISTRY) == sorted(FEATURES) == sorted({feature.name for feature in EXPECTED})


@pytest.mark.parametrize("name", FEATURES)
def test_the_first_line_of_a_docstring_is_the_definition_and_states_the_unit(name: str) -> None:
    first, _, _ = (REGISTRY[name].__doc__ or "").partition("\n")

    assert re.search(r"; (unit of the input|unit of the input squared|no unit)(; 0 .+)?\.$", first)


@pytest.mark.parametrize("feature", EXPECTED, ids=identity)
@given(data=st.data())
def test_feature_is_the_libraries_own(feature: Feature, data: st.DataObject) -> None:
    """From the smallest window on."""
    window = data.draw(windows(LEAST_ROWS.get(feature, 1)))
    varies = window.min(axis=0) < window.max(axis=0)

    got = extract(window, feature)

    assert got.dtype == np.float64
    assert got.shape == (feature.values * window.shape[1],)  # noqa: PD011  no data frame
    if varies.any():
        got = got.reshape(feature.values, -1)[:, varies]
        np.testing.assert_allclose(got, expected_of(feature, window[:, varies]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("feature", EXPECTED, ids=identity)
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False), rows=st.integers(4, 400))
def test_a_constant_channel(feature: Feature, value: float, rows: int) -> None:
    """Its spread is 0 exactly, so that its shape is not made of rounding errors."""
    window = np.full((rows, 1), value, np.float32)
    still = {"std", "peak_to_peak", "skewness", "kurtosis", "zero_crossings", "mad"}
    expected = [[0.0]] if feature.name in still else expected_of(feature, window)

    got = extract(window, feature).reshape(feature.values, 1)

    if feature.name == "band_energy":
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12 * value**2)
    else:
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-150)


@pytest.mark.parametrize("feature", EXPECTED, ids=identity)
@pytest.mark.parametrize("offset", [0, 1e3, -1e3])
@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_long_windows_of_noise(feature: Feature, offset: float, scale: float) -> None:
    noise = np.random.default_rng(7).normal(offset, scale, (3000, 4)).astype(np.float32)

    got = extract(noise, feature).reshape(feature.values, 4)

    np.testing.assert_allclose(got, expected_of(feature, noise), rtol=1e-6)


def test_the_largest_values_of_float32_do_not_overflow() -> None:
    window = np.array([[3e38], [-3e38]] * 150, np.float32)

    assert np.isfinite(extract(window, *EXPECTED)).all()
    np.testing.assert_allclose(extract(window, Feature(name="kurtosis")), [-2.0])


def test_the_smallest_values_of_float32_do_not_vanish() -> None:
    window = np.array([[1e-44], [-1e-44]] * 150, np.float32)

    np.testing.assert_allclose(extract(window, Feature(name="kurtosis"), Feature(name="crest_factor")), [-2.0, 1.0])


def test_zero_has_one_sign() -> None:
    window = np.array([[1, 0, -0.0, 3, -1, -0.0, 0, -2]], np.float32).T

    assert extract(window, Feature(name="zero_crossings")).tolist() == [3.0]


# --- band energies ---------------------------------------------------------------------------


@given(windows(1))
def test_bands_over_all_frequencies_add_up_to_the_mean_square(window: Floats) -> None:
    bands = Feature(name="band_energy", bands=((0.0, 10.0), (10.0, 45.0), (45.0, 100.0)))

    total = extract(window, bands).reshape(3, -1).sum(axis=0)

    np.testing.assert_allclose(total, np.mean(window.astype(np.float64) ** 2, axis=0), rtol=1e-9, atol=1e-9)


@given(rows=st.integers(4, 400), rate=st.sampled_from([0.1, 7.0, 44.1, 1e3 / 3, 400.0, 48e3]), data=st.data())
def test_a_frequency_at_a_bound_is_in_the_band_that_begins_there(rows: int, rate: float, data: st.DataObject) -> None:
    """Also where the bound, in decimals, is rounded to either side."""
    at = data.draw(st.integers(1, rows // 2))
    bound = float(Fraction(rate) * at / rows)
    assume(at < rows // 2)
    window = np.random.default_rng(rows).normal(size=(rows, 1)).astype(np.float32)
    bands = ((0.0, bound), (bound, rate))

    extracted = Extractor(Features(use=(Feature(name="band_energy", bands=bands),)), 1, rows, rate)(window)

    _, power = periodogram(window.astype(np.float64), "boxcar", rate)
    np.testing.assert_allclose(extracted, [power[:at].sum(), power[at:].sum()], rtol=1e-9)


def test_a_sine_has_half_its_squared_amplitude_in_its_band() -> None:
    sine = (3 * np.sin(2 * np.pi * 20 * np.arange(200) / RATE)).astype(np.float32)[:, np.newaxis]
    bands = ((0.0, 18.0), (18.0, 22.0), (22.0, 50.0))

    for taper in ("none", "hann"):
        got = extract(sine, Feature(name="band_energy", bands=bands, taper=taper))
        np.testing.assert_allclose(got, [0, 4.5, 0], atol=1e-6)


# --- several together ------------------------------------------------------------------------


@given(windows(), st.permutations(list(EXPECTED)))
def test_values_stand_by_feature_and_then_by_channel(window: Floats, features: list[Feature]) -> None:
    """Also where features share what they are made of."""
    together = extract(window, *features)

    assert together.tolist() == np.concatenate([extract(window, feature) for feature in features]).tolist()
    for at in range(window.shape[1]):
        alone = extract(np.ascontiguousarray(window[:, at : at + 1]), *features)
        np.testing.assert_allclose(together[at :: window.shape[1]], alone, rtol=1e-9, atol=1e-9)


@given(windows(), st.permutations(list(EXPECTED)))
def test_or_by_channel_and_then_by_feature(window: Floats, features: list[Feature]) -> None:
    by_channel = extract(window, *features, by_channel=True)
    by_feature = extract(window, *features)

    assert by_channel.reshape(window.shape[1], -1).T.tolist() == by_feature.reshape(-1, window.shape[1]).tolist()


@given(st.lists(st.sampled_from(list(EXPECTED)), min_size=1, max_size=6), st.integers(1, 5))
def test_the_number_of_values_is_known_before(features: list[Feature], channels: int) -> None:
    made = extractor(*features, channels=channels, rows=20)

    assert made.values == len(made(np.ones((20, channels), np.float32)))  # noqa: PD011  no data frame


def test_the_window_is_left_as_it_was() -> None:
    window = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    before = window.copy()
    window.flags.writeable = False

    extract(window, *EXPECTED)

    assert window.tolist() == before.tolist()


def test_an_answer_is_not_overwritten_by_the_next() -> None:
    made = extractor(Feature(name="mean"), channels=1, rows=2)
    first = made(np.ones((2, 1), np.float32))

    made(np.zeros((2, 1), np.float32))

    assert first.tolist() == [1.0]


# --- too few rows ----------------------------------------------------------------------------


@pytest.mark.parametrize("feature", EXPECTED, ids=identity)
def test_a_window_that_is_too_short_is_refused_with_both_sizes(feature: Feature) -> None:
    least = LEAST_ROWS.get(feature, 1)
    assert np.isfinite(extract(np.ones((least, 2), np.float32), feature)).all()
    with pytest.raises(ConfigError) as caught:
        extractor(Feature(name="max"), feature, channels=2, rows=least - 1)
    name = "max" if least == 1 else feature.name
    assert caught.value.message == f"features.use: {name} needs {least} rows, window.size is {least - 1}"


@pytest.mark.parametrize("feature", EXPECTED, ids=identity)
def test_a_window_by_time_that_is_too_short_is_refused_when_it_comes(feature: Feature) -> None:
    least = LEAST_ROWS.get(feature, 1)
    made = extractor(feature, channels=2, rows=None)
    for rows in (least, least + 7, least + 2):
        window = np.random.default_rng(rows).normal(size=(rows, 2)).astype(np.float32)
        np.testing.assert_array_equal(made(window), extract(window, feature))

    with pytest.raises(ReadingShapeError) as caught:
        made(np.ones((least - 1, 2), np.float32))
    said = f"features.use: {feature.name} needs {least} rows, this window holds {least - 1}"
    assert caught.value.message == said


# --- what a manifest may say -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["medain", "__init__", ""])
def test_an_unknown_feature_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"features.use: unknown feature '{name}'") as caught:
        Feature(name=name)
    assert caught.value.hint == f"known: {', '.join(FEATURES)}"
