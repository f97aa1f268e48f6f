"""``edged inspect``: a package, a model or a record as tables and as JSON, without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from edged.base.errors import UsageError, error_context
from edged.base.files import read_bounded
from edged.cli.common import iso_date, json_option, path_type, print_facts, print_json, print_table, say, say_text
from edged.cli.publisher import parse_package
from edged.config.board import EngineChoice
from edged.federated.nodes import NodeRecord
from edged.formats.identity import Record, Role
from edged.formats.package.manifest import Manifest
from edged.formats.package.verify import Package, Publishers, check_ciphertexts
from edged.formats.spec import Chain
from edged.keystore.records import read_record
from edged.model.runtime import Engine, choose
from edged.model.runtime.anatomy import Anatomy, dissect
from edged.model.runtime.graph import GraphTensor, Subgraph
from edged.model.runtime.metadata import TensorNotes

_MODEL_SUFFIXES = {".tflite", ".lite"}
_RECORD_SUFFIXES = {".enrol", ".pub", ".node"}
_RECORD_LIMIT = 16 * 1024
_Row = tuple[object, ...]
_MOST_LABELS = 8
"""That are worth a line's room."""


@click.command("inspect")
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
    type=click.Choice(get_args(EngineChoice)),
    default="auto",
    show_default=True,
    help="The runtime that loads the model.",
)
@json_option
def inspect_command(
    source: Path, publisher: tuple[Path, ...], engine: EngineChoice, *, card: bool, tensors: bool, as_json: bool
) -> None:
    """Show what a package, a model or a record is.

    Of a package, everything that is readable without keys: its sealed parts are checked against the digests in its
    manifest, and the manifest against the signature where you name the publisher. Of a model (.tflite), its
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
    with error_context(source):
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
        say_text(manifest.card)
        return
    signature = _judge_signature(parsed, manifest, publisher)
    with error_context(source, "damaged or altered: fetch it again"):
        check_ciphertexts(manifest, parsed.parts)
    facts = {
        "name": manifest.name,
        "version": manifest.version,
        "summary": manifest.summary,
        "license": manifest.license,
        "signature": signature,
        "publisher": manifest.publisher.hex(),
        "created": iso_date(manifest.created),
        "expires": iso_date(manifest.expires) or "never",
        "no way back below": manifest.minimum or "",
        "needs edged": manifest.edged,
        "input": ", ".join(manifest.input.channels),
        "window": _window(manifest),
        "output": manifest.output.kind,
        "labels": ", ".join(manifest.output.labels),
        "trained": "in one place" if manifest.training is None else manifest.training.in_words(),
        "weights": f"{manifest.weights.size} bytes, SHA-256 {manifest.weights.sha256.hex()}",
        "parts": ", ".join(f"{part.kind} ({part.ciphertext.size} bytes)" for part in manifest.sealed),
        "digests": "hold",
        "sealed with": manifest.aead.name,
        "recipients": [kid.hex() for kid in parsed.recipients.kids],
    }
    if as_json:
        print_json(facts)
        return
    recipients = facts.pop("recipients")
    print_facts(facts)
    for number, kid in enumerate(recipients if isinstance(recipients, list) else (), 1):
        say(f"{'recipients' if number == 1 else ''.ljust(10)}   {kid}")


def _window(chain: Chain) -> str:
    if chain.input.image is not None:
        return f"a picture of {chain.input.image.width} x {chain.input.image.height}"
    return str(chain.window.size) if chain.window.in_time else f"{chain.window.size} rows"


def _judge_signature(package: Package, manifest: Manifest, publishers: Iterable[Path]) -> str:
    keys = [read_record(path, Role.PUBLISHER).sign for path in publishers]
    if not keys:
        return f"not checked: give the record of publisher {package.signed.kid.hex()[:16]} with --publisher"
    pinned = {key.thumbprint: (key, frozenset({manifest.name})) for key in keys}
    with error_context("the signature does not stand"):
        package.verify(Publishers(pinned))
    return "holds"


def inspect_model(path: Path, engine: Engine, *, every: bool, as_json: bool) -> None:
    """Print what the model at ``path`` is, also where the runtime refuses it.

    :param every: list all its tensors, not only those that go in and come out.
    :raises ModelError: as :func:`edged.model.runtime.anatomy.dissect`; or the runtime refuses it, or its metadata are
        damaged: what can be read was printed then.
    """
    anatomy = dissect(engine, path)
    if as_json:
        print_json(_document(path, anatomy, engine))
    else:
        _print_model(path, anatomy, engine, every=every)
    if error := anatomy.refusal or anatomy.lost:
        raise error


def _print_model(path: Path, anatomy: Anatomy, engine: Engine, *, every: bool) -> None:
    print_facts({name: value for name, value in _facts(path, anatomy, engine).items() if value})
    _print_rows(anatomy, ("operator", "count", "XNNPACK"), list(_operators(anatomy)))
    _print_rows(anatomy, ("tensor", "is", "type", "shape", "quantisation"), list(_tensors(anatomy, every=every)))
    if anatomy.graph.signatures:
        _print_rows(anatomy, ("signature", "argument", "is", "tensor"), list(_signatures(anatomy)))
    if anatomy.notes is not None:
        _print_rows(anatomy, ("note on", "is", "says"), list(_notes(anatomy)))


def _print_rows(anatomy: Anatomy, header: Sequence[str], rows: Sequence[_Row]) -> None:
    """Print a table; its first column, the subgraph, is left out where there is one only."""
    say()
    if len(anatomy.graph.subgraphs) == 1:
        print_table([row[1:] for row in rows], header)
    else:
        print_table(rows, ("subgraph", *header))


def _facts(path: Path, anatomy: Anatomy, engine: Engine) -> dict[str, str]:
    graph, notes = anatomy.graph, anatomy.notes
    of = "" if len(graph.subgraphs) == 1 else " of the first subgraph, the only one that the runtime tells of"
    facts = {
        "file": str(path),
        "size": f"{anatomy.size} bytes, SHA-256 {anatomy.sha256}",
        "description": graph.description,
        "schema": str(graph.schema),
        "needs": f"TFLite {anatomy.needs} or later" if anatomy.needs else "",
        "runtime": f"{engine.name} {engine.version} ({engine.reason})",
        "XNNPACK": f"runs {len(anatomy.accelerated)} of {len(graph.subgraphs[0].operators)} operators{of}"
        if anatomy.refusal is None
        else "",
        "state": ", ".join(sorted({kept for subgraph in graph.subgraphs for kept in subgraph.state})),
    }
    if notes is not None:
        facts |= {field: getattr(notes, field) for field in ("name", "version", "author", "license")}
        facts["about"] = notes.description
    return facts


def _labelled(anatomy: Anatomy) -> Iterator[tuple[str, Subgraph]]:
    for number, subgraph in enumerate(anatomy.graph.subgraphs):
        yield subgraph.name or str(number), subgraph


def _counted(anatomy: Anatomy) -> list[list[tuple[str, int, int | None]]]:
    """Return the operators of each subgraph: name, how many, and how many of them XNNPACK runs, where that is known."""
    counted: list[list[tuple[str, int, int | None]]] = []
    for number, subgraph in enumerate(anatomy.graph.subgraphs):
        known = number == 0 and anatomy.refusal is None
        run = Counter(subgraph.operators[at].name for at in anatomy.accelerated) if known else None
        found = Counter(operator.name for operator in subgraph.operators)
        counted.append([(name, n, None if run is None else run[name]) for name, n in found.most_common()])
    return counted


def _operators(anatomy: Anatomy) -> Iterator[_Row]:
    for (label, _), operators in zip(_labelled(anatomy), _counted(anatomy), strict=True):
        for name, count, run in operators:
            yield label, name, count, "?" if run is None else run


def _tensors(anatomy: Anatomy, *, every: bool) -> Iterator[_Row]:
    for label, subgraph in _labelled(anatomy):
        ends = (*subgraph.inputs, *subgraph.outputs)
        for number in range(len(subgraph.tensors)) if every else ends:
            tensor = subgraph.tensors[number]
            shape = f"[{', '.join('?' if size < 0 else str(size) for size in tensor.shape)}]"
            yield label, tensor.name, _role(subgraph, number), tensor.dtype, shape, _quantisation(tensor)


def _role(subgraph: Subgraph, number: int) -> str:
    tensor = subgraph.tensors[number]
    roles = {
        "input": number in subgraph.inputs,
        "output": number in subgraph.outputs,
        "variable": tensor.variable,
        "constant": tensor.constant,
    }
    return ", ".join(role for role, holds in roles.items() if holds) or "between"


def _quantisation(tensor: GraphTensor) -> str:
    if not tensor.scales:
        return "none"
    if len(tensor.scales) == 1:
        return f"scale {tensor.scales[0]:.9g}, zero point {tensor.zero_points[0]}"
    scales = f"scales {min(tensor.scales):.4g} to {max(tensor.scales):.4g}"
    return f"per channel: {len(tensor.scales)} {scales} along axis {tensor.axis}"


def _signatures(anatomy: Anatomy) -> Iterator[_Row]:
    labelled = list(_labelled(anatomy))
    for key, signature in anatomy.graph.signatures.items():
        label, subgraph = labelled[signature.subgraph]
        for role, side in (("input", signature.inputs), ("output", signature.outputs)):
            for name, number in side.items():
                yield label, key, name, role, subgraph.tensors[number].name


def _notes(anatomy: Anatomy) -> Iterator[_Row]:
    if anatomy.notes is None:
        return
    for number, (label, _) in enumerate(_labelled(anatomy)):
        for role, of_all in (("input", anatomy.notes.inputs), ("output", anatomy.notes.outputs)):
            for notes in of_all[number] if number < len(of_all) else ():
                yield label, notes.name, role, _note(notes)


def _note(notes: TensorNotes) -> str:
    said = [notes.description, "" if notes.picture is None else f"a picture, {notes.picture}"]
    if notes.mean or notes.std:
        said.append(f"normalised by mean {_numbers(notes.mean)} and std {_numbers(notes.std)}")
    kind = "labels of its values" if notes.by_value else "labels"
    if notes.label_file and not notes.labels:
        said.append(f"{kind} from {notes.label_file}, which is not packed to the model")
    elif notes.label_file:
        more = "" if len(notes.labels) <= _MOST_LABELS else " ..."
        shown = ", ".join(notes.labels[:_MOST_LABELS])
        said.append(f"{len(notes.labels)} {kind} from {notes.label_file}: {shown}{more}")
    return "; ".join(filter(None, said))


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "nothing"


def _document(path: Path, anatomy: Anatomy, engine: Engine) -> dict[str, Any]:
    graph, notes = anatomy.graph, anatomy.notes
    return {
        "file": str(path),
        "size": anatomy.size,
        "sha256": anatomy.sha256,
        "description": graph.description,
        "schema": graph.schema,
        "needs": anatomy.needs or None,
        "refusal": None if anatomy.refusal is None else anatomy.refusal.message,
        "runtime": {"name": engine.name, "version": engine.version, "reason": engine.reason},
        "signatures": {key: signature._asdict() for key, signature in graph.signatures.items()},
        "subgraphs": [
            {
                "name": subgraph.name,
                "state": subgraph.state,
                "inputs": subgraph.inputs,
                "outputs": subgraph.outputs,
                "operators": [{"name": name, "count": count, "xnnpack": run} for name, count, run in operators],
                "tensors": [
                    tensor._asdict() | {"shape": [None if size < 0 else size for size in tensor.shape]}
                    for tensor in subgraph.tensors
                ],
            }
            for subgraph, operators in zip(graph.subgraphs, _counted(anatomy), strict=True)
        ],
        "metadata": None
        if notes is None
        else notes._asdict()
        | {side: [[one._asdict() for one in of] for of in getattr(notes, side)] for side in ("inputs", "outputs")},
    }
