"""``edged keygen``: keys of people, hubs and sensors."""

from __future__ import annotations

import time
from pathlib import Path

import click

from edged.base.errors import UsageError
from edged.base.files import write_atomically
from edged.base.names import check_name
from edged.cli.common import path_type, say
from edged.cli.passphrase import new_passphrase, passphrase_option, read_pin
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import ContentKey
from edged.formats.identity import Record, Role
from edged.keystore.people import PersonalKeys
from edged.keystore.records import write_sensor_key
from edged.keystore.token_uri import TokenUri

_RECORD_MODE = 0o644


@click.group("keygen")
def keygen_command() -> None:
    """Make the keys of a publisher, operator, hub or sensor.

    \b
    Example: edged keygen publisher --id acme
             makes acme.key (private, under a passphrase) and acme.pub (public record)
    """


def _person(role: Role, meaning: str) -> None:
    @keygen_command.command(role.value, help=f"{meaning}\n\n\b\nExample: edged keygen {role} --id home")
    @click.option("--id", "name", required=True, help="Name in lower case: letters, digits, - and _.")
    @click.option("-o", "--output", type=path_type, default=Path(), help="Directory to write to (default: this one).")
    @click.option("--no-passphrase", is_flag=True, help="Write the private key unencrypted.")
    @click.option("--weak-passphrase", is_flag=True, help="Accept a passphrase of fewer than 10 characters.")
    @click.option("--keystore", metavar="URI", help="Make them on a token instead: pkcs11:token=LABEL (RFC 7512).")
    @passphrase_option
    def command(
        name: str,
        output: Path,
        keystore: str | None,
        *,
        no_passphrase: bool,
        weak_passphrase: bool,
        passphrase_file: str | None,
    ) -> None:
        check_name("--id", name)
        key_path, record_path = output / f"{name}.key", output / f"{name}.pub"
        agreement = role is not Role.PUBLISHER
        if keystore is None:
            passphrase = None if no_passphrase else new_passphrase(passphrase_file, key_path, weak=weak_passphrase)
            keys = PersonalKeys.make_file(key_path, passphrase, agreement=agreement)
            place, advice = str(key_path), f"keep it{'' if agreement else ' off line'}"
        elif no_passphrase:
            raise UsageError("--no-passphrase is for key files: a token has a PIN")
        else:
            uri = TokenUri.parse(keystore).labelled(name)
            keys = PersonalKeys.make_on_token(uri, read_pin(passphrase_file, uri), agreement=agreement)
            place, advice = uri.text, "name it so wherever a key file is asked for"
        record = Record.of(role, name, keys, int(time.time()))
        write_atomically(record_path, [record.encode(keys.signer)], mode=_RECORD_MODE, replace=False)
        say(f"{place}  private: {advice}")
        say(f"{record_path}  public record, fingerprint {record.fingerprint}")


_person(Role.PUBLISHER, "A publisher's key: signs models, and nothing else.")
_person(
    Role.OPERATOR, "An operator's keys: open packages in order to grant them to further boards; cannot sign models."
)
_person(Role.HUB, "A hub's keys: open what boards announce and publish.")


@keygen_command.command("sensor")
@click.option("--id", "name", required=True, help="Name of the file, in lower case: letters, digits, - and _.")
@click.option("-o", "--output", type=path_type, default=Path(), help="Directory to write to (default: this one).")
@click.option(
    "--aead",
    type=click.Choice([aead.name for aead in Aead]),
    default=Aead.A256GCM.name,
    show_default=True,
    help="CHACHA20_POLY1305 suits a CPU without AES instructions.",
)
def sensor(name: str, output: Path, aead: str) -> None:
    """Make a sensor's key: symmetric, for one sensor and one board, which both hold the same file.

    \b
    Example: edged keygen sensor --id press-07
    """
    check_name("--id", name)
    key, path = ContentKey.generate(Aead[aead]), output / f"{name}.key"
    write_sensor_key(path, key)
    say(f"{path}  secret, key id {key.kid.hex()}: copy it to the sensor and to its board, mode 0600")
