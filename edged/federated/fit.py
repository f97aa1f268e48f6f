"""One round on one board: steps of gradient descent on its own examples, and what comes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edged.base.errors import ModelError
from edged.base.nothing import nothing
from edged.federated.order import Plan
from edged.federated.privacy import noisy, sample
from edged.federated.trainer import Floats, Trainer
from edged.federated.weights import Weights, add, difference, limited

_Places = npt.NDArray[np.intp]


class Fitted(NamedTuple):
    """The result of one round.

    :ivar weights: the trained weights.
    :ivar examples: how many there were to learn from.
    :ivar loss_before: mean over them with the weights that the round began with. Neither loss is covered by noise: what
        the privacy of single examples rests on does not leave the board.
    :ivar loss_after: with those that it ended with.
    :ivar steps: how many were taken.
    :ivar sampling: the chance of each example to be in a step, which the privacy accountant uses.
    """

    weights: Weights
    examples: int
    loss_before: float
    loss_after: float
    steps: int
    sampling: float


def fit(
    trainer: Trainer,
    start: Weights,
    x: Floats,
    y: Floats,
    plan: Plan,
    random: np.random.Generator,
    check: Callable[[], None] = nothing,
) -> Fitted:
    """Train as planned, from ``start``. The trainer keeps the weights that come out.

    With noise, every step takes each example with the same chance, and the order of examples has no part in it: what
    privacy is reckoned with. Both the noise and the samples then come from the system's generator, never from
    ``random``.

    :param x: [n, *trainer.inputs]
    :param y: [n, *trainer.outputs]
    :param random: shuffles examples where there is no noise.
    :param check: is called before each step; what it raises ends the training.
    :raises FormatError: ``start`` does not fit the model, or has values that are not finite.
    :raises ModelError: there are no examples, they do not fit the model, or training runs away.
    """
    _check_examples(trainer, x, y)
    examples = len(x)
    size = min(plan.batch, examples)
    trainer.use(start)
    before = mean_loss(trainer, x, y)
    weights, steps = start, 0
    for places in _batches(examples, size, plan, random):
        check()
        gradient = _gradient(trainer, x[places], y[places], plan)
        if plan.noise and plan.clip is not None:
            gradient = noisy(gradient, plan.noise * plan.clip)
        # With noise the divisor may not tell how many were in the sample.
        moved = add(weights, gradient, -plan.rate / (size if plan.noise else len(places)))
        if plan.proximal:  # the derivative of mu/2 |w - start|^2 (Li et al., FedProx, 2020)
            moved = add(moved, difference(weights, start), -plan.rate * plan.proximal)
        weights, steps = moved, steps + 1
        _check_finite(weights, steps)
        trainer.use(weights)
    if plan.bound is not None:
        weights = add(start, limited(difference(weights, start), plan.bound))
        trainer.use(weights)
    return Fitted(weights, examples, before, mean_loss(trainer, x, y), steps, size / examples)


def mean_loss(trainer: Trainer, x: Floats, y: Floats) -> float:
    """Return the mean loss over examples, with the weights that the trainer has.

    :raises ModelError: there are none, or they do not fit the model.
    """
    _check_examples(trainer, x, y)
    return sum(trainer.gradients(*chunk)[1] for chunk in _chunks(trainer, x, y)) / len(x)


def _check_examples(trainer: Trainer, x: Floats, y: Floats) -> None:
    if not len(x) or len(x) != len(y):
        raise ModelError(f"{len(x)} examples with {len(y)} answers: there is nothing to learn from")
    for what, values, shape in (("examples", x, trainer.inputs), ("answers", y, trainer.outputs)):
        if values.shape[1:] != shape or values.dtype != np.float32:
            raise ModelError(f"{what} are {values.dtype} {list(values.shape[1:])}, the model wants {list(shape)}")
        if not np.isfinite(values).all():
            raise ModelError(f"{what} hold values that are not finite")


def _batches(examples: int, size: int, plan: Plan, random: np.random.Generator) -> Iterator[_Places]:
    """Yield which examples each step takes."""
    for _ in range(plan.epochs):
        if plan.noise:
            for _ in range(math.ceil(examples / size)):
                yield sample(examples, size / examples)
        else:
            order = random.permutation(examples)
            for start in range(0, examples, size):
                yield order[start : start + size]


def _gradient(trainer: Trainer, x: Floats, y: Floats, plan: Plan) -> Weights:
    """Return the sum over examples, each clipped where the plan wants that; zeros for none."""
    total: Weights = [np.zeros(shape, np.float32) for shape in trainer.shapes]
    for chunk in _chunks(trainer, x, y):
        part = trainer.gradients(*chunk)[0] if plan.clip is None else trainer.clipped(*chunk, plan.clip)[0]
        total = add(total, part)
    return total


def _chunks(trainer: Trainer, x: Floats, y: Floats) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Yield examples in as many as the model takes at once, the last ones filled up and masked."""
    for start in range(0, len(x), trainer.batch):
        some, wanted = x[start : start + trainer.batch], y[start : start + trainer.batch]
        mask = np.zeros(trainer.batch, np.float32)
        mask[: len(some)] = 1.0
        yield _filled(some, trainer.batch), _filled(wanted, trainer.batch), mask


def _filled(some: Floats, count: int) -> Floats:
    filled = np.zeros((count, *some.shape[1:]), np.float32)
    filled[: len(some)] = some
    return filled


def _check_finite(weights: Weights, step: int) -> None:
    if not all(np.isfinite(each).all() for each in weights):
        raise ModelError(
            f"training runs away: step {step} leaves weights that are not finite", hint="a lower plan.rate"
        )
