"""Models as boards train them, on both runtimes, against float64 loops that share no code with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.base.errors import ConfigError, FormatError, ModelError
from edged.federated import privacy
from edged.federated.fit import Fitted, fit, mean_loss
from edged.federated.order import Plan
from edged.federated.trainer import Trainer
from edged.federated.weights import Weights, add, decode, difference, digest, encode, limited, norm
from edged.model.runtime import Engine, Interpreter, choose
from support import vibration
from support.backprop import NETS, Doubles, Net
from support.engines import ENGINES

FOLDER = Path(__file__).parent / "models"
DRAWS = 50
CLOSE = 1e-6


@pytest.fixture(params=NETS)
def case(request: pytest.FixtureRequest, engine: Engine) -> tuple[Trainer, Net]:
    return Trainer(FOLDER / f"{request.param}.tflite", engine), NETS[request.param]


@pytest.fixture
def trainer(engine: Engine) -> Trainer:
    return Trainer(FOLDER / "classifier.tflite", engine)


def draw(trainer: Trainer, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Give the trainer weights, and return as many examples as it takes at once."""
    trainer.use([0.5 * rng.normal(size=shape).astype(np.float32) for shape in trainer.shapes])
    x = rng.normal(size=(trainer.batch, *trainer.inputs)).astype(np.float32)
    return x, rng.uniform(size=(trainer.batch, *trainer.outputs)).astype(np.float32)


def by_loops(trainer: Trainer, net: Net, x: np.ndarray, y: np.ndarray) -> list[tuple[list[Doubles], float]]:
    weights = [each.astype(np.float64) for each in trainer.weights()]
    return [
        net.gradient(weights, one.astype(np.float64), wanted.astype(np.float64))
        for one, wanted in zip(x, y, strict=True)
    ]


def length(gradient: list[Doubles]) -> float:
    return math.sqrt(sum(float(np.sum(each**2)) for each in gradient))


def apart(got: Weights, expected: list[Doubles]) -> float:
    return length([one - other for one, other in zip(got, expected, strict=True)])


# --- gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_the_loops_themselves_agree_with_differences_of_the_loss(name: str) -> None:
    """The loops that all else here is compared with have to be right: each derivative is the loss's slope, measured."""
    net, rng = NETS[name], np.random.default_rng(1)
    trainer = Trainer(FOLDER / f"{name}.tflite", choose())
    x, y = (each.astype(np.float64) for each in draw(trainer, rng))
    weights = [each.astype(np.float64) for each in trainer.weights()]
    gradient, _ = net.gradient(weights, x[0], y[0])
    for place, each in enumerate(weights):
        for at in np.ndindex(each.shape):
            losses = []
            for step in (1e-6, -1e-6):
                moved = [one.copy() for one in weights]
                moved[place][at] += step
                losses.append(net.gradient(moved, x[0], y[0])[1])
            assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(gradient[place][at], rel=1e-5, abs=1e-8)


def test_gradients_equal_an_independent_backprop_to_a_millionth(case: tuple[Trainer, Net]) -> None:
    """Of the sum of the norms of what is added up: float32 can do no better where examples cancel each other out."""
    trainer, net = case
    rng = np.random.default_rng(2)
    worst = 0.0
    for _ in range(DRAWS):
        x, y = draw(trainer, rng)
        mask = (rng.uniform(size=trainer.batch) < 0.8).astype(np.float32)
        got, loss = trainer.gradients(x, y, mask)
        each = [found for found, counts in zip(by_loops(trainer, net, x, y), mask, strict=True) if counts]
        if not each:
            assert not any(one.any() for one in got)
            continue
        expected = [np.sum(layer, axis=0) for layer in zip(*(gradient for gradient, _ in each), strict=True)]
        worst = max(worst, apart(got, expected) / sum(length(gradient) for gradient, _ in each))
        assert loss == pytest.approx(sum(loss for _, loss in each), rel=CLOSE, abs=CLOSE)
    assert worst <= CLOSE


