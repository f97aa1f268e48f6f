"""The publisher's and the operator's commands: pack and grant."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edged.base.errors import EdgedError, UsageError, error_context
from edged.base.files import read_whole, write_atomically
from edged.cli.common import iso_date, path_type, say
from edged.cli.passphrase import open_personal_keys, passphrase_option
from edged.formats import home_assistant
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PublicKey
from edged.formats.identity import Role
from edged.formats.package.manifest import Manifest
from edged.formats.package.pack import Chunks, Contents, grant, make_grant, pack, preferred_aead, repack
from edged.formats.package.self_test import SelfTest
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
@click.option("--minimum", type=int, help="Boards that accepted it never serve a version below this one again.")
@click.option(
    "--to",
    "boards",
    type=path_type,
    multiple=True,
    help="Enrolment record of a board; repeat. Needed where there is no --operator.",
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
    minimum: int | None,
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
    if not boards and operator is None:
        raise UsageError(
            "sealed to nobody", hint="--to for each board, or --operator for somebody who grants it to them"
        )
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
        parsed = parse_package(source)
        name = Manifest.parse(parsed.signed.unverified).name
        with error_context(source):
            package = parsed.verify(Publishers.of(signer.public, name))
            minimum = minimum or package.manifest.minimum
            chunks = repack(
                package, opener, version, signer=signer, expires=package.manifest.expires, minimum=minimum, **sealing
            )
    else:
        if manifest is None:
            raise UsageError("no manifest", hint="--manifest FILE, or --from PACKAGE")
        author, base = Author.read(manifest), manifest.parent
        weights = author.weights_path(base, model)
        author, outputs, tested, failures = check_weights(author, base, weights)
        refusals = [f"boards with {engine} will refuse it: {error.message}" for engine, error in failures.items()]
        for remark in (*refusals, *home_assistant.remarks(author)):
            say(f"edged: warning: {remark}", err=True)
        fields, content, self_test = author.fields(base), read_whole(weights), author.read_self_test(base)
        if learned is not None:
            changed, content, self_test = _learned(author, base, content, learned, aggregator, version)
            fields |= changed
        fields["outputs"] = outputs
        fields["tested"] = tested if learned is None else tested[:1]
        minimum = fields["minimum"] = minimum or author.minimum
        signer = open_personal_keys(key, passphrase_file).need_publisher(key)
        name, version = fields["name"], fields["version"]
        contents: Contents = [("model", content), ("self_test", self_test.encode())]
        chunks = pack(fields, contents, signer=signer, **sealing)
    output = output or Path(f"{name}-{version}.edged")
    _write(output, chunks)
    expires = _read_back(output, signer.public)
    say(f"{output}  {name} {version}, sealed to {len(recipients)} keys, {output.stat().st_size} bytes")
    if expires is not None and expires < time.time():
        say(f"edged: warning: no board installs it: it expired on {iso_date(expires)}", err=True)
    if minimum is not None:
        say(
            f"edged: warning: boards that accept it never go back below version {minimum}: where it fails its trial and"
            " none from there on is installed, nothing answers",
            err=True,
        )


def _read_back(path: Path, publisher: PublicKey) -> int | None:
    """Check a package that was just written as a board does that installs it, and return when it expires.

    :raises EdgedError: boards would refuse it; the file is gone then.
    """
    try:
        package = parse_package(path)
        name = Manifest.parse(package.signed.unverified).name
        verified = package.verify(Publishers.of(publisher, name))
        verified.check_release()
        verified.check_sizes()
        verified.check_ciphertexts()
    except EdgedError:
        path.unlink()
        raise
    return verified.manifest.expires


def _learned(
    author: Author, base: Path, model: memoryview, learned: Path, aggregator: Path | None, version: int | None
) -> tuple[dict[str, Any], memoryview, SelfTest]:
    """Return what changes in a manifest with weights that boards learned together, the model and its self-test."""
    from edged.federated.learned import Learned  # noqa: PLC0415  most publishers have no use for it

    if aggregator is None or version is None:
        raise UsageError("--learned wants --aggregator, whose signature is checked, and --version")
    read = Learned.read(learned, read_record(aggregator, Role.AGGREGATOR).sign)
    if version <= author.version:
        raise UsageError(f"--version: {version} is not above {author.version}, which its manifest has")
    with error_context(learned):
        changed, self_test = read.into(author, base, bytes(model))
    return {"version": version, "training": read.training}, memoryview(changed), self_test


@click.command("grant")
@click.argument("package", type=path_type)
@click.option(
    "--to", "boards", type=path_type, multiple=True, required=True, help="Enrolment record of a board; repeat."
)
@click.option("--operator-key", "key", type=path_type, required=True, help="The operator's private key.")
@click.option("--alone", is_flag=True, help="Write a small file for each board instead, to be installed with --grant.")
@click.option(
    "-o", "--output", type=path_type, help="Default: the package itself, replaced whole; NAME-VERSION.BOARD.grant."
)
@passphrase_option
def grant_command(
    package: Path, boards: tuple[Path, ...], key: Path, output: Path | None, passphrase_file: str | None, *, alone: bool
) -> None:
    """Seal a package to further boards, with the operator's key; the publisher is not needed.

    Boards that have the package already, or get it from a place that cannot be written to, need a grant alone.

    \b
    Example: edged grant gearbox-1.edged --to press-08.enrol --operator-key fleet.key
             edged grant gearbox-1.edged --to press-08.enrol --operator-key fleet.key --alone
    """
    records = [read_record(path, Role.DEVICE) for path in boards]
    if alone and output is not None and len(records) != 1:
        raise UsageError("--output is for the grant of one board", hint="leave it out: each is named after its board")
    operator = open_personal_keys(key, passphrase_file).need_agreement(key)
    parsed = parse_package(package)
    if alone:
        for record in records:
            path = output or Path(f"{package.stem}.{record.id}.grant")
            write_atomically(path, [make_grant(parsed, operator, record.sealing_key)], mode=_PACKAGE_MODE, replace=True)
            say(f"{path}  for {record.id}, beside {package.name}")
        return
    output = output or package
    _write(output, grant(parsed, operator, [record.sealing_key for record in records]), replace=True)
    added = len(parse_package(output).recipients.recipients) - len(parsed.recipients.recipients)
    say(f"{output}  granted to {added} more")


def parse_package(source: Path) -> Package:
    """Read a package, without any trust in it yet."""
    with error_context(source, "damaged, or no package: fetch it again"):
        return Package.parse(read_whole(source))


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
