"""A board's keys over time: present, following and former ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edged.base.errors import EdgedError, KeystoreError, MismatchError, NotARecipientError
from edged.base.files import make_private_directory, read_bounded, read_whole, write_atomically
from edged.config.board import KeystoreTable
from edged.config.secret import KeystoreSecrets
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import Encrypt
from edged.formats.cose.keys import Agreement, PublicKey
from edged.formats.identity import Record, Role
from edged.formats.package.pack import make_grant
from edged.formats.package.verify import Package
from edged.keystore import Keystore, create_keystore, keystore_class, open_keystore
from edged.keystore.packages import Installed, PackageStore
from edged.keystore.records import FORMER, OWN, Former, FormerKeys, read_own, read_record, read_signers

RECORD_MODE = 0o644
_LIMIT = 4096


class Keyring:
    """The keys of one board.

    :param table: their names in the configuration.
    :param directory: holds ``file:`` and ``tpm2:`` keys, records and packages.
    :ivar secrets: passphrases, PINs and credentials of the keys.
    """

    def __init__(self, table: KeystoreTable, directory: Path) -> None:
        self.table = table
        self.key_directory = directory / "keys"
        self.record_path = directory / OWN
        self.following_path = directory / "next.enrol"
        self._former = FormerKeys(directory / FORMER)
        self._directory = directory
        self.secrets = KeystoreSecrets()

    def read_secrets(self) -> None:
        """Read the secrets of the keys, and import their store, as the user who may; neither is read again.

        :raises EdgedError: a secret of the keys in use is absent or open to others, or their store's library is absent.
        """
        self.secrets.of(self.table)
        keystore_class(self.table.uri)
        for former in self._former.all():
            try:
                self.secrets.of(former.table)
            except EdgedError:  # asked for once more if a package needs those keys
                continue

    def open(self) -> Keystore:
        """Open the keys in use. The first time that they are those of a migration, their record takes its place.

        :raises KeystoreError: they are absent or cannot be opened.
        """
        keystore = self._open(self.table)
        if self.following_path.exists() and _belongs(read_record(self.following_path, Role.DEVICE), keystore):
            self.following_path.replace(self.record_path)
        return keystore

    def enrol(self, name: str, aead: Aead) -> Record:
        """Make the board's keys and its record.

        :raises OutputError: there are keys.
        """
        make_private_directory(self.record_path.parent)
        with self._making(self.table) as made:
            record = Record(Role.DEVICE, name, made.signer.public, made.agreement.public, aead, int(time.time()))
            write_atomically(self.record_path, [record.encode(made.signer)], mode=RECORD_MODE, replace=True)
        return record

    def record(self) -> Record:
        """Return the board's own enrolment record.

        :raises MissingFileError: `edged init` has not run.
        """
        return read_own(self._directory)

    def opened_record(self, keystore: Keystore) -> Record:
        """Return the board's record once it is clear that it belongs to ``keystore``.

        :raises MismatchError: it belongs to other keys.
        """
        record = self.record()
        if not _belongs(record, keystore):
            raise MismatchError(
                f"{self.record_path} does not belong to the keys at {self.table.uri}",
                hint="keystore.uri names other keys than `edged init` made",
            )
        return record

    def signers(self) -> list[PublicKey]:
        """Return every key that this board signed with, the one in use first."""
        return read_signers(self._directory)

    def opener(self, recipients: Encrypt, keystore: Keystore) -> Agreement:
        """Return the key that opens what is sealed to ``recipients``: the one in use, or a former one.

        :raises NotARecipientError: it is sealed to other boards.
        :raises KeystoreError: that former key cannot be opened.
        """
        kids = recipients.kids
        own = keystore.agreement.public.thumbprint
        if own in kids:
            return keystore.agreement
        for former in self._former.all():
            if bytes.fromhex(former.ecdh) in kids:
                return self._open(former.table).agreement
        name = self.record().id
        raise NotARecipientError(
            f"not sealed to key {own.hex()[:16]} of this board, {name}",
            hint=f"`edged inspect` lists the recipients; `edged grant` adds one (--to {name}.enrol)",
        )

    def migrate(self, table: KeystoreTable) -> Record:
        """Make new keys where ``table`` says, and their record, signed by both the new key and the one in use.

        Nothing changes for the board until its configuration names the new keys.

        :raises OutputError: there are keys already, or a migration waits for the configuration.
        """
        keystore = self.open()
        old = self.opened_record(keystore)
        if self.following_path.exists():
            waiting = read_record(self.following_path, Role.DEVICE)
            raise MismatchError(
                f"a migration to {waiting.fingerprint} waits for keystore.uri to name its keys",
                hint=f"to give it up, remove {self.following_path}",
            )
        with self._making(table) as made:
            record = msgspec.structs.replace(
                old, sign=made.signer.public, ecdh=made.agreement.public, created=int(time.time()), endorsement=None
            )
            names = (old.sign.thumbprint.hex(), old.sealing_key.thumbprint.hex())
            self._former.add(Former(*names, self.table), read_bounded(self.record_path, _LIMIT))
            encoded = record.encode(made.signer, keystore.signer)
            write_atomically(self.following_path, [encoded], mode=RECORD_MODE, replace=False)
        return record

    def forget_former(self, packages: PackageStore, note: Callable[[Installed], None]) -> list[Former]:
        """Grant installed packages to the keys in use where only former ones open them, then remove the former ones.

        :param note: called for each package that got a new grant.
        :raises MismatchError: they are still the keys in use.
        :raises KeystoreError: former keys cannot be opened; what was removed before stays removed.
        """
        keystore = self.open()
        self.opened_record(keystore)
        if self.following_path.exists():
            raise MismatchError(
                "keystore.uri still names the keys that were migrated from", hint="name the new ones, and restart"
            )
        forgotten = []
        for former in self._former.all():
            if former.sign == keystore.signer.public.thumbprint.hex():  # of a migration that was given up
                self._former.forget(former)
                continue
            old = self._open_former(former)
            for installed, package in _sealed_to(packages, old.agreement.public):
                packages.write_grant(installed, make_grant(package, old.agreement, keystore.agreement.public))
                note(installed)
            old.destroy()
            self._former.forget(former)
            forgotten.append(former)
        return forgotten

    def destroy(self) -> list[str]:
        """Destroy every private key of this board, former ones first, and its records; return the URIs of the keys.

        The records go ahead of the keys in use, which are opened without: what fails half-way can be done again.

        :raises MismatchError: a migration waits, and nothing here says where its keys are.
        :raises KeystoreError: keys cannot be opened or removed; former ones may be gone by then.
        """
        keystore = self.open()
        if self.following_path.exists():
            raise MismatchError(
                "a migration waits for keystore.uri to name its keys, which would stay",
                hint="name them, and try again: the keys before them go, too",
            )
        gone = []
        for former in self._former.all():
            if former.sign != keystore.signer.public.thumbprint.hex():  # else of a migration that was given up
                self._open_former(former).destroy()
                gone.append(former.table.uri)
            self._former.forget(former)
        self._former.remove_records()
        self.record_path.unlink(missing_ok=True)
        keystore.destroy()
        return [*gone, self.table.uri]

    @contextmanager
    def _making(self, table: KeystoreTable) -> Iterator[Keystore]:
        """Make keys, and remove them again if the block fails: a token keeps what no record names."""
        made = create_keystore(table.uri, self.key_directory, *self.secrets.of(table))
        try:
            yield made
        except EdgedError:
            made.destroy()
            raise

    def _open(self, table: KeystoreTable) -> Keystore:
        return open_keystore(table.uri, self.key_directory, *self.secrets.of(table))

    def _open_former(self, former: Former) -> Keystore:
        try:
            return self._open(former.table)
        except EdgedError as error:
            raise KeystoreError(
                f"the old keys at {former.table.uri}: {error.message}",
                hint=f"if they are gone for good, remove {self._former.path(former)}",
            ) from error


def _belongs(record: Record, keystore: Keystore) -> bool:
    return (record.sign, record.ecdh) == (keystore.signer.public, keystore.agreement.public)


def _sealed_to(packages: PackageStore, key: PublicKey) -> Iterator[tuple[Installed, Package]]:
    """Yield the installed packages whose grant is for ``key``."""
    for installed in packages.all():
        package = Package.parse(read_whole(installed.path), installed.read_grant())
        if key.thumbprint in package.recipients.kids:
            yield installed, package