def test_answers_equal_an_independent_forward_pass_to_a_millionth(case: tuple[Trainer, Net]) -> None:
    trainer, net = case
    rng = np.random.default_rng(3)
    for _ in range(DRAWS):
        x, _ = draw(trainer, rng)
        weights = [each.astype(np.float64) for each in trainer.weights()]
        expected = [net.close(net.forward(weights, one.astype(np.float64))[0]).reshape(-1) for one in x]
        assert np.abs(trainer.infer(x) - expected).max() <= CLOSE


def test_clipped_gradients_equal_those_of_the_loops_scaled_one_by_one(case: tuple[Trainer, Net]) -> None:
    trainer, net = case
    rng = np.random.default_rng(4)
    for _ in range(DRAWS):
        x, y = draw(trainer, rng)
        mask = (rng.uniform(size=trainer.batch) < 0.8).astype(np.float32)
        each = [gradient for gradient, _ in by_loops(trainer, net, x, y)]
        norms = np.array([length(gradient) for gradient in each])
        clip = float(np.median(norms))
        scales = mask * np.minimum(1, clip / norms)
        expected = [
            np.sum([s * one for s, one in zip(scales, layer, strict=True)], axis=0) for layer in zip(*each, strict=True)
        ]

        got, told, loss = trainer.clipped(x, y, mask, clip)

        assert apart(got, expected) <= 2e-5 * max(1e-30, float((scales * norms).sum()))  # clipping itself leaves 1e-5
        assert np.allclose(told, mask * norms, rtol=2e-5, atol=1e-7)
        assert loss == pytest.approx(trainer.gradients(x, y, mask)[1], rel=CLOSE, abs=CLOSE)


numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)
moderate = st.floats(-100, 100, width=32)


@pytest.fixture(scope="module", params=[(name, runtime) for name in NETS for runtime in ENGINES], ids="-".join)
def kept(request: pytest.FixtureRequest) -> Iterator[Trainer]:
    """One for all examples of a test."""
    name, runtime = request.param
    trainer = Trainer(FOLDER / f"{name}.tflite", choose(runtime))
    yield trainer
    trainer.close()


@settings(max_examples=150)
@given(data=st.data(), values=st.sampled_from([numbers, moderate]), clip=st.floats(2.0**-20, 2.0**20, width=32))
def test_no_example_counts_for_more_than_the_clip(
    kept: Trainer, data: st.DataObject, values: st.SearchStrategy[float], clip: float
) -> None:
    """Whatever is in it: any x, y and mask, numbers that overflow, NaN. Nor do all of them for more than theirs."""
    trainer, size = kept, kept.batch
    drawn = st.lists(values, min_size=size * 4, max_size=size * 4)
    x, y = (
        np.resize(np.array(data.draw(drawn), np.float32), (size, *shape)) for shape in (trainer.inputs, trainer.outputs)
    )
    mask = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=size, max_size=size)), np.float32)
    for place in range(size):
        alone = np.zeros(size, np.float32)
        alone[place] = mask[place]
        got, norms, _ = trainer.clipped(x, y, alone, clip)
        assert norm(got) <= clip * mask[place]
        assert np.isfinite(norms).all()
    got, _, _ = trainer.clipped(x, y, mask, clip)
    assert norm(got) <= clip * mask.sum()


@pytest.mark.parametrize("rubbish", [1e30, math.inf, math.nan])
def test_a_masked_example_contributes_nothing_whatever_it_holds(case: tuple[Trainer, Net], rubbish: float) -> None:
    trainer, _ = case
    x, y = draw(trainer, np.random.default_rng(5))
    mask = np.ones(trainer.batch, np.float32)
    mask[1] = 0
    plain = trainer.gradients(x, y, mask), trainer.clipped(x, y, mask, 1.0)
    x[1], y[1] = rubbish, rubbish
    spoilt = trainer.gradients(x, y, mask), trainer.clipped(x, y, mask, 1.0)

    assert digest(plain[0][0]) == digest(spoilt[0][0])
    assert plain[0][1] == spoilt[0][1]
    assert digest(plain[1][0]) == digest(spoilt[1][0])
    assert spoilt[1][1][1] == 0


