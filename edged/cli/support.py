"""``edged support-bundle``: one file for whoever helps."""

from __future__ import annotations

from pathlib import Path

import click

from edged.base.errors import OutputError, UsageError
from edged.base.files import PRIVATE_FILE, write_atomically
from edged.board.redact import Redactor
from edged.board.support_bundle import SECTIONS, gather, pack
from edged.cli.common import config_option, path_type, print_table, say


@click.command("support-bundle")
@click.option("-o", "--output", type=path_type, metavar="FILE.tar.gz", help="Where to write it.")
@click.option("--list", "lists", is_flag=True, help="Only say what goes in.")
@click.option("--with-names", is_flag=True, help="Leave hosts, users, topics and the board's name as they are.")
@config_option
def support_bundle_command(output: Path | None, config: Path, *, lists: bool, with_names: bool) -> None:
    """Collect versions, findings, state and log of this board into one file: no keys, no packages, no readings.

    Hosts, users, topics and the board's name are masked, each by the same word throughout. Look into it before you
    send it.

    \b
    Example: edged support-bundle -o bundle.tar.gz
    """
    if lists:
        print_table([(section.name, section.what) for section in SECTIONS], ("file", "holds"))
        return
    if output is None:
        raise UsageError("support-bundle needs -o FILE.tar.gz", hint="--list says what goes in")
    if output.exists():
        raise OutputError(f"{output} exists already", hint="name another file, or remove it first")
    files = gather(config, Redactor(with_names=with_names))
    write_atomically(output, [pack(files)], mode=PRIVATE_FILE, replace=False)
    size = output.stat().st_size
    say(f"{output}  {len(files)} files, {size} bytes; read it before you send it: tar -xzOf {output} | less")
