"""``edged manifest``: a starting manifest for a model."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edged.base.errors import naming
from edged.base.files import write_atomically
from edged.cli.common import path_type
from edged.model.draft import choose_signature, draft
from edged.model.runtime import Interpreter, choose
from edged.model.runtime.anatomy import dissect

_MODE = 0o644


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
    with naming(model):
        signature = signature or choose_signature(anatomy.graph)
    interpreter = Interpreter(engine, str(model), signature=signature)
    interpreter.close()
    file = os.fspath(model) if output is None else os.path.relpath(model, output.parent)
    with naming(model):
        text = draft(anatomy, interpreter, signature, file)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomically(output, [text.encode()], mode=_MODE, replace=False)
        click.echo(f"{output}  for {model}: check its guesses, then `edged try` it on data")
