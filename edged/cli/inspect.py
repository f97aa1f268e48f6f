"""``edged inspect``: what a package, a model or a record is, without running it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from edged.base.errors import UsageError, naming
from edged.base.files import read_bounded
from edged.cli.anatomy import inspect_model
from edged.cli.common import iso_date, json_option, path_type, print_facts, print_json
from edged.cli.publisher import parse_package
from edged.federated.nodes import NodeRecord
from edged.formats.identity import Record, Role
from edged.formats.package.manifest import Manifest
from edged.formats.package.verify import Package, Publishers
from edged.formats.spec import Chain
from edged.keystore.records import read_record
from edged.model.runtime import EngineChoice, choose

_MODEL_SUFFIXES = {".tflite", ".lite"}
_RECORD_SUFFIXES = {".enrol", ".pub", ".node"}
_RECORD_LIMIT = 16 * 1024


@click.command("inspect", short_help="Show what a package, a model or a record is.")
@click.argument("source", metavar="PACKAGE|MODEL|RECORD", type=path_type)
@click.option(
    "--publisher",
    type=path_type,
    multiple=True,
    help="Record of a publisher to check the package's signature with; repeat.",
)
@click.option("--card", is_flag=True, help="Print the package's model card only.")
@click.option("--tensors", is_flag=True, help="List all tensors of the model, not only those that go in and come out.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "litert", "tflite"]),
    default="auto",
    show_default=True,
    help="The runtime that loads the model.",
)
@json_option
def inspect_command(
    source: Path, publisher: tuple[Path, ...], engine: EngineChoice, *, card: bool, tensors: bool, as_json: bool
) -> None:
    """Show what a package, a model or a record is.

    Of a package, everything that is readable without keys, and whether its signature holds. Of a model (.tflite), its
    tensors with their quantisation, its signatures, its operators and how many of them XNNPACK runs, and what its
    author wrote into it. Of a record (.enrol, .pub, .node), whose it is, and its fingerprint; one whose signature does
    not hold is refused.

    \b
    Example: edged inspect gearbox-1.edged --publisher acme.pub
             edged inspect dnn.tflite
             edged inspect press-07.enrol
    """
    if source.suffix in _MODEL_SUFFIXES:
        if card or publisher:
            raise UsageError(f"{source} is a model: --card and --publisher are for packages")
        inspect_model(source, choose(engine), every=tensors, as_json=as_json)
    elif source.suffix in _RECORD_SUFFIXES:
        if card or publisher or tensors:
            raise UsageError(f"{source} is a record: --card, --publisher and --tensors are not for records")
        _inspect_record(source, as_json=as_json)
    else:
        _inspect_package(source, publisher, card=card, as_json=as_json)


def _inspect_record(source: Path, *, as_json: bool) -> None:
    with naming(source):
        data = read_bounded(source, _RECORD_LIMIT)
        record = NodeRecord.parse(data).device if source.suffix == ".node" else Record.parse(data)
    facts = {
        "role": record.role.value,
        "id": record.id,
        "fingerprint": record.fingerprint,
        "created": iso_date(record.created),
        "signature": "holds",
    }
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


def _inspect_package(source: Path, publisher: tuple[Path, ...], *, card: bool, as_json: bool) -> None:
    parsed = parse_package(source)
    manifest = Manifest.parse(parsed.signed.unverified)
    if card:
        click.echo(manifest.card)
        return
    signature = _judge_signature(parsed, manifest, publisher)
    facts = {
        "name": manifest.name,
        "version": manifest.version,
        "summary": manifest.summary,
        "license": manifest.license,
        "signature": signature,
        "publisher": manifest.publisher.hex(),
        "created": iso_date(manifest.created),
        "expires": iso_date(manifest.expires) or "never",
        "needs edged": manifest.edged,
        "input": ", ".join(manifest.input.channels),
        "window": _window(manifest),
        "output": manifest.output.kind,
        "labels": ", ".join(manifest.output.labels),
        "self-test": f"{len(manifest.self_test.cases)} vectors within {manifest.self_test.tolerance}",
        "trained": "in one place" if manifest.training is None else manifest.training.in_words(),
        "weights": f"{manifest.plaintext.size} bytes, SHA-256 {manifest.plaintext.sha256.hex()}",
        "sealed with": manifest.aead.name,
        "recipients": [recipient.kid.hex() for recipient in parsed.recipients.recipients],
    }
    if as_json:
        print_json(facts)
        return
    recipients = facts.pop("recipients")
    print_facts(facts)
    for number, kid in enumerate(recipients if isinstance(recipients, list) else (), 1):
        click.echo(f"{'recipients' if number == 1 else ''.ljust(10)}   {kid}")


def _window(chain: Chain) -> str:
    if chain.input.image is not None:
        return f"a picture of {chain.input.image.width} x {chain.input.image.height}"
    return str(chain.window.size) if chain.window.in_time else f"{chain.window.size} rows"


def _judge_signature(package: Package, manifest: Manifest, publishers: Iterable[Path]) -> str:
    keys = [read_record(path, Role.PUBLISHER).sign for path in publishers]
    if not keys:
        return f"not checked: give the record of publisher {package.signed.kid.hex()[:16]} with --publisher"
    pinned = {key.thumbprint: (key, frozenset({manifest.name})) for key in keys}
    with naming("the signature does not stand"):
        package.verify(Publishers(pinned))
    return "holds"
