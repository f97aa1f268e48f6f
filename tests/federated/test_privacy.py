"""The promise of noise: the accountant's numbers against an independent one, and the words that go with them."""

from __future__ import annotations

import logging
import math
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import ConfigError
from edged.federated.privacy import ORDERS, Phase, epsilon, spent

# noise multiplier, sampling rate, steps, delta; epsilon and order by dp-accounting 0.6 at whole orders from 2 to 256
KNOWN = [
    (1.1, 0.01, 10_000, 1e-5, 5.6543080001495145, 5),
    (1.0, 0.08, 200, 1e-3, 6.433054412699795, 3),
    (0.7, 0.25, 200, 1e-3, 75.4492969381566, 2),
    (2.0, 1.0, 50, 1e-5, 22.626631103850336, 2),
    (0.3, 0.5, 10, 1e-4, 105.0726618608732, 2),
]


@pytest.fixture
def accounting() -> ModuleType:
    found = pytest.importorskip("dp_accounting", reason="needs dp-accounting (the extra of these tests)")
    logging.getLogger("absl").setLevel(logging.ERROR)
    return found


@pytest.mark.parametrize(("noise", "sampling", "steps", "delta", "expected", "order"), KNOWN)
def test_epsilon_is_what_another_accountant_printed(
    noise: float, sampling: float, steps: int, delta: float, expected: float, order: int
) -> None:
    found = epsilon(noise, sampling, steps, delta)

    assert found.epsilon == pytest.approx(expected, rel=1e-9)
    assert found.order == order


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("sampling", [0.001, 0.08, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 130, 5000])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_epsilon_equals_an_independent_accountants(
    accounting: ModuleType, noise: float, sampling: float, steps: int, delta: float
) -> None:
    """Google's, at the same orders."""
    event = accounting.PoissonSampledDpEvent(sampling, accounting.GaussianDpEvent(noise))
    theirs = accounting.rdp.RdpAccountant(orders=list(ORDERS)).compose(event, steps)

    found = epsilon(noise, sampling, steps, delta).epsilon

    assert found == pytest.approx(theirs.get_epsilon(delta), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("noise", "sampling", "steps"), [(1.0, 0.08, 200), (1.1, 0.01, 1000), (2.0, 1.0, 50), (4.0, 0.5, 100)]
)
def test_epsilon_is_never_below_what_a_tight_accountant_finds(
    accounting: ModuleType, noise: float, sampling: float, steps: int
) -> None:
    """By privacy loss distributions, another method altogether: Renyi's bound lies above, and not far."""
    pld = pytest.importorskip("dp_accounting.pld")
    tight = pld.PLDAccountant().compose(
        accounting.PoissonSampledDpEvent(sampling, accounting.GaussianDpEvent(noise)), steps
    )

    assert tight.get_epsilon(1e-5) <= epsilon(noise, sampling, steps, 1e-5).epsilon <= 1.3 * tight.get_epsilon(1e-5)


def test_phases_that_differ_add_up_as_in_an_independent_accountant(accounting: ModuleType) -> None:
    phases = [Phase(1.0, 0.1, 100), Phase(2.0, 0.3, 40), Phase(0.8, 0.02, 500)]
    theirs = accounting.rdp.RdpAccountant(orders=list(ORDERS))
    for phase in phases:
        gaussian = accounting.GaussianDpEvent(phase.noise_multiplier)
        theirs.compose(accounting.PoissonSampledDpEvent(phase.sampling_rate, gaussian), phase.steps)

    assert spent(phases, 1e-5).epsilon == pytest.approx(theirs.get_epsilon(1e-5), rel=1e-9)


def test_the_accountant_of_flower_says_the_same(accounting: ModuleType) -> None:
    """It is Google's underneath; what is checked is that both mean the same by their words."""
    flower = pytest.importorskip("flwr.supercore.privacy_accounting", reason="needs flwr")
    rdp = pytest.importorskip("flwr.supercore.privacy_accounting.rdp_accountant")
    assert accounting
    config = flower.PrivacyConfig(
        1e-3, 200, flower.NeighboringRelation.ADD_OR_REMOVE_ONE, flower.SamplingMethod.POISSON
    )
    theirs = rdp.RdpAccountant(config, orders=tuple(float(order) for order in ORDERS))
    theirs.compose(flower.GaussianPrivacyEvent(1.0, 16, 200), 200)

    assert epsilon(1.0, 16 / 200, 200, 1e-3).epsilon == pytest.approx(theirs.get_epsilon(1e-3), rel=1e-9)


positive = st.floats(0.3, 50)
rates = st.floats(1e-4, 1)


@settings(max_examples=15)
@given(noise=positive, sampling=rates, steps=st.integers(1, 1000))
def test_more_noise_fewer_steps_and_smaller_samples_never_promise_less(
    noise: float, sampling: float, steps: int
) -> None:
    here = epsilon(noise, sampling, steps, 1e-5).epsilon
    slack = 1e-9 * here + 1e-12

    assert epsilon(1.5 * noise, sampling, steps, 1e-5).epsilon <= here + slack
    assert epsilon(noise, sampling / 2, steps, 1e-5).epsilon <= here + slack
    assert epsilon(noise, sampling, steps + 10, 1e-5).epsilon >= here - slack
    assert epsilon(noise, sampling, steps, 1e-4).epsilon <= here + slack


def test_without_noise_nothing_is_promised() -> None:
    found = epsilon(0.0, 0.1, 1, 1e-5)

    assert (found.epsilon, found.order) == (math.inf, 0)


@pytest.mark.parametrize(("sampling", "steps"), [(0.0, 100), (0.5, 0)])
def test_without_steps_or_examples_nothing_is_spent(sampling: float, steps: int) -> None:
    assert epsilon(1.0, sampling, steps, 1e-5).epsilon == 0


def test_the_assumptions_are_told_with_the_number() -> None:
    told = epsilon(1.0, 0.08, 200, 1e-3).assumptions

    for word in (
        "delta 0.001",
        "200 steps",
        "chance 0.08",
        "noise 1 times the clip",
        "a single example more",
        "Poisson",
        "not covered",
    ):
        assert word in told
    assert "two fleets are neighbours where one has a single board more" in epsilon(1, 1, 10, 1e-5, "board").assumptions


@pytest.mark.parametrize(
    "wrong",
    [
        (-1.0, 0.1, 1, 1e-5),
        (math.nan, 0.1, 1, 1e-5),
        (1.0, 1.1, 1, 1e-5),
        (1.0, 0.1, -1, 1e-5),
        (1.0, 0.1, 1, 0.0),
        (1.0, 0.1, 1, 1.0),
    ],
)
def test_numbers_out_of_bounds_are_refused(wrong: tuple[float, float, int, float]) -> None:
    with pytest.raises(ConfigError):
        epsilon(*wrong)