def test_an_example_whose_gradient_is_not_finite_counts_as_zero_and_is_told(trainer: Trainer) -> None:
    x, y = draw(trainer, np.random.default_rng(6))
    mask = np.ones(trainer.batch, np.float32)
    without = mask.copy()
    without[2] = 0
    expected = trainer.clipped(x, y, without, 1.0)[0]
    x[2] = math.inf

    got, norms, loss = trainer.clipped(x, y, mask, 1.0)

    assert digest(got) == digest(expected)
    assert norms[2] == np.finfo(np.float32).max
    assert math.isfinite(loss)


# --- weights ---------------------------------------------------------------------------------


def test_weights_that_were_set_are_those_that_answer_and_are_given_back(case: tuple[Trainer, Net]) -> None:
    trainer, _ = case
    rng = np.random.default_rng(7)
    first = trainer.weights()
    x, _ = draw(trainer, rng)
    second, answers = trainer.weights(), trainer.infer(x)
    trainer.use(first)
    assert not np.array_equal(trainer.infer(x), answers)
    trainer.use(second)

    assert np.array_equal(trainer.infer(x), answers)
    assert digest(trainer.weights()) == digest(second)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(trainer: Trainer, wrong: float) -> None:
    before = trainer.weights()
    weights = trainer.weights()
    weights[1][0] = wrong
    for refused in (lambda: trainer.use(weights), lambda: decode(encode(weights), trainer.shapes)):
        with pytest.raises(FormatError, match="weight 1 holds values that are not finite"):
            refused()
    assert digest(trainer.weights()) == digest(before)


def test_weights_of_another_model_are_refused(trainer: Trainer) -> None:
    weights = trainer.weights()
    with pytest.raises(FormatError, match="5 weights where the model has 6"):
        trainer.use(weights[:-1])
    weights[0] = weights[0].T.copy()
    with pytest.raises(FormatError, match=r"weight 0 is float32 \[8, 6\], not float32 \[6, 8\]"):
        trainer.use(weights)


def test_weights_survive_their_encoding_to_the_bit(trainer: Trainer) -> None:
    weights = trainer.weights()
    weights[0][0, 0], weights[0][0, 1] = -0.0, np.float32(1e-45)

    found = decode(encode(weights), trainer.shapes)

    assert encode(found) == encode(weights)
    assert digest(found) == digest(weights)
    assert all(each.flags.writeable for each in found)


@given(st.binary(max_size=200))
def test_what_is_no_encoding_of_weights_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data, [(2, 2), (2,)])


@given(st.data())
def test_an_encoding_that_was_changed_anywhere_is_refused_or_other_weights(data: st.DataObject) -> None:
    weights = [np.ones((2, 2), np.float32), np.ones(2, np.float32)]
    encoded = bytearray(encode(weights))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(encoded), [(2, 2), (2,)])
    except FormatError:
        return
    assert digest(found) != digest(weights)
    assert [each.shape for each in found] == [(2, 2), (2,)]


def test_the_norm_is_that_of_all_weights_together() -> None:
    weights = [np.full((2, 2), 1, np.float32), np.full(5, 2, np.float32)]

    assert norm(weights) == pytest.approx(math.sqrt(24))
    assert norm(limited(weights, 1.0)) == pytest.approx(1.0, rel=1e-6)
    assert limited(weights, 10.0) is weights
    assert norm(difference(add(weights, weights, 0.5), weights)) == pytest.approx(math.sqrt(6))


# --- models that cannot be trained -----------------------------------------------------------


def test_a_model_without_training_signatures_is_refused_by_the_one_that_lacks(models: Path, engine: Engine) -> None:
    with pytest.raises(ModelError, match="has no signature 'infer'"):
        Trainer(models / "gearbox/dnn.tflite", engine)


