"""Between the window and the model's tensors: normalised, rounded to the tensor's integers, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edged.base.errors import ConfigError, ModelError
from edged.formats.spec import Normalise
from edged.model.signal.normalise import compile_normalise
from edged.model.signal.tensor import TensorInfo, dequantise, quantise

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
FLOAT = TensorInfo("t", (1, 6), np.dtype(np.float32))
INTEGERS = [np.int8, np.uint8, np.int16]
TINY = 1e-38  # below it float32 has fewer digits
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 4))
STEPS = st.integers(-(2**16), 2**16).map(lambda number: np.float32(number / 64))
WINDOWS = hnp.arrays(np.float32, SHAPES, elements=STEPS)
FLOATS = st.floats(-1e6, 1e6, width=32)


def normalised(values: Array, normalise: Normalise, *, rows: bool = True) -> Array:
    function = compile_normalise(normalise, values.shape[-1], rows=rows)
    assert function is not None
    return function(values)


def integers(dtype: npt.DTypeLike, scale: float = 0.0, zero_point: int = 0) -> TensorInfo:
    return TensorInfo("q", (1, 6), np.dtype(dtype), scale, zero_point)


# --- normalise by what is given --------------------------------------------------------------


def test_none_is_no_function_at_all() -> None:
    assert compile_normalise(Normalise(), 2, rows=True) is None


def test_one_number_is_for_all_values() -> None:
    zscore = Normalise(method="zscore", mean=1.0, std=2.0)
    minmax = Normalise(method="minmax", min=1.0, max=5.0)

    assert normalised(ROWS, zscore).tolist() == [[-0.5, 0], [0.5, 1], [1.5, 2]]
    assert normalised(ROWS, minmax).tolist() == [[-0.25, 0], [0.25, 0.5], [0.75, 1]]
    assert normalised(np.array([1.0, 3.0, 5.0]), minmax, rows=False).tolist() == [0, 0.5, 1]


def test_a_window_has_one_number_a_channel() -> None:
    zscore = Normalise(method="zscore", mean=(0.0, 1.0), std=(2.0, 4.0))

    assert normalised(ROWS, zscore).tolist() == [[0, 0], [1, 0.5], [2, 1]]


def test_features_have_one_number_a_value() -> None:
    minmax = Normalise(method="minmax", min=(0.0,) * 4, max=(1.0, 2.0, 4.0, 8.0))

    assert normalised(np.array([1.0, 1.0, 1.0, 1.0]), minmax, rows=False).tolist() == [1, 0.5, 0.25, 0.125]


OFFSETS = st.one_of(st.floats(-1e3, 1e3), st.floats(-1e6, 1e6, width=32))  # float32 holds the latter exactly


@given(data=st.data(), values=hnp.arrays(np.float32, SHAPES, elements=FLOATS), each=st.booleans())
def test_zscore_is_its_formula(data: st.DataObject, values: Floats, each: bool) -> None:
    """To six digits of the result, however close a value comes to the mean."""
    count = values.shape[1] if each else 1
    mean = data.draw(st.lists(OFFSETS, min_size=count, max_size=count))
    std = data.draw(st.lists(st.floats(1e-3, 1e6), min_size=count, max_size=count))

    given_ = Normalise(method="zscore", mean=tuple(mean) if each else mean[0], std=tuple(std) if each else std[0])

    expected = (values.astype(np.float64) - mean) / std
    np.testing.assert_allclose(normalised(values, given_), expected, rtol=1e-6, atol=TINY)


@given(data=st.data(), values=hnp.arrays(np.float32, SHAPES, elements=FLOATS), each=st.booleans())
def test_minmax_is_its_formula(data: st.DataObject, values: Floats, each: bool) -> None:
    count = values.shape[1] if each else 1
    low = np.array(data.draw(st.lists(OFFSETS, min_size=count, max_size=count)))
    high = low + np.array(data.draw(st.lists(st.floats(1e-3, 1e6), min_size=count, max_size=count)))
    given_ = Normalise(
        method="minmax",
        min=tuple(low.tolist()) if each else float(low[0]),
        max=tuple(high.tolist()) if each else float(high[0]),
    )

    expected = (values.astype(np.float64) - low) / (high - low)
    np.testing.assert_allclose(normalised(values, given_), expected, rtol=1e-6, atol=TINY)


@given(values=hnp.arrays(np.float64, 6, elements=st.floats(-1e30, 1e30)), mean=OFFSETS, std=st.floats(1e-3, 1e6))
def test_features_are_normalised_in_float64(values: Doubles, mean: float, std: float) -> None:
    got = normalised(values, Normalise(method="zscore", mean=mean, std=std), rows=False)

    assert got.tolist() == ((values - mean) / std).tolist()


@pytest.mark.parametrize("std", [1e-45, 1e-40, 1e35, 1e300])
def test_numbers_that_float32_cannot_hold_still_count(std: float) -> None:
    window = np.array([[1e-30, 0.0]], np.float32)

    got = normalised(window, Normalise(method="zscore", mean=0.0, std=std))

    np.testing.assert_allclose(got, window.astype(np.float64) / std, rtol=1e-6)


def test_the_largest_values_of_float32_do_not_overflow() -> None:
    window = np.array([[3e38, -3e38]], np.float32)

    for given_ in (Normalise(method="zscore", mean=3e38, std=3e38), Normalise(method="zscore", mean=1e30, std=1.0)):
        assert np.isfinite(normalised(window, given_)).all()


# --- normalise by the window itself ----------------------------------------------------------


def own_zscore(values: Doubles, axis: int | None) -> Doubles:
    zscore: Doubles = scipy.stats.zscore(values, axis=axis, ddof=0)
    return zscore


def own_minmax(values: Doubles, axis: int | None) -> Doubles:
    low, high = values.min(axis=axis), values.max(axis=axis)
    return np.asarray((values - low) / (high - low), np.float64)


OWN = pytest.mark.parametrize(("method", "reference"), [("zscore", own_zscore), ("minmax", own_minmax)])


@OWN
@given(window=WINDOWS)
def test_by_channel_takes_each_channels_own(
    method: str, reference: Callable[[Doubles, int | None], Doubles], window: Floats
) -> None:
    varies = window.min(axis=0) < window.max(axis=0)

    got = normalised(window, Normalise(method=method, by="channel"))  # type: ignore[arg-type]

    assert got.shape == window.shape
    assert not got[:, ~varies].any()
    if varies.any():
        expected = reference(window[:, varies].astype(np.float64), 0)
        np.testing.assert_allclose(got[:, varies], expected, rtol=1e-6, atol=1e-9)


@OWN
@given(window=WINDOWS)
def test_by_whole_takes_all_channels_together(
    method: str, reference: Callable[[Doubles, int | None], Doubles], window: Floats
) -> None:
    got = normalised(window, Normalise(method=method, by="whole"))  # type: ignore[arg-type]

    if window.min() < window.max():
        expected = reference(window.astype(np.float64), None)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)
    else:
        assert not got.any()


@OWN
@given(values=hnp.arrays(np.float64, st.integers(2, 20), elements=st.floats(-1e3, 1e3).map(lambda x: round(x, 6))))
def test_by_whole_takes_features_too(
    method: str, reference: Callable[[Doubles, int | None], Doubles], values: Doubles
) -> None:
    got = normalised(values, Normalise(method=method, by="whole"), rows=False)  # type: ignore[arg-type]

    if values.min() < values.max():
        np.testing.assert_allclose(got, reference(values, None), rtol=1e-6, atol=1e-6)
    else:
        assert not got.any()


@pytest.mark.parametrize("method", ["zscore", "minmax"])
@pytest.mark.parametrize("by", ["channel", "whole"])
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False), rows=st.integers(1, 400))
def test_what_does_not_vary_becomes_0(method: str, by: str, value: float, rows: int) -> None:
    window = np.full((rows, 3), value, np.float32)

    assert not normalised(window, Normalise(method=method, by=by)).any()  # type: ignore[arg-type]


@given(value=st.floats(-1e300, 1e300), count=st.integers(1, 50))
def test_features_that_are_all_the_same_become_0(value: float, count: int) -> None:
    """Whatever the rounding of their mean: three times 0.1, divided by 3, is not 0.1."""
    for method in ("zscore", "minmax"):
        assert not normalised(np.full(count, value), Normalise(method=method, by="whole"), rows=False).any()


@pytest.mark.parametrize("by", ["channel", "whole"])
@pytest.mark.parametrize("offset", [0, 1e3, -1e6])
def test_an_offset_of_a_long_window_costs_no_digits(by: str, offset: float) -> None:
    window = np.random.default_rng(3).normal(offset, 1, (5000, 3)).astype(np.float32)
    axis = 0 if by == "channel" else None

    zscore = normalised(window, Normalise(method="zscore", by=by))  # type: ignore[arg-type]
    minmax = normalised(window, Normalise(method="minmax", by=by))  # type: ignore[arg-type]

    np.testing.assert_allclose(zscore, own_zscore(window.astype(np.float64), axis), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(minmax, own_minmax(window.astype(np.float64), axis), rtol=1e-6)


@pytest.mark.parametrize(
    "normalise",
    [
        Normalise(method="zscore", mean=0.0, std=1.0),
        Normalise(method="zscore", by="channel"),
        Normalise(method="zscore", by="whole"),
        Normalise(method="minmax", by="channel"),
        Normalise(method="minmax", by="whole"),
    ],
    ids=lambda one: f"{one.method}-{one.by}",
)
def test_the_window_is_left_as_it_was(normalise: Normalise) -> None:
    """Windows overlap: what goes into the next must be what came in."""
    window = ROWS.copy()
    window.flags.writeable = False

    normalised(window, normalise)

    assert window.tolist() == ROWS.tolist()


# --- quantise --------------------------------------------------------------------------------


def test_rounding_takes_halves_to_even_and_clips() -> None:
    tensor = integers(np.int8, 0.5, 3)

    values = np.array([0.0, 0.25, 0.75, -0.25, 1e9, -1e9])

    assert quantise(values, tensor).tolist() == [3, 3, 5, 3, 127, -128]
    assert quantise(values, tensor).dtype == np.int8


@pytest.mark.parametrize("dtype", INTEGERS)
@given(st.data(), st.floats(1e-6, 1e3))
def test_a_value_comes_back_within_half_a_step(dtype: npt.DTypeLike, data: st.DataObject, scale: float) -> None:
    bounds = np.iinfo(dtype)
    zero_point = data.draw(st.integers(int(bounds.min), int(bounds.max)))
    tensor = integers(dtype, scale, zero_point)
    low, high = ((int(bound) - zero_point) * scale for bound in (bounds.min, bounds.max))
    values = data.draw(hnp.arrays(np.float64, 6, elements=st.floats(low, high)))

    back = dequantise(quantise(values, tensor), tensor)

    assert back.dtype == np.float32
    np.testing.assert_allclose(back, values, rtol=1e-5, atol=scale * 0.5001)


@pytest.mark.parametrize("dtype", [*INTEGERS, np.int32])
@given(scale=st.floats(1e-6, 1e3), zero_point=st.integers(0, 100), value=st.floats(-1e30, 1e30))
def test_any_value_is_clipped_and_never_wraps(
    dtype: npt.DTypeLike, scale: float, zero_point: int, value: float
) -> None:
    tensor = integers(dtype, scale, zero_point)
    bounds = np.iinfo(dtype)

    (step,) = quantise(np.array([value]), tensor).tolist()

    assert step == min(max(round(value / scale) + zero_point, bounds.min), bounds.max)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32])
@pytest.mark.parametrize("given_as", [np.float32, np.float64])
def test_the_largest_floats_give_the_bounds(dtype: npt.DTypeLike, given_as: npt.DTypeLike) -> None:
    """In float32, the highest int32 is one too many: it would wrap."""
    bounds = np.iinfo(dtype)

    steps = quantise(np.array([3e38, -3e38], given_as), integers(dtype))

    assert steps.tolist() == [bounds.max, bounds.min]


def test_64_bits_are_clipped_to_what_float64_holds() -> None:
    values = np.array([1e30, -1e30, 12.0], np.float32)

    assert quantise(values, integers(np.int64)).tolist() == [2**63 - 2**10, -(2**63), 12]
    assert quantise(values, integers(np.uint64)).tolist() == [2**64 - 2**11, 0, 12]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_survives_the_way_back(dtype: npt.DTypeLike) -> None:
    bounds = np.iinfo(dtype)
    steps = np.arange(bounds.min, int(bounds.max) + 1).astype(dtype)
    tensor = integers(dtype, 0.0078125, 5)

    assert (quantise(dequantise(steps, tensor), tensor) == steps).all()


@pytest.mark.parametrize("dtype", [*INTEGERS, np.int32, np.int64])
def test_integers_without_a_scale_have_the_scale_1(dtype: npt.DTypeLike) -> None:
    tensor = integers(dtype)

    steps = quantise(np.array([0.5, 1.5, 1.7, 100.0], np.float32), tensor)

    assert (steps.dtype, steps.tolist()) == (np.dtype(dtype), [0, 2, 2, 100])
    assert dequantise(steps, tensor).dtype == np.float32
    assert dequantise(steps, tensor).tolist() == [0.0, 2.0, 2.0, 100.0]


def test_a_boolean_is_an_integer_from_0_to_1() -> None:
    tensor = integers(np.bool_)

    steps = quantise(np.array([-3.0, 0.0, 0.5, 0.6, 1.0, 7.0], np.float32), tensor)

    assert (steps.dtype, steps.tolist()) == (np.dtype(np.bool_), [False, False, False, True, True, True])
    assert dequantise(steps, tensor).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def test_int32_with_a_scale_is_worked_out_in_float64() -> None:
    tensor = integers(np.int32, 2**-20, 2**30)

    assert dequantise(np.array([2**30 + 1], np.int32), tensor).tolist() == [2**-20]


def test_floats_are_cast_alone() -> None:
    assert quantise(np.array([0.25, 0.5]), FLOAT).dtype == np.float32
    assert dequantise(np.array([0.25, 0.5], np.float32), FLOAT).tolist() == [0.25, 0.5]


def test_the_shape_is_kept_and_the_values_are_left_as_they_were() -> None:
    values = np.array([[0.1, 200.0], [0.5, -200.0]], np.float32)
    before = values.copy()

    for tensor in (integers(np.int8, 0.5, 3), integers(np.int8), integers(np.int32), integers(np.bool_)):
        assert quantise(values, tensor).shape == (2, 2)
        assert values.tolist() == before.tolist()


def test_the_whole_way_in() -> None:
    values = normalised(ROWS, Normalise(method="minmax", min=0.0, max=5.0))

    steps = quantise(values, integers(np.int8, 1 / 255, -128))

    assert (steps.dtype, steps.tolist()) == (np.dtype(np.int8), [[-128, -77], [-26, 25], [76, 127]])


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "zscore", "mean": 0.0}, "normalise.std: wanted with method 'zscore'"),
        ({"method": "zscore", "std": 1.0}, "normalise.mean: wanted with method 'zscore'"),
        ({"method": "zscore", "mean": 0.0, "std": 1.0, "min": 0.0}, "normalise.min: not known with method 'zscore'"),
        ({"method": "minmax", "min": 0.0}, "normalise.max: wanted with method 'minmax'"),
        ({"mean": 0.0}, "normalise.mean: not known with method 'none'"),
        ({"by": "whole"}, "normalise.by: 'whole' needs method 'zscore' or 'minmax'"),
        ({"method": "zscore", "by": "whole", "mean": 0.0}, "normalise.mean: not known with method 'zscore' by 'whole'"),
    ],
)
def test_parameters_fit_the_method(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Normalise(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("normalise", "said"),
    [
        (
            Normalise(method="zscore", mean=(0.0, 1.0, 2.0), std=1.0),
            "normalise.mean holds 3 numbers, and 2 values are normalised",
        ),
        (
            Normalise(method="minmax", min=0.0, max=(1.0,)),
            "normalise.max holds 1 numbers, and 2 values are normalised",
        ),
        (Normalise(method="zscore", mean=0.0, std=(1.0, 0.0)), "normalise.std holds 0: it would divide by 0"),
        (
            Normalise(method="minmax", min=(0.0, 1.0), max=1.0),
            "normalise.max equals normalise.min somewhere: it would divide by 0",
        ),
        (
            Normalise(method="zscore", mean=float("nan"), std=1.0),
            "normalise.mean holds a number that is not finite",
        ),
        (
            Normalise(method="minmax", min=0.0, max=float("inf")),
            "normalise.max holds a number that is not finite",
        ),
    ],
)
@pytest.mark.parametrize("rows", [True, False])
def test_numbers_that_do_not_fit_are_refused_by_name(normalise: Normalise, said: str, rows: bool) -> None:
    with pytest.raises(ModelError) as caught:
        compile_normalise(normalise, 2, rows=rows)
    assert caught.value.message == said


@pytest.mark.parametrize("method", ["zscore", "minmax"])
def test_features_have_no_channels_to_be_normalised_by(method: str) -> None:
    with pytest.raises(ModelError, match=r"normalise\.by: 'channel'") as caught:
        compile_normalise(Normalise(method=method, by="channel"), 2, rows=False)  # type: ignore[arg-type]
    assert caught.value.hint is not None
    assert "'whole'" in caught.value.hint
