"""From real numbers to a tensor's integers and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ConfigError
from edged.signal.chain import CompiledChain, dequantise, quantise
from edged.signal.spec import Chain, Input, Normalise, Output, Window
from edged.signal.tensor import TensorInfo

FLOAT = TensorInfo("x", (4,), np.dtype(np.float32))


def quantised(dtype: type, scale: float = 0.5, zero_point: int = 0) -> TensorInfo:
    return TensorInfo("x", (4,), np.dtype(dtype), scale, zero_point)


def normalised(normalise: Normalise, values: list[float]) -> list[float]:
    chain = Chain(
        input=Input(channels=("a", "b")),
        window=Window(size=2),
        normalise=normalise,
        output=Output(kind="regressor"),
    )
    window = np.array(values, np.float32).reshape(2, 2)
    found: list[float] = (
        CompiledChain(chain, FLOAT, TensorInfo("y", (1,), np.dtype(np.float32))).prepare(window).tolist()
    )
    return found


def test_halves_are_rounded_to_even() -> None:
    values = np.array([0.25, 0.75, 1.25, -0.25])

    assert quantise(values, quantised(np.int8)).tolist() == [0, 2, 2, 0]


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(np.int8, -128, 127), (np.uint8, 0, 255), (np.int16, -32768, 32767)]
)
def test_what_does_not_fit_is_clipped(dtype: type, low: int, high: int) -> None:
    quantised_values = quantise(np.array([-1e9, 1e9]), quantised(dtype, zero_point=3))

    assert quantised_values.dtype == dtype
    assert quantised_values.tolist() == [low, high]


def test_a_tensor_that_is_not_quantised_takes_values_as_they_are() -> None:
    values = np.array([0.1, -2.5], np.float32)

    assert quantise(values, FLOAT) is values
    assert dequantise(values, FLOAT) is values


@given(
    st.lists(st.integers(-128, 127), min_size=1, max_size=20),
    st.floats(2**-10, 2**10, width=32),
    st.integers(-128, 127),
)
def test_integers_survive_the_way_to_numbers_and_back(integers: list[int], scale: float, zero_point: int) -> None:
    tensor = quantised(np.int8, scale, zero_point)
    stored = np.array(integers, np.int8)

    assert quantise(dequantise(stored, tensor), tensor).tolist() == integers


@given(st.floats(-60, 60), st.floats(2**-4, 2**4), st.integers(-100, 100))
def test_numbers_come_back_within_half_a_step_where_they_fit(value: float, scale: float, zero_point: int) -> None:
    tensor = quantised(np.int16, scale, zero_point)

    back = dequantise(quantise(np.array([value]), tensor), tensor)

    assert abs(float(back[0]) - value) <= scale / 2 + 1e-4


def test_zscore_takes_the_mean_off_and_divides_by_the_deviation() -> None:
    assert normalised(Normalise(method="zscore", mean=1.0, std=2.0), [1, 3, 5, -1]) == [0, 1, 2, -1]


def test_minmax_spans_zero_to_one() -> None:
    assert normalised(Normalise(method="minmax", min=(0.0, 10.0), max=(2.0, 20.0)), [0, 10, 2, 20]) == [0, 0, 1, 1]


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4),
    st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
)
def test_zscore_agrees_with_its_definition(
    values: list[float], mean: tuple[float, float], std: tuple[float, float]
) -> None:
    wanted = [(value - mean[at % 2]) / std[at % 2] for at, value in enumerate(values)]

    assert normalised(Normalise(method="zscore", mean=mean, std=std), values) == pytest.approx(
        wanted, rel=1e-6, abs=1e-6
    )


@pytest.mark.parametrize(
    ("given_keys", "said"),
    [
        ({"method": "zscore", "mean": 0.0}, r"normalise\.std: wanted with method 'zscore'"),
        ({"method": "minmax", "min": 0.0}, r"normalise\.max: wanted with method 'minmax'"),
        ({"method": "zscore", "mean": 0.0, "std": 1.0, "min": 0.0}, r"normalise\.min: not known with method 'zscore'"),
        ({"mean": 0.0}, r"normalise\.mean: not known with method 'none'"),
    ],
)
def test_parameters_are_those_of_the_method(given_keys: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Normalise(**given_keys)  # type: ignore[arg-type]