def test_a_model_with_other_training_signatures_is_refused(models: Path, engine: Engine) -> None:
    with pytest.raises(ModelError, match=r"signature '(infer|get_weights)': its (in|out)puts are "):
        Trainer(models / "ondevice_training/training_model.tflite", engine)


def test_examples_that_do_not_fit_are_refused(trainer: Trainer) -> None:
    x, y = draw(trainer, np.random.default_rng(8))
    mask = np.ones(trainer.batch, np.float32)
    for bad in ((x[:-1], y, mask), (x[:, :-1], y, mask), (x, y, mask[:-1]), (x.astype(np.float64), y, mask)):
        with pytest.raises(ModelError, match=r"signature 'grads': (x|mask) is float32"):
            trainer.gradients(*bad)


def test_a_model_may_come_as_bytes_file_or_interpreter(engine: Engine) -> None:
    path = vibration.WEIGHTS
    found = [Trainer(source, engine) for source in (path, str(path), path.read_bytes(), Interpreter(engine, str(path)))]

    assert len({digest(one.weights()) for one in found}) == 1
    for one in found:
        one.close()


# --- steps -----------------------------------------------------------------------------------


@pytest.fixture
def examples(trainer: Trainer) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(22, *trainer.inputs)).astype(np.float32)  # no multiple of the model's batch
    return x, np.eye(3, dtype=np.float32)[rng.integers(3, size=22)]


def run(trainer: Trainer, examples: tuple[np.ndarray, np.ndarray], start: Weights, plan: Plan) -> Fitted:
    return fit(trainer, start, *examples, plan, np.random.default_rng(10))


