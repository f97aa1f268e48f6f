"""Features against pandas, SciPy and NumPy, and at the edges of what they are defined for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ConfigError
from edged.signal.features import Extractor
from edged.signal.spec import FEATURE_NAMES, Feature, Features

Floats = npt.NDArray[np.float32]


def extract(window: Floats, name: str, **parameters: Any) -> list[float]:
    found: list[float] = Extractor([Feature(name=name, **parameters)], len(window))(window).tolist()
    return found


@st.composite
def windows(draw: st.DrawFn) -> Floats:
    """Draw sensor-like windows: noise of any scale around any offset that float32 still resolves."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(4, 400)), draw(st.integers(1, 6))
    scale = draw(st.sampled_from([1e-3, 1.0, 160.0]))
    offset = scale * draw(st.sampled_from([0.0, 1.0, -100.0]))
    return (rng.standard_normal(shape) * scale + offset).astype(np.float32)


@given(windows())
def test_each_feature_agrees_with_numpy(window: Floats) -> None:
    doubles = window.astype(np.float64)

    assert extract(window, "sum_abs") == pytest.approx(np.abs(doubles).sum(axis=0), rel=1e-9)
    assert extract(window, "mean") == pytest.approx(doubles.mean(axis=0), rel=1e-9, abs=1e-9)
    assert extract(window, "std") == pytest.approx(doubles.std(axis=0), rel=1e-9)
    assert extract(window, "std", ddof=1) == pytest.approx(doubles.std(axis=0, ddof=1), rel=1e-9)
    assert extract(window, "rms") == pytest.approx(np.sqrt((doubles**2).mean(axis=0)), rel=1e-9)
    assert extract(window, "min") == doubles.min(axis=0).tolist()
    assert extract(window, "max") == doubles.max(axis=0).tolist()


@pytest.fixture(scope="module")
def pandas() -> Any:  # noqa: ANN401  a module
    return pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def stats() -> Any:  # noqa: ANN401  a module
    return pytest.importorskip("scipy.stats")


@given(window=windows())
def test_std_and_unbiased_kurtosis_agree_with_pandas(pandas: Any, window: Floats) -> None:  # noqa: ANN401
    frame = pandas.DataFrame(window.astype(np.float64))

    assert extract(window, "std", ddof=1) == pytest.approx(frame.std().to_numpy(), rel=1e-9)
    assert extract(window, "kurtosis", bias=False) == pytest.approx(frame.kurt().to_numpy(), rel=1e-6, abs=1e-6)


@given(window=windows(), bias=st.booleans())
def test_kurtosis_agrees_with_scipy(stats: Any, window: Floats, bias: bool) -> None:  # noqa: ANN401, FBT001
    wanted = stats.kurtosis(window.astype(np.float64), axis=0, bias=bias)

    assert extract(window, "kurtosis", bias=bias) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_kurtosis_of_known_values() -> None:
    """1..5: m4 = 6.8, m2 = 2, so g2 = 6.8 / 4 - 3 = -1.3, and G2 = (n-1)/((n-2)(n-3)) ((n+1) g2 + 6) = -1.2."""
    window = np.array([[1], [2], [3], [4], [5]], np.float32)

    assert extract(window, "kurtosis") == pytest.approx([-1.3])
    assert extract(window, "kurtosis", bias=False) == pytest.approx([-1.2])


@pytest.mark.parametrize("value", [0.0, 0.1, -1e-30, 159.99, 3e38])
@pytest.mark.parametrize("rows", [4, 300])
def test_constant_channel_has_neither_deviation_nor_kurtosis(value: float, rows: int) -> None:
    window = np.full((rows, 2), value, np.float32)

    assert extract(window, "std", ddof=1) == [0, 0]
    assert extract(window, "kurtosis", bias=False) == [0, 0]


def test_values_stand_by_feature_and_then_by_channel() -> None:
    window = np.array([[1, 10], [3, -40]], np.float32)

    assert Extractor(Features(use=("sum_abs", "min", "max")).all, 2)(window).tolist() == [4, 50, 1, -40, 3, 10]


def test_window_is_left_as_it_is() -> None:
    window = np.arange(12, dtype=np.float32).reshape(6, 2)
    window.flags.writeable = False

    Extractor([Feature(name=name) for name in FEATURE_NAMES], 6)(window)

    assert window.ravel().tolist() == list(range(12))


@pytest.mark.parametrize(
    ("feature", "least"),
    [
        (Feature(name="std", ddof=1), 2),
        (Feature(name="std", ddof=3), 4),
        (Feature(name="kurtosis"), 4),
        (Feature(name="max"), 1),
    ],
)
def test_window_too_short_is_refused_with_both_sizes(feature: Feature, least: int) -> None:
    Extractor([feature], least)

    with pytest.raises(
        ConfigError, match=f"features.use: {feature.name} needs {least} rows, window.size is {least - 1}"
    ):
        Extractor([feature], least - 1)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"name": "sumabs"}, "unknown feature 'sumabs'"),
        ({"name": "max", "ddof": 1}, "max takes no ddof"),
        ({"name": "std", "ddof": -1}, "ddof is not below 0"),
        ({"name": "std", "bias": False}, "std takes no bias"),
    ],
)
def test_unknown_feature_or_parameter_is_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Feature(**parameters)


def test_feature_that_is_named_alone_is_checked_with_its_table() -> None:
    with pytest.raises(ConfigError, match="unknown feature 'sumabs'"):
        Features(use=("max", "sumabs"))
    with pytest.raises(ConfigError, match="at least one"):
        Features(use=())
