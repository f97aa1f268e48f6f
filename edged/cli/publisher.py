"""The publisher's and the operator's commands: pack and grant."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edged.base.errors import UsageError, naming
from edged.base.files import write_atomically
from edged.board.installation import mapped
from edged.cli.common import path_type, say
from edged.cli.passphrase import open_personal_keys, passphrase_option
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import Agreement, Signer
from edged.formats.identity import Role
from edged.formats.package.manifest import Manifest
from edged.formats.package.pack import Chunks, grant, pack, preferred_aead, repack
from edged.formats.package.verify import Package, Publishers
from edged.keystore.records import read_record
from edged.model.author import Author
from edged.model.dry_run import check_weights

_PACKAGE_MODE = 0o644
_CHUNK = 1 << 20
_LARGE = 8 << 20
"""Bytes from which on a progress bar is worth its line."""


@click.command("pack")
@click.argument("model", type=path_type, required=False)
@click.option("-m", "--manifest", type=path_type, help="The author's manifest (TOML).")
@click.option(
    "--from", "source", type=path_type, help="Take weights and manifest out of this package instead, to go back to it."
)
@click.option(
    "--learned", type=path_type, help="Put these weights, which boards learned together, in the place of the model's."
)
@click.option("--aggregator", type=path_type, help="With --learned: record of the aggregator that signed them.")
@click.option(
    "--version", type=int, help="With --from or --learned: the new version, above all that boards have accepted."
)
@click.option("--operator-key", type=path_type, help="With --from: the operator's private key, which opens it.")
@click.option("--sign", "key", type=path_type, required=True, help="The publisher's private key.")
@click.option(
    "--to", "boards", type=path_type, multiple=True, required=True, help="Enrolment record of a board; repeat."
)
@click.option("--operator", type=path_type, help="Record of the operator, who may grant the package to further boards.")
@click.option(
    "--aead", type=click.Choice([aead.name for aead in Aead]), help="Default: what most of the boards prefer."
)
@click.option("-o", "--output", type=path_type, help="Default: NAME-VERSION.edged.")
@passphrase_option
def pack_command(
    model: Path | None,
    manifest: Path | None,
    source: Path | None,
    learned: Path | None,
    aggregator: Path | None,
    version: int | None,
    operator_key: Path | None,
    key: Path,
    boards: tuple[Path, ...],
    operator: Path | None,
    aead: str | None,
    output: Path | None,
    passphrase_file: str | None,
) -> None:
    """Sign and seal a model with its manifest, for boards.

    \b
    Example: edged pack dnn.tflite --manifest gearbox.toml --sign acme.key \\
               --to press-07.enrol --operator fleet.pub -o gearbox-1.edged
             edged pack --from gearbox-1.edged --version 3 --operator-key fleet.key \\
               --sign acme.key --to press-07.enrol
             edged pack vibration.tflite --manifest vibration.toml --version 4 \\
               --learned vibration-9f3a.learned --aggregator fleet.pub --sign acme.key --to press-07.enrol
    """
    records = [read_record(path, Role.DEVICE) for path in boards]
    recipients = [record.sealing_key for record in records]
    if operator is not None:
        recipients.append(read_record(operator, Role.OPERATOR).sealing_key)
    sealing: dict[str, Any] = {
        "to": recipients,
        "aead": Aead[aead] if aead else preferred_aead(records),
        "created": int(time.time()),
    }
    if source is not None:
        if version is None or operator_key is None or manifest is not None or model is not None:
            raise UsageError("--from wants --version and --operator-key, and brings model and manifest itself")
        opener = open_personal_keys(operator_key, passphrase_file).need_agreement(operator_key)
        signer = open_personal_keys(key, passphrase_file).need_publisher(key)
        name, chunks = _pack_again(source, version, opener, signer, sealing)
    else:
        if manifest is None:
            raise UsageError("no manifest", hint="--manifest FILE, or --from PACKAGE")
        author, base = Author.read(manifest), manifest.parent
        weights = author.weights_path(base, model)
        check_weights(author, base, weights)
        content = mapped(weights)
        if learned is None:
            fields = author.fields(base)
        else:
            fields, content = _learned(author, base, content, learned, aggregator, version)
        signer = open_personal_keys(key, passphrase_file).need_publisher(key)
        name, version = fields["name"], fields["version"]
        chunks = pack(fields, content, signer=signer, **sealing)
    output = output or Path(f"{name}-{version}.edged")
    _write(output, chunks)
    say(f"{output}  {name} {version}, sealed to {len(recipients)} keys, {output.stat().st_size} bytes")


def _learned(
    author: Author, base: Path, model: memoryview, learned: Path, aggregator: Path | None, version: int | None
) -> tuple[dict[str, Any], memoryview]:
    """Return what :func:`pack` signs of weights that boards learned together, and the model with these weights."""
    from edged.federated.learned import Learned  # noqa: PLC0415  most publishers have no use for it

    if aggregator is None or version is None:
        raise UsageError("--learned wants --aggregator, whose signature is checked, and --version")
    read = Learned.read(learned, read_record(aggregator, Role.AGGREGATOR).sign)
    if version <= author.version:
        raise UsageError(f"--version: {version} is not above {author.version}, which its manifest has")
    with naming(learned):
        changed, self_test = read.into(author, base, bytes(model))
    fields = author.fields_without_self_test(base)
    return fields | {"version": version, "self_test": self_test, "training": read.training}, memoryview(changed)


def _pack_again(
    source: Path, version: int, operator: Agreement, signer: Signer, sealing: dict[str, Any]
) -> tuple[str, Chunks]:
    """Return the model of a package that the same publisher signed before, under a higher version."""
    parsed = parse_package(source)
    name = Manifest.parse(parsed.signed.unverified).name
    with naming(source):
        package = parsed.verify(Publishers({signer.public.thumbprint: (signer.public, frozenset({name}))}))
        return name, repack(package, operator, version, signer=signer, expires=package.manifest.expires, **sealing)


@click.command("grant")
@click.argument("package", type=path_type)
@click.option(
    "--to", "boards", type=path_type, multiple=True, required=True, help="Enrolment record of a board; repeat."
)
@click.option("--operator-key", "key", type=path_type, required=True, help="The operator's private key.")
@click.option("-o", "--output", type=path_type, help="Default: the package itself, replaced whole.")
@passphrase_option
def grant_command(
    package: Path, boards: tuple[Path, ...], key: Path, output: Path | None, passphrase_file: str | None
) -> None:
    """Seal a package to further boards, with the operator's key; the publisher is not needed.

    \b
    Example: edged grant gearbox-1.edged --to press-08.enrol --operator-key fleet.key
    """
    recipients = [read_record(path, Role.DEVICE).sealing_key for path in boards]
    operator = open_personal_keys(key, passphrase_file).need_agreement(key)
    output = output or package
    parsed = parse_package(package)
    _write(output, grant(parsed, operator, recipients), replace=True)
    added = len(parse_package(output).recipients.recipients) - len(parsed.recipients.recipients)
    say(f"{output}  granted to {added} more")


def parse_package(source: Path) -> Package:
    """Read a package, without any trust in it yet."""
    with naming(source, "damaged, or no package: fetch it again"):
        return Package.parse(mapped(source))


def _write(path: Path, chunks: Chunks, *, replace: bool = False) -> None:
    size = sum(map(len, chunks))
    with click.progressbar(length=size, label=path.name, hidden=size < _LARGE) as bar:

        def cut() -> Iterator[memoryview]:
            for chunk in chunks:
                view = memoryview(chunk)
                for at in range(0, len(view), _CHUNK):
                    piece = view[at : at + _CHUNK]
                    yield piece
                    bar.update(len(piece))

        write_atomically(path, cut(), mode=_PACKAGE_MODE, replace=replace)