def test_one_step_over_everything_moves_by_the_rate_times_the_mean_gradient(
    trainer: Trainer, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    start = trainer.weights()
    expected = [gradient for gradient, _ in by_loops(trainer, NETS["classifier"], *examples)]

    found = run(trainer, examples, start, Plan(epochs=1, batch=100, rate=0.5))

    moved = difference(start, found.weights)
    mean = [0.5 * np.mean(layer, axis=0) for layer in zip(*expected, strict=True)]
    assert apart(moved, mean) <= 1e-6
    assert (found.examples, found.steps, found.sampling) == (22, 1, 1.0)
    assert found.loss_after < found.loss_before
    assert digest(trainer.weights()) == digest(found.weights)
    assert mean_loss(trainer, *examples) == found.loss_after


def test_the_proximal_term_pulls_towards_the_start_by_mu_times_the_distance(
    trainer: Trainer, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    """FedProx: the gradient of mu/2 |w - start|^2. Two full steps: the first is FedAvg's, the second differs by it."""
    start = trainer.weights()
    once = run(trainer, examples, start, Plan(epochs=1, batch=22, rate=0.5)).weights
    free = run(trainer, examples, start, Plan(epochs=2, batch=22, rate=0.5)).weights
    held = run(trainer, examples, start, Plan(epochs=2, batch=22, rate=0.5, proximal=0.2)).weights

    pulled = add(free, difference(once, start), -0.5 * 0.2)
    assert norm(difference(held, pulled)) <= 1e-6 * norm(held)
    assert norm(difference(held, start)) < norm(difference(free, start))


def test_every_epoch_takes_every_example_once_in_an_order_that_the_generator_tells(
    trainer: Trainer, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    plan = Plan(epochs=3, batch=5, rate=0.1)
    start = trainer.weights()
    one, other = (fit(trainer, start, *examples, plan, np.random.default_rng(seed)) for seed in (1, 1))
    third = fit(trainer, start, *examples, plan, np.random.default_rng(2))

    assert one.steps == 15
    assert digest(one.weights) == digest(other.weights) != digest(third.weights)


def test_an_update_is_never_longer_than_its_bound(trainer: Trainer, examples: tuple[np.ndarray, np.ndarray]) -> None:
    start = trainer.weights()
    free = run(trainer, examples, start, Plan(epochs=5, batch=5, rate=0.5))
    held = run(trainer, examples, start, Plan(epochs=5, batch=5, rate=0.5, bound=0.1))

    assert norm(difference(free.weights, start)) > 0.5
    assert norm(difference(held.weights, start)) == pytest.approx(0.1, rel=1e-5)


def test_a_step_with_a_clip_is_no_longer_than_rate_times_clip(
    trainer: Trainer, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    start = trainer.weights()

    found = run(trainer, (1e6 * examples[0], examples[1]), start, Plan(epochs=1, batch=100, rate=1.0, clip=0.01))

    assert 0 < norm(difference(found.weights, start)) <= 0.01


@pytest.mark.parametrize("spoilt", ["x", "y", "none", "few", "shape"])
def test_examples_that_nothing_can_be_learned_from_are_refused(
    trainer: Trainer, examples: tuple[np.ndarray, np.ndarray], spoilt: str
) -> None:
    x, y = (each.copy() for each in examples)
    if spoilt in "xy":
        (x if spoilt == "x" else y)[3] = math.nan
    x, y = {"none": (x[:0], y[:0]), "few": (x, y[:-1]), "shape": (x[:, :-1], y)}.get(spoilt, (x, y))
    with pytest.raises(ModelError):
        fit(trainer, trainer.weights(), x, y, Plan(epochs=1, batch=4, rate=0.1), np.random.default_rng(1))


def test_training_that_runs_away_is_refused(trainer: Trainer, examples: tuple[np.ndarray, np.ndarray]) -> None:
    x = np.full_like(examples[0], 3e38)
    with pytest.raises(ModelError, match="training runs away: step 1"):
        fit(trainer, trainer.weights(), x, examples[1], Plan(epochs=2, batch=22, rate=100.0), np.random.default_rng(1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 10**6},
        {"batch": 0},
        {"rate": 0.0},
        {"rate": math.nan},
        {"rate": math.inf},
        {"rate": -1.0},
        {"proximal": -0.1},
        {"clip": 0.0},
        {"clip": math.nan},
        {"bound": -1.0},
        {"noise": 1.0},
        {"noise": -1.0, "clip": 1.0},
    ],
)
def test_a_plan_out_of_bounds_is_refused_by_its_key(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"plan.{next(iter(wrong))}: "):
        Plan(**{"epochs": 1, "batch": 1, "rate": 0.1, **wrong})  # type: ignore[arg-type]


# --- noise -----------------------------------------------------------------------------------

MANY = 400_000


def test_noise_has_the_mean_and_variance_of_the_standard_normal_distribution() -> None:
    """Bounds of five standard errors: by chance one of these fails about once in a million runs."""
    drawn = privacy.normal(MANY)
    assert abs(drawn.mean()) < 5 / math.sqrt(MANY)
    assert abs(drawn.var() - 1) < 5 * math.sqrt(2 / MANY)
    assert abs((drawn**3).mean()) < 5 * math.sqrt(15 / MANY)
    assert abs((drawn**4).mean() - 3) < 5 * math.sqrt(96 / MANY)
    for bound, share in ((-1.0, 0.158655), (0.0, 0.5), (2.0, 0.977250)):
        assert abs((drawn < bound).mean() - share) < 5 * math.sqrt(share * (1 - share) / MANY)


def test_every_coordinate_gets_noise_of_its_own_and_every_step_anew() -> None:
    """1,000 draws for each of 300 coordinates: mean and variance of each, and no correlation between steps."""
    steps, deviation = 1000, 2.5
    start = [np.full((10, 20), 3, np.float32), np.zeros(100, np.float32)]
    drawn = np.stack(
        [np.concatenate([each.reshape(-1) for each in privacy.noisy(start, deviation)]) for _ in range(steps)]
    )
    centred = (drawn - np.concatenate([each.reshape(-1) for each in start])) / deviation
    assert np.abs(centred.mean(axis=0)).max() < 6 / math.sqrt(steps)  # 300 at once: six, not five
    assert np.abs(centred.var(axis=0) - 1).max() < 6 * math.sqrt(2 / steps)
    between_steps = (centred[1:] * centred[:-1]).mean()
    between_coordinates = (centred[:, 1:] * centred[:, :-1]).mean()
    assert abs(between_steps) < 5 / math.sqrt(centred.size)
    assert abs(between_coordinates) < 5 / math.sqrt(centred.size)


def test_training_adds_noise_of_the_planned_size_to_each_step(
    trainer: Trainer, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    """All examples in every step: without noise it always comes to the same, so what differs between runs is noise."""
    plan = Plan(epochs=1, batch=22, rate=1.0, clip=0.5, noise=2.0)
    start, runs = trainer.weights(), 300
    moved = np.stack(
        [
            np.concatenate([each.reshape(-1) for each in run(trainer, examples, start, plan).weights])
            for _ in range(runs)
        ]
    )
    expected = plan.noise * 0.5 / 22  # the sum's standard deviation over the examples that it is divided by
    centred = moved - moved.mean(axis=0)
    assert math.sqrt((centred**2).sum() / (moved.size - moved.shape[1])) == pytest.approx(
        expected, rel=5 / math.sqrt(2 * moved.size)
    )
    clean = run(trainer, examples, start, Plan(epochs=1, batch=22, rate=1.0, clip=0.5)).weights
    off = moved.mean(axis=0) - np.concatenate([each.reshape(-1) for each in clean])
    assert np.abs(off).max() < 6 * expected / math.sqrt(runs)


def test_noise_and_samples_do_not_come_of_the_generator_that_is_given(
    trainer: Trainer, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    """Nothing that an aggregator could know foretells them."""
    plan = Plan(epochs=1, batch=5, rate=0.1, clip=1.0, noise=1.0)
    start = trainer.weights()
    generator = np.random.default_rng(1)
    before = generator.bit_generator.state
    one = fit(trainer, start, *examples, plan, generator)

    assert generator.bit_generator.state == before
    assert digest(one.weights) != digest(fit(trainer, start, *examples, plan, np.random.default_rng(1)).weights)
    assert (one.steps, one.sampling) == (5, 5 / 22)


def test_samples_take_each_example_with_the_same_chance_independently() -> None:
    examples, chance, steps = 40, 0.3, 5000
    taken = np.zeros((steps, examples))
    for step in range(steps):
        taken[step, privacy.sample(examples, chance)] = 1
    assert np.abs(taken.mean(axis=0) - chance).max() < 6 * math.sqrt(chance * (1 - chance) / steps)
    sizes = taken.sum(axis=1)
    assert sizes.var() == pytest.approx(examples * chance * (1 - chance), rel=6 * math.sqrt(2 / steps))
    assert len(privacy.sample(50, 1.0)) == 50


# --- boards ----------------------------------------------------------------------------------


def test_boards_that_average_come_within_two_points_of_central_training(engine: Engine) -> None:
    """Three boards, each with a machine of its own and other faults; ten rounds; windows that nobody learned from."""
    chain = vibration.Chain()
    boards = [vibration.board(chain, number, 200) for number in range(3)]

    found = vibration.compare(Trainer(vibration.WEIGHTS, engine), boards, vibration.held_out(chain, 3, 50), rounds=10)

    assert found.centrally > 0.97
    assert found.together[-1] >= found.centrally - 0.02
    assert max(found.alone) < found.together[-1] - 0.05


def test_boards_learn_what_is_healthy_from_one_another_without_any_label(engine: Engine) -> None:
    """An autoencoder, on healthy windows alone: a board by itself takes the others' healthy machines for broken."""
    chain = vibration.Chain(vibration.ANOMALY_MANIFEST, vibration.ANOMALY_WEIGHTS)
    boards = [vibration.board(chain, number, 200) for number in range(3)]
    assert all(one.y is one.x and not one.labels.any() for one in boards)
    trainer = Trainer(vibration.ANOMALY_WEIGHTS, engine)

    found = vibration.compare(trainer, boards, vibration.held_out(chain, 3, 50), 10, vibration.ANOMALY_PLAN)

    assert found.centrally > 0.97
    assert found.together[-1] >= found.centrally - 0.02
    assert max(found.alone) < found.together[-1] - 0.05
