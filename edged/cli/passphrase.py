"""Private keys of people, and the passphrases that open them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edged.config.secret import read_secret
from edged.errors import UsageError
from edged.keystore.people import PersonalKeys

_Function = TypeVar("_Function", bound=Callable[..., Any])


def passphrase_option(function: _Function) -> _Function:
    """Add ``--passphrase-file``."""
    return click.option(
        "--passphrase-file",
        metavar="FILE",
        envvar="EDGED_PASSPHRASE_FILE",
        help="Read the passphrase of private keys from this file (mode 0600), or from credential:NAME.",
    )(function)


def open_personal_keys(path: Path, passphrase_file: str | None) -> PersonalKeys:
    """Read the private keys in ``path``, asking for the passphrase where one is needed and a person is there.

    :raises UsageError: one is needed, and nobody can be asked.
    """
    if not PersonalKeys.is_encrypted(path):
        return PersonalKeys.read(path, None)
    if passphrase_file is not None:
        return PersonalKeys.read(path, read_secret(passphrase_file))
    if not sys.stdin.isatty():
        raise UsageError(f"{path} needs a passphrase, and nobody is here to type it", hint="--passphrase-file FILE")
    return PersonalKeys.read(path, click.prompt(f"Passphrase of {path}", hide_input=True, err=True).encode())


def new_passphrase(passphrase_file: str | None, path: Path) -> bytes:
    """Return the passphrase for a new private key file.

    :raises UsageError: none was given, and nobody can be asked.
    """
    if passphrase_file is not None:
        return read_secret(passphrase_file)
    if not sys.stdin.isatty():
        raise UsageError(
            f"{path} needs a passphrase, and nobody is here to type one",
            hint="--passphrase-file FILE, or --no-passphrase where the disk is protected otherwise",
        )
    typed: str = click.prompt(f"New passphrase for {path}", hide_input=True, confirmation_prompt=True, err=True)
    return typed.encode()
