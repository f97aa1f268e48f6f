"""Between the window and the model's tensors: normalised, rounded to the tensor's integers, and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edged.errors import ConfigError
from edged.signal.chain import CompiledChain, dequantise, quantise
from edged.signal.spec import Chain, Feature, Features, Input, Normalise, Output, Window
from edged.signal.tensor import TensorInfo

FLOAT = TensorInfo("t", (1, 6), np.dtype(np.float32))
OUTPUT = TensorInfo("o", (1, 2), np.dtype(np.float32))
INTEGERS = [np.int8, np.uint8, np.int16]
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def compiled(
    normalise: Normalise | None = None, *, features: Features | None = None, tensor: TensorInfo = FLOAT
) -> CompiledChain:
    chain = Chain(
        input=Input(channels=("a1", "a2")),
        window=Window(size=3),
        output=Output(kind="classifier", labels=("healthy", "broken")),
        features=features,
        normalise=normalise or Normalise(),
    )
    return CompiledChain(chain, tensor, OUTPUT)


def integers(dtype: npt.DTypeLike, scale: float, zero_point: int) -> TensorInfo:
    return TensorInfo("q", (1, 6), np.dtype(dtype), scale, zero_point)


# --- normalise -------------------------------------------------------------------------------


def test_none_leaves_values_as_they_are() -> None:
    prepared = compiled().prepare(ROWS)

    assert (prepared.dtype, prepared.shape, prepared.ravel().tolist()) == (np.float32, (1, 6), [0, 1, 2, 3, 4, 5])


def test_one_number_is_for_all_values() -> None:
    assert compiled(Normalise(method="zscore", mean=1.0, std=2.0)).prepare(ROWS).tolist() == [[-0.5, 0, 0.5, 1, 1.5, 2]]
    assert compiled(Normalise(method="minmax", min=1.0, max=5.0)).prepare(ROWS).tolist() == [
        [-0.25, 0, 0.25, 0.5, 0.75, 1]
    ]


def test_without_features_there_is_one_number_a_channel() -> None:
    zscore = Normalise(method="zscore", mean=(0.0, 1.0), std=(2.0, 4.0))

    assert compiled(zscore).prepare(ROWS).tolist() == [[0, 0, 1, 0.5, 2, 1]]


def test_with_features_there_is_one_number_a_value() -> None:
    features = Features(use=("min", "max", Feature(name="mean")))
    minmax = Normalise(method="minmax", min=(0.0,) * 6, max=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0))

    assert compiled(minmax, features=features).prepare(ROWS).tolist() == [[0, 0.5, 1, 0.625, 0.125, 0.09375]]


@given(
    values=hnp.arrays(np.float32, (3, 2), elements=st.floats(-1e6, 1e6, width=32)),
    mean=st.floats(-1e3, 1e3),
    std=st.floats(1e-3, 1e3),
)
def test_zscore_is_its_formula(values: npt.NDArray[np.float32], mean: float, std: float) -> None:
    prepared = compiled(Normalise(method="zscore", mean=mean, std=std)).prepare(values)

    expected = ((values.astype(np.float64) - mean) / std).astype(np.float32)
    np.testing.assert_allclose(prepared.reshape(3, 2), expected, rtol=1e-6)


# --- quantise --------------------------------------------------------------------------------


def test_rounding_takes_halves_to_even_and_clips() -> None:
    tensor = integers(np.int8, 0.5, 3)

    values = np.array([0.0, 0.25, 0.75, -0.25, 1e9, -1e9])

    assert quantise(values, tensor).tolist() == [3, 3, 5, 3, 127, -128]
    assert quantise(values, tensor).dtype == np.int8


@pytest.mark.parametrize("dtype", INTEGERS)
@given(st.data(), st.floats(1e-6, 1e3))
def test_a_value_comes_back_within_half_a_step(dtype: npt.DTypeLike, data: st.DataObject, scale: float) -> None:
    bounds = np.iinfo(dtype)  # type: ignore[arg-type]
    zero_point = data.draw(st.integers(int(bounds.min), int(bounds.max)))
    tensor = integers(dtype, scale, zero_point)
    low, high = ((int(bound) - zero_point) * scale for bound in (bounds.min, bounds.max))
    values = data.draw(hnp.arrays(np.float64, 6, elements=st.floats(low, high)))

    back = dequantise(quantise(values, tensor), tensor)

    assert back.dtype == np.float32
    np.testing.assert_allclose(back, values, rtol=1e-5, atol=scale * 0.5001)


@pytest.mark.parametrize("dtype", INTEGERS)
@given(scale=st.floats(1e-6, 1e3), zero_point=st.integers(0, 100), value=st.floats(-1e30, 1e30))
def test_any_value_is_clipped_and_never_wraps(
    dtype: npt.DTypeLike, scale: float, zero_point: int, value: float
) -> None:
    tensor = integers(dtype, scale, zero_point)
    bounds = np.iinfo(dtype)  # type: ignore[arg-type]

    (step,) = quantise(np.array([value]), tensor).tolist()

    assert step == min(max(round(value / scale) + zero_point, bounds.min), bounds.max)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_survives_the_way_back(dtype: npt.DTypeLike) -> None:
    bounds = np.iinfo(dtype)  # type: ignore[arg-type]
    steps = np.arange(bounds.min, int(bounds.max) + 1).astype(dtype)
    tensor = integers(dtype, 0.0078125, 5)

    assert (quantise(dequantise(steps, tensor), tensor) == steps).all()


def test_integers_without_a_scale_have_the_scale_1() -> None:
    tensor = TensorInfo("i", (1, 4), np.dtype(np.uint8))

    assert quantise(np.array([-3.0, 0.5, 1.7, 300.0]), tensor).tolist() == [0, 0, 2, 255]
    assert dequantise(np.array([0, 255], np.uint8), tensor).tolist() == [0.0, 255.0]


def test_floats_are_cast_alone() -> None:
    assert quantise(np.array([0.25, 0.5]), FLOAT).dtype == np.float32
    assert dequantise(np.array([0.25, 0.5], np.float32), FLOAT).tolist() == [0.25, 0.5]


def test_the_whole_way_in() -> None:
    chain = compiled(Normalise(method="minmax", min=0.0, max=5.0), tensor=integers(np.int8, 1 / 255, -128))

    prepared = chain.prepare(ROWS)

    assert (prepared.dtype, prepared.tolist()) == (np.int8, [[-128, -77, -26, 25, 76, 127]])


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "zscore", "mean": 0.0}, "normalise.std: wanted with method 'zscore'"),
        ({"method": "zscore", "std": 1.0}, "normalise.mean: wanted with method 'zscore'"),
        ({"method": "zscore", "mean": 0.0, "std": 1.0, "min": 0.0}, "normalise.min: not known with method 'zscore'"),
        ({"method": "minmax", "min": 0.0}, "normalise.max: wanted with method 'minmax'"),
        ({"mean": 0.0}, "normalise.mean: not known with method 'none'"),
    ],
)
def test_parameters_fit_the_method(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Normalise(**fields)  # type: ignore[arg-type]
