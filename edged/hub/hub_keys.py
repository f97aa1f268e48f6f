"""A hub's keys and its public record, in the same key stores as a board's."""

from __future__ import annotations

import time
from pathlib import Path

from edged.base.errors import EdgedError, MissingFileError
from edged.base.files import make_private_directory, write_atomically
from edged.config.board import KeystoreTable
from edged.config.secret import KeystoreSecrets
from edged.formats.identity import Record, Role
from edged.keystore import Keystore, create_keystore, open_keystore
from edged.keystore.records import read_record

_RECORD_MODE = 0o644


class HubKeys:
    """The keys of one hub.

    :param table: ``[keystore]`` of the configuration.
    :param directory: the hub's state.
    :ivar record_path: its public record, which boards name in ``results.hubs``.
    """

    def __init__(self, table: KeystoreTable, directory: Path) -> None:
        self.record_path = directory / "hub.pub"
        self._table = table
        self._directory = directory / "keys"

    def make(self, name: str) -> Record:
        """Make keys and their record.

        :raises OutputError: there are keys.
        :raises KeystoreError: the key store refuses.
        """
        make_private_directory(self.record_path.parent)
        made = create_keystore(self._table.uri, self._directory, *KeystoreSecrets().of(self._table))
        try:
            record = Record(Role.HUB, name, made.signer.public, made.agreement.public, None, int(time.time()))
            write_atomically(self.record_path, [record.encode(made.signer)], mode=_RECORD_MODE, replace=True)
        except EdgedError:
            made.destroy()
            raise
        return record

    def open(self) -> Keystore:
        """Open the keys: the signing key names this hub, and results are sealed to the other.

        :raises KeystoreError: it is absent or cannot be opened.
        """
        return open_keystore(self._table.uri, self._directory, *KeystoreSecrets().of(self._table))

    def record(self) -> Record:
        """Return the public record.

        :raises MissingFileError: `edged hub init` has not run.
        """
        try:
            return read_record(self.record_path, Role.HUB)
        except MissingFileError as error:
            raise MissingFileError(error.message, hint="`edged hub init` makes this hub's keys and record") from error
