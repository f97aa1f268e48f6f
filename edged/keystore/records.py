"""Records, and the keys of sensors, as files."""

from __future__ import annotations

from pathlib import Path

from edged.base.errors import EdgedError, KeystoreError, MismatchError, naming
from edged.base.files import PRIVATE_FILE, read_bounded, read_private, write_atomically
from edged.formats.cose import cbor
from edged.formats.cose.keys import ContentKey
from edged.formats.identity import RECORD_LIMIT, Record, Role

_SENSOR_KEY_LIMIT = 256


def read_record(path: Path, role: Role) -> Record:
    """Read the record in file ``path``, which must be of ``role``.

    :raises MismatchError: it is the record of another role.
    :raises EdgedError: as :meth:`Record.parse`, with the file's name.
    """
    with naming(path, f"is it the {role}'s public record?"):
        record = Record.parse(read_bounded(path, RECORD_LIMIT))
    if record.role is not role:
        raise MismatchError(
            f"{path} is the record of a {record.role}, not of a {role}", hint=f"name the {role}'s record instead"
        )
    return record


def write_sensor_key(path: Path, key: ContentKey) -> None:
    """Write a sensor's key, mode 0600; the sensor and its one board hold the same file.

    :raises OutputError: the file exists.
    """
    write_atomically(path, [cbor.encode(key.cose())], mode=PRIVATE_FILE, replace=False)


def read_sensor_key(path: Path) -> ContentKey:
    """Read a sensor's key.

    :raises PermissionsError: others may read it.
    :raises KeystoreError: it is not a sensor's key.
    """
    data = read_private(path, _SENSOR_KEY_LIMIT)
    try:
        return ContentKey.parse(cbor.decode_canonical(data))
    except EdgedError as error:
        raise KeystoreError(
            f"{path} is not a sensor's key: {error.message}", hint="`edged keygen sensor` makes one"
        ) from error
