"""What boards learn together, what one learns that has all their data, and what each learns alone: printed as a table.

    python examples/federated/compare.py --boards 3 --rounds 10
    python examples/federated/compare.py --anomaly

Plain federated averaging in this one process, to see what there is to gain before anything is set up; needs edged
alone. The boards themselves do it through Flower (docs/federated.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edged.federated.fit import fit
from edged.federated.order import Plan
from edged.federated.trainer import INFER, Trainer
from edged.federated.weights import Weights
from edged.model.author import Author
from edged.model.runtime import Interpreter, choose
from edged.model.signal.chain import CompiledChain

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.append(str(HERE))

from machines import CONDITIONS, Labels, Machine  # noqa: E402  it stands beside this file

Floats = npt.NDArray[np.float32]

MANIFEST = HERE / "vibration.toml"
WEIGHTS = HERE / "vibration.tflite"

ANOMALY_MANIFEST = HERE / "anomaly.toml"
ANOMALY_WEIGHTS = HERE / "anomaly.tflite"

PLAN = Plan(epochs=5, batch=16, rate=0.2)
ANOMALY_PLAN = Plan(epochs=5, batch=16, rate=0.3, clip=5.0)
"""Those of the tables in README.md."""

TRAINING, HELD_OUT, SHUFFLES = 1, 2, 3  # seeds


class Examples(NamedTuple):
    """Windows with what they show.

    :ivar rows: as measured: float32 [n, rows, 3].
    :ivar x: as the model sees them, after the manifest's signal chain: float32 [n, 18].
    :ivar y: one for the condition, zeros for the others: float32 [n, 4]; of an anomaly detector ``x`` again.
    :ivar labels: [n], an index into ``CONDITIONS``.
    :ivar enter: of an anomaly detector: the error from which on a window is no healthy one.
    """

    rows: Floats
    x: Floats
    y: Floats
    labels: Labels
    enter: float | None = None


class Compared(NamedTuple):
    """Accuracies on the common held-out windows.

    :ivar together: after each round.
    :ivar centrally: with all examples in one place, for as many epochs.
    :ivar alone: of each board by itself, for as many epochs.
    """

    together: list[float]
    centrally: float
    alone: list[float]


class Chain:
    """The manifest's signal chain: what the daemon does to a window before the model sees it.

    :ivar detects: whether the model is an anomaly detector.
    """

    def __init__(self, manifest: Path = MANIFEST, weights: Path = WEIGHTS) -> None:
        self._author = Author.read(manifest)
        self.detects = self._author.output.kind == "anomaly"
        model = Interpreter(choose(), str(weights), signature=INFER)
        self._compiled = CompiledChain(self._author, model.inputs, model.outputs)
        model.close()

    def examples(self, rows: Floats, labels: Labels) -> Examples:
        """Return windows as examples."""
        x = np.concatenate([self._compiled.prepare(window).tensors[0] for window in rows]).astype(np.float32)
        if self.detects:
            return Examples(rows, x, x, labels, self._author.decide.enter)
        return Examples(rows, x, np.eye(len(CONDITIONS), dtype=np.float32)[labels], labels)


def board(chain: Chain, number: int, count: int, seed: int = TRAINING) -> Examples:
    """Return what a board learns from: conditions as often as its machine is in them, or healthy windows alone."""
    machine, rng = Machine.number(number), np.random.default_rng((seed, number))
    labels = np.zeros(count, np.intp) if chain.detects else machine.labels(rng, count)
    return chain.examples(machine.windows(rng, labels), labels)


def held_out(chain: Chain, boards: int, each: int) -> Examples:
    """Return windows that nobody has learned from: ``each`` of every condition on every board's machine.

    For an anomaly detector as many are healthy as are not.
    """
    labels = np.repeat([0, 0, *range(len(CONDITIONS))] if chain.detects else range(len(CONDITIONS)), each)
    rows = [
        Machine.number(number).windows(np.random.default_rng((HELD_OUT, number)), labels) for number in range(boards)
    ]
    return chain.examples(np.concatenate(rows), np.tile(labels, boards))


def accuracy(trainer: Trainer, weights: Weights, examples: Examples) -> float:
    """Return the share of examples that these weights tell right."""
    trainer.use(weights)
    answers = trainer.infer(examples.x)
    if examples.enter is None:
        return float(np.mean(np.argmax(answers, axis=1) == examples.labels))
    errors = np.mean(np.square(answers - examples.x), axis=1)
    return float(np.mean((errors >= examples.enter) == (examples.labels > 0)))


def average(weights: Sequence[Weights], examples: Sequence[int]) -> Weights:
    """Return the mean of weights, each counting as much as it has examples (FedAvg; McMahan et al., 2017)."""
    shares = np.asarray(examples, np.float64) / sum(examples)
    return [
        np.sum([share * each for share, each in zip(shares, layer, strict=True)], axis=0).astype(np.float32)
        for layer in zip(*weights, strict=True)
    ]


def compare(trainer: Trainer, boards: Sequence[Examples], test: Examples, rounds: int, plan: Plan = PLAN) -> Compared:
    """Train in all three ways, from the weights that the trainer has, and measure each on ``test``."""
    begin, rng = trainer.weights(), np.random.default_rng(SHUFFLES)
    long = msgspec.structs.replace(plan, epochs=rounds * plan.epochs)
    weights, together = begin, []
    for _ in range(rounds):
        fitted = [fit(trainer, weights, one.x, one.y, plan, rng) for one in boards]
        weights = average([one.weights for one in fitted], [one.examples for one in fitted])
        together.append(accuracy(trainer, weights, test))
    alone = [accuracy(trainer, fit(trainer, begin, one.x, one.y, long, rng).weights, test) for one in boards]
    x, y = (np.concatenate([getattr(one, name) for one in boards]) for name in ("x", "y"))
    centrally = accuracy(trainer, fit(trainer, begin, x, y, long, rng).weights, test)
    trainer.use(begin)
    return Compared(together, centrally, alone)


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description="Boards together, all data in one place, and each board alone.")
    options.add_argument("--boards", type=int, default=3)
    options.add_argument("--windows", type=int, default=200, help="of each board")
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--anomaly", action="store_true", help="the detector that learns from healthy windows alone")
    given = options.parse_args()
    weights, plan = (ANOMALY_WEIGHTS, ANOMALY_PLAN) if given.anomaly else (WEIGHTS, PLAN)
    chain = Chain(ANOMALY_MANIFEST, weights) if given.anomaly else Chain()
    boards = [board(chain, number, given.windows) for number in range(given.boards)]
    for number, one in enumerate(boards[:10]):
        counts = np.bincount(one.labels, minlength=len(CONDITIONS))
        print(f"board {number}: " + ", ".join(f"{n} {name}" for n, name in zip(counts, CONDITIONS, strict=True)))
    found = compare(Trainer(weights, choose()), boards, held_out(chain, given.boards, 50), given.rounds, plan)
    for number, share in enumerate(found.together, 1):
        print(f"round {number:3}  {share:6.1%}  {'#' * round(60 * share)}")
    print(f"centrally  {found.centrally:6.1%}")
    print(f"alone      {np.mean(found.alone):6.1%}, from {min(found.alone):.1%} to {max(found.alone):.1%}")


if __name__ == "__main__":
    main()
