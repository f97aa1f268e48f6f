"""An aggregator's directory: keys and record, the boards that it allows, the number of its last run."""

from __future__ import annotations

import datetime as dt
import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edged.base.errors import EdgedError, FormatError, MismatchError, MissingFileError, UsageError, error_context
from edged.base.files import PRIVATE_FILE, make_private_directory, read_bounded, write_atomically
from edged.base.owner import acting_as_owner
from edged.config.aggregator import AggregatorConfig
from edged.config.secret import KeystoreSecrets
from edged.federated.nodes import NodeRecord
from edged.formats.cose import cbor
from edged.formats.identity import Record, Role
from edged.keystore import Keystore, create_keystore, open_keystore
from edged.keystore.certificates import Authority, TlsFiles
from edged.keystore.records import read_record

_RECORD_MODE = 0o644
_LIMIT = 64 * 1024
_NODE = ".node"
_USER = "edged-aggregator"
_LIFE = dt.timedelta(days=3650)


class Aggregator:
    """One aggregator's directory.

    :ivar record_path: its public record, which boards name in ``federated.record``.
    :ivar secret_path: what whoever leads a run shows the SuperLink: fresh each time that it is started.
    """

    def __init__(self, config: AggregatorConfig) -> None:
        self.config = config
        self.directory = Path(config.aggregator.state)
        self.record_path = self.directory / "aggregator.pub"
        self.secret_path = self.directory / "run" / "secret"
        tls = self.directory / "tls"
        self.tls = TlsFiles(tls / "ca.pem", tls / "server.pem", tls / "server.key")
        self.address = f"localhost:{config.aggregator.port}"
        self._boards = self.directory / "boards"
        self._run = self.directory / "last-run"
        self._secrets = KeystoreSecrets()

    def make_directory(self) -> None:
        """Make the directory if it is absent; for the system user of that role where root calls and there is one."""
        if self.directory.exists():
            return
        make_private_directory(self.directory)
        if os.geteuid() == 0:
            with suppress(KeyError):
                user = pwd.getpwnam(_USER)
                os.chown(self.directory, user.pw_uid, user.pw_gid)

    @contextmanager
    def as_owner(self) -> Iterator[None]:
        """Act as the directory's owner in the block if root calls."""
        with acting_as_owner(self.directory, lambda: self._secrets.of(self.config.keystore)):
            yield

    def make(self) -> Record:
        """Make keys, their record, and the certificate for the loopback.

        :raises OutputError: there are keys.
        """
        table = self.config.keystore
        make_private_directory(self.directory)
        keystore = create_keystore(table.uri, self.directory / "keys", *self._secrets.of(table))
        try:
            name = self.config.aggregator.name
            agreement = keystore.agreement.public
            record = Record(Role.AGGREGATOR, name, keystore.signer.public, agreement, None, int(time.time()))
            write_atomically(self.record_path, [record.encode(keystore.signer)], mode=_RECORD_MODE, replace=True)
            self._make_certificates()
        except EdgedError:
            keystore.destroy()
            raise
        return record

    def _make_certificates(self) -> None:
        """Make the TLS files of the SuperLink.

        Flower authenticates boards over TLS alone, so a SuperLink speaks TLS on the loopback too. Boards see the
        proxy's certificate; the proxy and the aggregator's own commands see this one.
        """
        make_private_directory(self.tls.ca.parent)
        Authority("edged aggregator, loopback", self.tls.ca, _LIFE).issue_server(self.tls.cert, self.tls.key)

    def keystore(self) -> Keystore:
        """Open the keys.

        :raises KeystoreError: they are absent or cannot be opened.
        """
        table = self.config.keystore
        return open_keystore(table.uri, self.directory / "keys", *self._secrets.of(table))

    def record(self) -> Record:
        """Return the public record.

        :raises MissingFileError: `edged aggregator init` has not run.
        """
        try:
            return read_record(self.record_path, Role.AGGREGATOR)
        except MissingFileError as error:
            raise MissingFileError(error.message, hint="`edged aggregator init` makes keys and record") from error

    # --- boards -----------------------------------------------------------------------------------

    def boards(self) -> dict[str, NodeRecord]:
        """Return the boards that are allowed, by name."""
        found = (NodeRecord.read(path) for path in sorted(self._boards.glob(f"*{_NODE}")))
        return {record.device.id: record for record in found}

    def allow(self, path: Path, *, replace: bool = False) -> NodeRecord:
        """Allow the board whose node record is in file ``path``.

        :param replace: also where a record of that name with another device key is there.
        :raises MismatchError: one is.
        """
        record = NodeRecord.read(path)
        name = record.device.id
        known = self.boards().get(name)
        if known is not None and not replace:
            with error_context(
                path, f"compare the fingerprint {record.device.fingerprint} at the board, then use --replace"
            ):
                record.device.check_replaces(known.device)
        for other in self.boards().values():
            if other.node == record.node and other.device.id != name:
                raise MismatchError(f"{path}: {other.device.id} has the same node key")
        make_private_directory(self._boards)
        content = read_bounded(path, _LIMIT)
        write_atomically(self._boards / f"{name}{_NODE}", [content], mode=PRIVATE_FILE, replace=True)
        return record

    def revoke(self, name: str) -> NodeRecord:
        """Allow a board no more.

        :raises UsageError: it was not allowed.
        """
        boards = self.boards()
        if name not in boards:
            raise UsageError(f"{name} is not allowed", hint=f"allowed are {', '.join(boards) or 'none'}")
        (self._boards / f"{name}{_NODE}").unlink()
        return boards[name]

    # --- runs -------------------------------------------------------------------------------------

    def begin_run(self) -> int:
        """Return the number of a new run, above every earlier one: boards take no lower one any more. Durable.

        It begins with the time, so that an aggregator that lost its directory does not begin below what boards took.
        """
        number = max(self.last_run() + 1, int(time.time()))
        write_atomically(self._run, [cbor.encode(number)], mode=PRIVATE_FILE, replace=True)
        return number

    def last_run(self) -> int:
        """Return the number of the last run; 0 before the first."""
        if not self._run.exists():
            return 0
        with error_context(self._run, "without it, the next run's number is the time"):
            number = cbor.decode_canonical(read_bounded(self._run, _LIMIT))
            if type(number) is not int:
                raise FormatError("not the number of a run")
            return number

    def outcome(self, model: str, run: int) -> Path:
        """Return where a run's outcome is written: what `edged pack --learned` takes."""
        return make_private_directory(self.directory / "learned") / f"{model}-{run}.learned"
