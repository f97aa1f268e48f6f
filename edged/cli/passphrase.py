"""Private keys of people, and the passphrases and PINs that open them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edged.base.errors import OutputError, UsageError
from edged.base.text import printable
from edged.cli.common import say
from edged.config.secret import read_secret
from edged.keystore.people import PersonalKeys
from edged.keystore.token_uri import TokenUri

_SHORTEST = 10
"""Characters of a new passphrase."""

passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    envvar="EDGED_PASSPHRASE_FILE",
    help="Read the passphrase of private keys, or a token's PIN, from this file (mode 0600) or credential:NAME.",
)


def open_personal_keys(path: Path, passphrase_file: str | None) -> PersonalKeys:
    """Open private keys, asking for the passphrase or PIN where one is needed and a person is there.

    :param path: a file, or the URI of keys on a token (``pkcs11:...``).
    :raises UsageError: one is needed, and nobody can be asked.
    """
    if is_token(path):
        uri = TokenUri.parse(str(path))
        return PersonalKeys.on_token(uri, read_pin(passphrase_file, uri))
    if not PersonalKeys.is_encrypted(path):
        return PersonalKeys.read(path, None)
    if passphrase_file is not None:
        passphrase = read_secret(passphrase_file)
    elif sys.stdin.isatty():
        passphrase = click.prompt(printable(f"Passphrase of {path}"), hide_input=True, err=True).encode()
    else:
        raise UsageError(f"{path} needs a passphrase, and nobody is here to type it", hint="--passphrase-file FILE")
    keys = PersonalKeys.read(path, passphrase)
    try:
        if PersonalKeys.renew(path, passphrase):
            say(
                f"edged: {path} was written anew, under the same passphrase: each guess at it now takes 128 MB",
                err=True,
            )
    except OutputError as error:
        say(f"edged: hint: {path} stands under an old, weak encryption, and stays so: {error.message}", err=True)
    return keys


def is_token(path: Path) -> bool:
    """Return whether what stands in the place of a key file is the URI of keys on a token."""
    return str(path).startswith("pkcs11:")


def read_pin(passphrase_file: str | None, uri: TokenUri) -> bytes:
    """Return a token's PIN.

    :raises UsageError: none was given, and nobody can be asked.
    """
    if passphrase_file is not None:
        return read_secret(passphrase_file)
    if not sys.stdin.isatty():
        raise UsageError(f"{uri.text} needs a PIN, and nobody is here to type it", hint="--passphrase-file FILE")
    typed: str = click.prompt(printable(f"PIN of {uri.text}"), hide_input=True, err=True)
    return typed.encode()


def new_passphrase(passphrase_file: str | None, path: Path, *, weak: bool) -> bytes:
    """Return the passphrase for a new private key file.

    :param weak: accept a short passphrase.
    :raises UsageError: none was given, and nobody can be asked; or it is short.
    """
    passphrase = _given_passphrase(passphrase_file, path)
    if len(passphrase.decode(errors="replace")) < _SHORTEST and not weak:
        raise UsageError(
            f"the passphrase has fewer than {_SHORTEST} characters",
            hint="five random words, for example; --weak-passphrase accepts it all the same",
        )
    return passphrase


def _given_passphrase(passphrase_file: str | None, path: Path) -> bytes:
    if passphrase_file is not None:
        return read_secret(passphrase_file)
    if not sys.stdin.isatty():
        raise UsageError(
            f"{path} needs a passphrase, and nobody is here to type one",
            hint="--passphrase-file FILE, or --no-passphrase where the disk is protected otherwise",
        )
    typed: str = click.prompt(
        printable(f"New passphrase for {path}"), hide_input=True, confirmation_prompt=True, err=True
    )
    return typed.encode()
