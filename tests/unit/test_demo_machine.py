"""The demo's simulated machine: deterministic, and with the faults that it claims."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edged.demo.machine import CHANNELS, RATE, Condition, simulate

X, Y, Z = range(len(CHANNELS))


def stretch(
    condition: Condition, severity: float = 1.0, seconds: float = 8.0, seed: int = 7
) -> npt.NDArray[np.float32]:
    return simulate(np.random.default_rng(seed), condition, severity, seconds)


def spectrum(signal: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return np.fft.rfftfreq(len(signal), 1 / RATE), np.abs(np.fft.rfft(signal)) * 2 / len(signal)


@pytest.mark.parametrize("condition", Condition)
def test_same_seed_same_rows(condition: Condition) -> None:
    assert np.array_equal(stretch(condition), stretch(condition))
    assert not np.array_equal(stretch(condition), stretch(condition, seed=8))


@pytest.mark.parametrize("condition", Condition)
@pytest.mark.parametrize("rows", [1, 2, 256, 1001])
def test_rows_are_float32_by_channel(condition: Condition, rows: int) -> None:
    signal = stretch(condition, seconds=rows / RATE)
    assert signal.shape == (rows, 3)
    assert signal.dtype == np.float32
    assert np.isfinite(signal).all()


@pytest.mark.parametrize("condition", [Condition.IMBALANCE, Condition.BEARING])
def test_a_fault_of_no_severity_is_healthy(condition: Condition) -> None:
    assert np.array_equal(stretch(condition, severity=0.0), stretch(Condition.HEALTHY))


@pytest.mark.parametrize("condition", [Condition.IMBALANCE, Condition.BEARING])
def test_a_fault_grows_with_its_severity(condition: Condition) -> None:
    deviations = [stretch(condition, severity).std(axis=0) for severity in (0.0, 0.25, 0.5, 1.0)]
    assert (np.diff(deviations, axis=0) > 0).all()


def test_imbalance_grows_at_the_shaft_speed_and_radially() -> None:
    frequencies, healthy = spectrum(stretch(Condition.HEALTHY)[:, X])
    _, faulty = spectrum(stretch(Condition.IMBALANCE)[:, X])
    assert frequencies[np.argmax(faulty - healthy)] == pytest.approx(24.5, abs=1.5)
    growth = stretch(Condition.IMBALANCE).std(axis=0) - stretch(Condition.HEALTHY).std(axis=0)
    assert growth[Z] < growth[[X, Y]].min() / 4


def test_a_bearing_fault_is_a_train_of_blows() -> None:
    """Heavy tails, a ringing at the resonance, and an envelope that beats at the rate of the balls."""
    signal = stretch(Condition.BEARING)[:, Y].astype(np.float64)
    centred = signal - signal.mean()
    assert np.mean(centred**4) / np.mean(centred**2) ** 2 > 3.5

    frequencies, amplitudes = spectrum(stretch(Condition.BEARING)[:, Y])
    assert amplitudes[(frequencies > 250) & (frequencies < 390)].mean() > 2 * amplitudes[frequencies > 450].mean()

    frequencies, envelope = spectrum(np.abs(centred).astype(np.float32))
    band = (frequencies > 60) & (frequencies < 120)
    assert frequencies[band][np.argmax(envelope[band])] == pytest.approx(3.58 * 24.5, rel=0.05)


def test_a_long_stretch_takes_memory_in_proportion() -> None:
    assert stretch(Condition.BEARING, seconds=120).shape == (120 * RATE, 3)


@pytest.mark.parametrize(("severity", "seconds"), [(-0.1, 1.0), (1.1, 1.0), (0.5, 0.0), (0.5, -1.0)])
def test_nonsense_is_refused(severity: float, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|at least one row"):
        stretch(Condition.BEARING, severity, seconds)
