"""``edged aggregator train``: lead one training, and hand its outcome to the publisher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from edged.base.errors import UsageError
from edged.base.names import check_name
from edged.cli.common import aggregator_option, json_option, path_type, print_json, say
from edged.config.load import load_aggregator
from edged.federated.aggregator import Aggregator
from edged.federated.flower import prepare
from edged.federated.learned import Learned
from edged.federated.order import Plan
from edged.federated.report import RoundReport, bar, draw
from edged.federated.trainer import Trainer
from edged.federated.weights import Weights, decode
from edged.model.npz import open_npz
from edged.model.runtime import choose

if TYPE_CHECKING:
    from edged.federated.flower.strategy import HeldOut

Floats = npt.NDArray[np.float32]
_LIMIT = 1 << 30


@click.command("train")
@click.argument("name", metavar="MODEL")
@click.option(
    "--model", "file", type=path_type, required=True, help="The .tflite file that boards have under that name."
)
@click.option("--rounds", type=click.IntRange(1, 100_000), default=10, show_default=True)
@click.option("--from", "start", type=path_type, help="Begin with what an earlier training came to (FILE.learned).")
@click.option("--held-out", type=path_type, help="Examples of the aggregator's own: an .npz of x and y.")
@click.option("--tolerance", default=0.02, show_default=True, help="How far below the best score a round may fall.")
@click.option("--least", type=click.IntRange(1), default=3, show_default=True, help="Boards that a round must have.")
@click.option(
    "--patience", default=600.0, show_default=True, help="Seconds to wait for boards, in each step of a round."
)
@click.option("--secure/--not-secure", default=True, show_default=True, help="Mask updates: SecAgg+.")
@click.option("--range", "largest", default=8.0, show_default=True, help="Change of a weight that a mask can hold.")
@click.option(
    "--strategy", type=click.Choice(["fedavg", "fedprox", "fedadam", "trimmed"]), default="fedavg", show_default=True
)
@click.option("--epochs", default=1, show_default=True, help="On each board, in each round.")
@click.option("--batch", default=16, show_default=True)
@click.option("--rate", default=0.1, show_default=True, help="Of each board's steps.")
@click.option("--proximal", default=0.01, show_default=True, help="FedProx: mu.")
@click.option("--eta", default=0.1, show_default=True, help="FedAdam: its step.")
@click.option("--trim", default=0.2, show_default=True, help="Trimmed mean: share that is left out at each end.")
@click.option("--bound", type=float, help="L2 norm that no board's change may exceed.")
@click.option("--clip", type=float, help="Local privacy: norm that no example's gradient may exceed.")
@click.option("--noise", default=0.0, help="Local privacy: noise of each step, as a multiple of --clip.")
@click.option("--central-clip", type=float, help="Central privacy: norm that each update is clipped to.")
@click.option("--central-noise", default=0.0, help="Central privacy: noise of each round, as a multiple of it.")
@click.option("--adaptive", is_flag=True, help="Central privacy: move the clip towards the median norm.")
@click.option("--delta", default=1e-5, show_default=True, help="Of the epsilon that is told.")
@click.option("--png", type=path_type, help="Also draw the curve (needs matplotlib).")
@click.option(
    "-o", "--output", type=path_type, help="Where to write the outcome (default: with the aggregator's keys)."
)
@aggregator_option
@json_option
def train_command(name: str, file: Path, output: Path | None, config: Path, *, as_json: bool, **given: Any) -> int:
    """Lead a training with the boards that are connected, and write what comes of it for `edged pack --learned`.

    \b
    Example: edged aggregator train vibration --model vibration.tflite --rounds 10 --held-out held-out.npz
    """
    check_name("MODEL", name)
    aggregator = Aggregator(load_aggregator(config))
    prepare()
    from edged.federated.flower.averaging import Averaging  # noqa: PLC0415  an extra
    from edged.federated.flower.lead import (  # noqa: PLC0415  as above
        Settings,
        TrainingRequest,
        lead,
    )

    strategy = given["strategy"]
    bound = given["bound"]
    wanted = TrainingRequest(
        model=name,
        plan=Plan(
            epochs=given["epochs"],
            batch=given["batch"],
            rate=given["rate"],
            proximal=given["proximal"] if strategy == "fedprox" else 0.0,
            clip=given["clip"],
            noise=given["noise"],
            # masked, nobody else can hold a board to it
            bound=_smaller(bound, given["central_clip"]) if given["secure"] else bound,
        ),
        averaging=Averaging(
            strategy=strategy,
            trim=given["trim"],
            eta=given["eta"],
            proximal=given["proximal"],
            noise=given["central_noise"],
            clip=given["central_clip"],
            adaptive=given["adaptive"],
            masked=given["secure"],
        ),
        settings=Settings(given["rounds"], given["patience"], given["largest"]),
        least=given["least"],
        bound=bound,
        tolerance=given["tolerance"],
        delta=given["delta"],
    )
    trainer = Trainer(file, choose())
    held_out = None if given["held_out"] is None else _scorer(trainer, given["held_out"])

    def told(report: RoundReport) -> None:
        if not as_json:
            say(report.line())

    with aggregator.as_owner():
        initial = trainer.weights()
        if given["start"] is not None:
            initial = decode(Learned.read(given["start"], aggregator.record().sign).weights, trainer.shapes)
        if not as_json and held_out is not None:
            first = held_out(initial)
            say(f"begin      {bar(first)} {first:7.2%}")
        outcome = lead(aggregator, wanted, initial, held_out, told)
        path = None
        if outcome.training is not None:
            path = output or aggregator.outcome(name, outcome.run)
            Learned.of(name, outcome.weights, outcome.training).write(path, aggregator.keystore().signer)
    if given["png"] is not None:
        scores = [outcome.first, *(one.score for one in outcome.reports if one.score is not None)]
        draw(given["png"], {name: scores}, f"{name}: {wanted.averaging.label}")
    if as_json:
        rounds = [report.to_json() for report in outcome.reports]
        print_json({"run": outcome.run, "rounds": rounds, "outcome": None if path is None else str(path)})
    elif path is None or outcome.training is None:
        say("no round was kept: there is nothing to publish", err=True)
        say("edged: hint: what boards refused, their own logs say (journalctl -u edged-federated)", err=True)
    else:
        say()
        say(outcome.training.in_words())
        say(path)
        if outcome.spent is not None:
            say(f"epsilon: {outcome.spent.assumptions}")
        say("Take it to the publisher: edged pack --learned says how.")
    return 0 if path is not None else 1


def _smaller(one: float | None, other: float | None) -> float | None:
    found = [bound for bound in (one, other) if bound is not None]
    return min(found, default=None)


def _scorer(trainer: Trainer, path: Path) -> HeldOut:
    """Return what scores weights on the examples in a file: the share that is told right.

    Where the model is to answer with the window itself, it is 1 / (1 + the mean squared error).

    :raises MissingFileError: there is no such file.
    :raises FormatError: it is no .npz, or larger than 1 GB in memory.
    :raises UsageError: it holds something else.
    """
    with open_npz(path, _LIMIT) as file:
        x, y = (np.ascontiguousarray(file.read(name), np.float32) for name in ("x", "y"))
    if x.shape[1:] != trainer.inputs or y.shape != (len(x), *trainer.outputs) or not len(x):
        raise UsageError(
            f"{path}: x is {list(x.shape)} and y is {list(y.shape)},"
            f" not [n, {', '.join(map(str, trainer.inputs))}] and [n, {', '.join(map(str, trainer.outputs))}]",
            hint="x as the model takes it, after the signal chain; y is 1 at the right label, or x itself",
        )
    reconstructs = trainer.inputs == trainer.outputs
    flat = y.reshape(len(y), -1)

    def score(weights: Weights) -> float:
        trainer.use(weights)
        answers = trainer.infer(x)
        if reconstructs:
            return float(1 / (1 + np.mean((answers - flat) ** 2)))
        return float(np.mean(answers.argmax(axis=1) == flat.argmax(axis=1)))

    return score
