"""Files beside the keys: records, the keys of sensors, and those that a board had before."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edged.base.errors import EdgedError, KeystoreError, MismatchError, MissingFileError, error_context
from edged.base.files import PRIVATE_FILE, make_private_directory, read_bounded, read_private, write_atomically
from edged.config.board import KeystoreTable
from edged.formats.cose.keys import ContentKey, PublicKey
from edged.formats.identity import RECORD_LIMIT, Record, Role

OWN, FORMER = "device.enrol", "former"
"""A board's own record, and the directory of its former keys."""
_SENSOR_KEY_LIMIT = 256
_FORMER_LIMIT = 4096


def read_record(path: Path, role: Role) -> Record:
    """Read the record in file ``path``, which must be of ``role``.

    :raises MismatchError: it is the record of another role.
    :raises EdgedError: as :meth:`Record.parse`, with the file's name.
    """
    with error_context(path, f"is it the {role}'s public record?"):
        record = Record.parse(read_bounded(path, RECORD_LIMIT))
    if record.role is not role:
        raise MismatchError(
            f"{path} is the record of a {record.role}, not of a {role}", hint=f"name the {role}'s record instead"
        )
    return record


def read_own(directory: Path) -> Record:
    """Return a board's own record.

    :param directory: of its records and keys.
    :raises MissingFileError: `edged init` has not run.
    """
    try:
        return read_record(directory / OWN, Role.DEVICE)
    except MissingFileError as error:
        raise MissingFileError(error.message, hint="`edged init` makes this board's keys and record") from error


def read_signers(directory: Path) -> list[PublicKey]:
    """Return every key that a board signed with, the one in use first.

    :param directory: of its records and keys.
    """
    former = [read_record(path, Role.DEVICE).sign for path in FormerKeys(directory / FORMER).records()]
    return list(dict.fromkeys([read_own(directory).sign, *former]))


def write_sensor_key(path: Path, key: ContentKey) -> None:
    """Write a sensor's key, mode 0600; the sensor and its one board hold the same file.

    :raises OutputError: the file exists.
    """
    write_atomically(path, [key.encode()], mode=PRIVATE_FILE, replace=False)


def read_sensor_key(path: Path) -> ContentKey:
    """Read a sensor's key.

    :raises PermissionsError: others may read it.
    :raises KeystoreError: it is not a sensor's key.
    """
    data = read_private(path, _SENSOR_KEY_LIMIT)
    try:
        return ContentKey.decode(data)
    except EdgedError as error:
        raise KeystoreError(
            f"{path} is not a sensor's key: {error.message}", hint="`edged keygen sensor` makes one"
        ) from error


class Former(msgspec.Struct, frozen=True):
    """Former keys of which the private half is still there.

    :ivar sign: thumbprint of the signing key, hexadecimal.
    :ivar ecdh: thumbprint of the key that things were sealed to, likewise.
    :ivar table: how the configuration named them.
    """

    sign: str
    ecdh: str
    table: KeystoreTable


class FormerKeys:
    """The directory of former keys: they open what was sealed to them, and sign nothing any more.

    Each has two files named after its signing key: the record, which stays (it verifies what the key signed), and
    where its private keys are, which goes when they are removed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, former: Former, record: bytes) -> None:
        """Remember keys that will be replaced, with their enrolment record."""
        make_private_directory(self._directory)
        path = self.path(former)
        write_atomically(path.with_suffix(".enrol"), [record], mode=PRIVATE_FILE, replace=True)
        write_atomically(path, [msgspec.json.encode(former)], mode=PRIVATE_FILE, replace=True)

    def all(self) -> list[Former]:
        """Return those whose private keys are still there.

        :raises KeystoreError: a file is damaged.
        """
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(msgspec.json.decode(read_private(path, _FORMER_LIMIT), type=Former))
            except msgspec.DecodeError as error:
                raise KeystoreError(f"{path} is damaged: {error}", hint="restore a copy of it") from error
        return found

    def records(self) -> list[Path]:
        """Return the files of all former records."""
        return sorted(self._directory.glob("*.enrol"))

    def remove_records(self) -> None:
        """Remove all former records."""
        for path in self.records():
            path.unlink()

    def forget(self, former: Former) -> None:
        """Forget where the private keys were; the record stays."""
        self.path(former).unlink(missing_ok=True)

    def path(self, former: Former) -> Path:
        """Return the file that says where the private keys are."""
        return self._directory / f"{former.sign}.json"
