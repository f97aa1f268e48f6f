"""Private keys of people, and the passphrases and PINs that open them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edged.base.errors import UsageError
from edged.config.secret import read_secret
from edged.keystore.people import PersonalKeys
from edged.keystore.token_uri import TokenUri

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
        return PersonalKeys.read(path, read_secret(passphrase_file))
    if not sys.stdin.isatty():
        raise UsageError(f"{path} needs a passphrase, and nobody is here to type it", hint="--passphrase-file FILE")
    return PersonalKeys.read(path, click.prompt(f"Passphrase of {path}", hide_input=True, err=True).encode())


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
    typed: str = click.prompt(f"PIN of {uri.text}", hide_input=True, err=True)
    return typed.encode()


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
