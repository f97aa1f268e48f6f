"""A model's author: ``edged manifest`` drafts a manifest, ``edged try`` runs a model on recorded data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, get_args

import click
import numpy as np

from edged.base.errors import EdgedError, UsageError, error_context
from edged.base.files import read_whole, write_atomically
from edged.board.installation import Board
from edged.cli.common import config_option, path_type, print_json, say, say_text
from edged.config.board import EngineChoice
from edged.config.load import load_board
from edged.formats.spec import Chain
from edged.model.author import TOLERANCE, Author
from edged.model.draft import choose_signature, draft
from edged.model.dry_run import Recorded, TriedWindow, open_model, record_self_test, try_samples
from edged.model.live import Model, load
from edged.model.pictures import SUFFIXES, read_picture_samples
from edged.model.runtime import Engine, Interpreter, choose, installed
from edged.model.runtime.anatomy import dissect
from edged.model.samples import read_samples
from edged.model.verdict import verdict

_MANIFEST_MODE = 0o644


@click.command("manifest")
@click.argument("model", type=path_type)
@click.option("--signature", help="The signature to ask; default: one that is called like inference.")
@click.option("-o", "--output", type=path_type, help="Default: print it.")
def manifest_command(model: Path, signature: str | None, output: Path | None) -> None:
    """Write a starting manifest from what a model says of itself.

    What it does not say is guessed, and marked as a guess. `edged try` takes the manifest as it is, and shows on
    recorded data what the guesses are worth.

    \b
    Example: edged manifest dnn.tflite -o gearbox.toml
    """
    engine = choose("auto")
    anatomy = dissect(engine, model)
    if anatomy.refusal is not None:
        raise anatomy.refusal
    with error_context(model):
        signature = signature or choose_signature(anatomy.graph)
    interpreter = Interpreter(engine, str(model), signature=signature)
    interpreter.close()
    file = os.fspath(model) if output is None else os.path.relpath(model, output.parent)
    with error_context(model):
        text = draft(anatomy, interpreter, signature, file)
    if output is None:
        say_text(text)
    else:
        write_atomically(output, [text.encode()], mode=_MANIFEST_MODE, replace=False)
        say(f"{output}  for {model}: check its guesses, then `edged try` it on data")


@click.command("try")
@click.argument("model", type=path_type)
@click.option("-m", "--manifest", type=path_type, help="The author's manifest; a package brings its own.")
@click.option(
    "-i",
    "--input",
    "source",
    type=path_type,
    required=True,
    help="Recorded rows or windows: .npz, .csv, .jsonl; a picture, or a folder of them (a folder for each label).",
)
@click.option("--array", help="Array of samples in an .npz.")
@click.option("--labels", "label_array", help="Array of labels in an .npz (a CSV or JSON-lines file has `label`).")
@click.option(
    "-o", "--output", type=click.File("w"), default="-", help="Write JSON lines here instead of printing them."
)
@click.option("--engine", type=click.Choice(get_args(EngineChoice)), default="auto", show_default=True)
@click.option(
    "--record-self-test", "record", type=path_type, help="Write self-test vectors for the manifest to this .npz."
)
@config_option
def try_command(
    model: Path,
    manifest: Path | None,
    source: Path,
    array: str | None,
    label_array: str | None,
    output: IO[str],
    engine: EngineChoice,
    record: Path | None,
    config: Path,
) -> None:
    """Run a model on recorded data without any broker; given labels, say how often it is right.

    A sealed package is opened with this board's keys.

    \b
    Example: edged try dnn.tflite --manifest gearbox.toml --input windows.npz --labels y
    """
    chain, opened = _open(model, manifest, engine, config)
    for name, order in opened.orders.items():
        if not order.certain:
            at = f"tensors.{name}" if name else "input"
            say(
                f"the shape of the model's input does not say its layout: {at}.layout = {order.layout!r} is taken",
                err=True,
            )
    pictures = source.is_dir() or source.suffix.lower() in SUFFIXES
    if pictures:
        samples = read_picture_samples(source, chain.input)
    else:
        samples = read_samples(source, array=array, label_array=label_array)
    tried: list[TriedWindow] = []
    try:
        for number, window in enumerate(try_samples(opened, chain, samples)):
            print_json(_shown(number, window), indent=None, file=output)
            tried.append(window)
        if record is not None:
            _record(chain, opened, model, choose(engine), tried, record)
    finally:
        opened.close()
    for line in verdict(chain, tried):
        say(line, err=True)


def _open(model: Path, manifest: Path | None, engine: EngineChoice, config: Path) -> tuple[Chain, Model]:
    if model.suffix == ".edged":
        board = Board(load_board(config))
        package = board.verify(read_whole(model), model)
        agreement = board.keys.opener(package.recipients, board.keystore())
        return package.manifest, load(package, agreement, choose(engine), 1)
    if manifest is None:
        raise UsageError(f"{model} needs a manifest", hint="--manifest FILE")
    author = Author.read(manifest)
    return author, open_model(author, model, choose(engine))


def _record(chain: Chain, opened: Model, model: Path, engine: Engine, tried: Sequence[TriedWindow], path: Path) -> None:
    """Record a self-test with every engine that is installed; of a package, which brings its own, with one."""
    models = {engine.title: opened}
    tolerance = TOLERANCE
    if isinstance(chain, Author):
        if chain.self_test is not None and chain.self_test.tolerance is not None:
            tolerance = chain.self_test.tolerance
        for other in installed():
            if other.name != engine.name:
                try:
                    models[other.title] = open_model(chain, model, other)
                except EdgedError as error:
                    say(f"not recorded with {other.title}: {error.message}", err=True)
    try:
        recorded = record_self_test(opened, chain, tried, path, tolerance, engines=models)
    finally:
        for one in models.values():
            if one is not opened:
                one.close()
    _tell_recorded(recorded, models, path, tolerance)


def _tell_recorded(recorded: Recorded, engines: Iterable[str], path: Path, tolerance: float) -> None:
    say(f"{path}  {recorded.written} vectors by {', '.join(engines)}, tolerance {recorded.tolerance:.3g}", err=True)
    if recorded.doubtful:
        say(
            "warning: no window has a clear best label, and a board with another engine may refuse the package: record"
            " from windows that the model is surer of",
            err=True,
        )
    elif recorded.unclear:
        say(
            f"left out {recorded.unclear} windows whose label another engine may turn over: their best labels, or score"
            " and threshold, lie too close",
            err=True,
        )
    if recorded.apart > tolerance / 2:
        say(f"the engines lie up to {recorded.apart:.1%} of the scores' spread apart", err=True)


def _shown(number: int, window: TriedWindow) -> dict[str, object]:
    shown: dict[str, object] = {"window": number}
    if window.best is None:
        shown["value"] = _in_full(window.decision.value or 0.0)
    else:
        shown |= {"label": window.decision.label, "score": _in_full(window.decision.score or 0.0)}
    shown["scores"] = [_in_full(score) for score in window.scores]
    if window.clipped:
        shown["clipped"] = round(window.clipped, 4)
    if window.right is not None:
        shown["right"] = window.right
    return shown


def _in_full(score: float) -> float:
    """Return a float32 by the shortest decimal that stands for it, and for no other."""
    return float(str(np.float32(score)))
