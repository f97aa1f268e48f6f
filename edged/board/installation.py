"""The installation of one board: configuration, keys, state and packages. Commands and the daemon both start here."""

from __future__ import annotations

import importlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edged.base.clock import Clock
from edged.base.errors import EdgedError, FormatError, MismatchError, MissingFileError, TrialError, error_context
from edged.base.owner import acting_as_owner
from edged.board.audit import AuditLog
from edged.board.examples import Examples, StoreKeys
from edged.board.keyring import Keyring
from edged.board.state import State
from edged.config.board import BoardConfig, BrokerTable
from edged.formats.cose.keys import ContentKey, PublicKey
from edged.formats.identity import Record, Role
from edged.formats.package import Floor
from edged.formats.package.manifest import Manifest
from edged.formats.package.verify import HEAD_LIMIT, Package, Publishers, VerifiedPackage, signed_length
from edged.keystore import DIRECTORY, Keystore
from edged.keystore.packages import Installed, installed_packages
from edged.keystore.records import read_record, read_sensor_key

if TYPE_CHECKING:  # imported on use: `edged status` needs neither paho nor numpy
    from edged.broker import BrokerOptions, Message
    from edged.model.live import LiveModel
    from edged.model.runtime import DelegateLibrary, Engine

_DAMAGED = "fetch the package again; if that does not help, ask its publisher for another"


class Board:
    """A board as its configuration describes it; keys and state are opened on first use."""

    def __init__(self, config: BoardConfig) -> None:
        self.config = config
        self.directory = Path(config.device.state)
        self.packages = installed_packages(self.directory)

    @cached_property
    def keys(self) -> Keyring:
        """The keys of this board, present and former."""
        return Keyring(self.config.keystore, self.directory / DIRECTORY)

    @contextmanager
    def as_owner(self) -> Iterator[None]:
        """Act as the daemon's user in the block, if root calls and the state directory is that user's.

        A file that root wrote there could not be read by the daemon. The secrets that keys are opened with are read
        before: systemd gives credentials to the user that it starts, which is root then. The user's groups come with
        it, because one of them may be what opens the TPM.
        """
        with acting_as_owner(self.directory, self._read_as_caller):
            yield

    def _read_as_caller(self) -> None:
        """Read secrets, and import what is imported on use: the owner may be unable to read either."""
        self.keys.read_secrets()
        for module in ("edged.broker", "edged.model.live", "edged.model.runtime"):
            importlib.import_module(module)

    def topic(self, level: str) -> str:
        """Return the topic of this board that ends in ``level``: a channel, or one of the reserved words."""
        return f"{self.config.results.prefix}/{self.config.device.name}/{level}"

    def keystore(self) -> Keystore:
        """Open the board's keys.

        :raises KeystoreError: they are absent or cannot be opened.
        """
        return self.keys.open()

    def record(self) -> Record:
        """Return the board's own enrolment record.

        :raises MissingFileError: `edged init` has not run.
        """
        return self.keys.record()

    def publishers(self) -> Publishers:
        """Return the publishers that the configuration pins."""
        pinned: dict[bytes, tuple[PublicKey, frozenset[str]]] = {}
        for publisher in self.config.publishers.values():
            key = read_record(Path(publisher.key), Role.PUBLISHER).sign
            _, names = pinned.get(key.thumbprint, (key, frozenset[str]()))
            pinned[key.thumbprint] = (key, names | frozenset(publisher.models))
        return Publishers(pinned)

    def _step(self, publisher: bytes) -> int:
        """Return how far a publisher's versions may go ahead at once.

        :param publisher: thumbprint of its key.
        """
        tables = self.config.publishers.values()
        return min(
            one.step for one in tables if read_record(Path(one.key), Role.PUBLISHER).sign.thumbprint == publisher
        )

    def hubs(self) -> list[Record]:
        """Return the records of the hubs that results are sealed to."""
        return [read_record(Path(path), Role.HUB) for path in self.config.results.hubs]

    def sensor_keys(self) -> dict[str, tuple[ContentKey, ...]]:
        """Return the keys of the sensors, by channel of the model that reads them."""
        return {
            model.channel: tuple(read_sensor_key(Path(path)) for path in model.sensors)
            for model in self.config.model
            if model.sensors
        }

    def audit(self, state: State, keystore: Keystore) -> AuditLog:
        """Return this board's audit log, to be written to."""
        return AuditLog(state, self.config.device.name, keystore.signer)

    def examples(self, keystore: Keystore | None) -> Examples:
        """Open the examples that this board keeps to train models with.

        :param keystore: None to list and to erase, which needs no keys.
        :raises StateError: it cannot be opened.
        """
        if keystore is None:
            return Examples(self.directory, None)
        return Examples(
            self.directory,
            StoreKeys(
                keystore.signer,
                keystore.agreement.public,
                opener=lambda sealed: self.keys.opener(sealed, keystore),
                signers=self.keys.signers(),
            ),
        )

    def clock(self, state: State) -> Clock:
        """Return the best known time."""
        return Clock.read(trusted=self.config.device.clock == "trusted", signed=state.newest_created())

    def broker_options(self, broker: BrokerTable | None = None, will: Message | None = None) -> BrokerOptions:
        """Return the options for a configured broker; default: the one that readings come from."""
        from edged.broker import configured  # noqa: PLC0415  as above

        return configured(broker or self.config.broker, f"edged-{self.config.device.name}", will)

    def engine(self) -> Engine:
        """Return the configured runtime."""
        from edged.model.runtime import choose  # noqa: PLC0415  as above

        return choose(self.config.runtime.engine, self.config.runtime.xnnpack)

    def verify(self, data: memoryview, source: Path, grant: bytes | None = None) -> VerifiedPackage:
        """Parse and verify the package that was mapped from ``source``.

        :param grant: what is to be opened in the place of the package's own recipient list.
        :raises EdgedError: as :meth:`Package.parse` and :meth:`Package.verify`, with the file's name.
        """
        publishers = self.publishers()
        with error_context(source, _DAMAGED):
            return Package.parse(data, grant).verify(publishers)

    def verify_installed(self, installed: Installed) -> VerifiedPackage:
        """Verify an installed package with its grant.

        :raises MismatchError: it is another than its file's name says.
        :raises EdgedError: as :meth:`verify`.
        """
        with error_context(f"{installed.name} {installed.version}", "install the package once more"):
            grant = installed.read_grant()
        package = self.verify(mapped(installed.path), installed.path, grant)
        manifest = package.manifest
        if (manifest.name, manifest.version) != (installed.name, installed.version):
            raise MismatchError(f"{installed.path} holds {manifest.name} {manifest.version}")
        return package

    def install(self, file: BinaryIO, source: Path, state: State, grant: bytes | None = None) -> Manifest:
        """Accept a package: verified, above the floor, in date, for this board, loading, and answering its self-test.

        All of it is checked on a copy, which nobody but this board's user can change meanwhile. The copy becomes the
        installed file, and the floor is raised after that, so that a power cut between them leaves the new version or
        the old.

        :param file: the package, open for reading, from its beginning.
        :param source: its name, for errors.
        :param grant: this board's own, where the package itself is not sealed to it.
        :raises EdgedError: the first reason to refuse; nothing was changed then.
        """
        size = os.fstat(file.fileno()).st_size
        with error_context(source, _DAMAGED):
            wanted = signed_length(file.read(HEAD_LIMIT), self.publishers())
            if size != wanted:
                raise FormatError(f"it is {size} bytes long, and {wanted} were signed")
            file.seek(0)
            with self.packages.copied(file, size) as copy:
                return self._install(copy, state, grant)

    def _install(self, copy: Path, state: State, grant: bytes | None) -> Manifest:
        from edged.model.live import load  # noqa: PLC0415  as above

        package = Package.parse(mapped(copy), grant).verify(self.publishers())
        manifest, keystore = package.manifest, self.keystore()
        package.check_sizes()
        self.check_acceptable(package, state)
        package.check_step(state.floor(manifest.name), self._step(manifest.publisher))
        package.check_ciphertexts()
        agreement = self.keys.opener(package.recipients, keystore)
        threads, delegates = self.config.runtime.threads, self._delegates_of(manifest.name)
        load(package, agreement, self.engine(), threads, delegates).close()
        own = package.recipients.only(agreement.public.thumbprint)
        self.packages.add(manifest.name, manifest.version, copy, own.encode())
        self.packages.prune(manifest.name, spare=[good.version for good in state.good(manifest.name)])
        self.accept(package, state)
        log = self.audit(state, keystore)
        log.add("install", model=manifest.name, version=manifest.version, identity=package.identity.hex())
        return manifest

    def check_acceptable(self, package: VerifiedPackage, state: State) -> None:
        """Check all properties of a package that change with time: release, floor, and dates until it was accepted.

        :raises TrialError: it was rejected.
        :raises MismatchError: it needs a newer release.
        :raises RollbackError: a higher version was accepted before, or one with a ``minimum`` above.
        :raises ExpiredError: it has expired.
        :raises NotYetValidError: it was created in the future.
        """
        _check_not_rejected(package, state)
        floor = state.floor(package.manifest.name)
        package.check_release()
        package.check_floor(floor)
        package.check_minimum(self.lowest(package.manifest.name, state))
        if floor is None or floor.identity != package.identity:
            package.check_dates(self.clock(state))

    def lowest(self, name: str, state: State) -> int:
        """Return the lowest version of a model that may be served: by its accepted packages, and never lowered.

        A state that knows nothing of the model may be a new one in the place of a damaged one: installed packages tell.
        """
        kept = state.minimum(name)
        if kept is not None:
            return kept
        found = [1]
        for installed in self.packages.all():
            if installed.name == name:
                with suppress(EdgedError):
                    found.append(self.verify(mapped(installed.path), installed.path).manifest.minimum or 1)
        return max(found)

    def accept(self, accepted: VerifiedPackage | LiveModel, state: State) -> None:
        """Raise floor and minimum to those of an accepted version, durably."""
        manifest = accepted.manifest
        minimum = max(manifest.minimum or 1, self.lowest(manifest.name, state))
        state.accept(manifest.name, Floor(manifest.version, accepted.identity), manifest.created, minimum)

    def in_use(self, name: str, state: State) -> Installed | None:
        """Return the newest installed package of a model that was not rejected."""
        rejected = {one.version for one in state.rejected(name)}
        found = [one for one in self.packages.all() if one.name == name and one.version not in rejected]
        return found[-1] if found else None

    def before(self, installed: Installed, state: State) -> Installed | None:
        """Return the newest package below ``installed`` that got through its trial here."""
        lower = (good.version for good in state.good(installed.name) if good.version < installed.version)
        found = (self.packages.find(installed.name, version) for version in lower)
        return next(filter(None, found), None)

    def reject(self, installed: Installed, why: str, state: State) -> None:
        """Reject an installed version; a running daemon goes back to the one before it."""
        identity = self.verify_installed(installed).identity
        state.reject(installed.name, Floor(installed.version, identity), why)
        self.packages.touch()

    def load(
        self, installed: Installed, keystore: Keystore, state: State, engine: Engine, delegate: str | None = None
    ) -> LiveModel:
        """Load an installed package for use. The caller accepts it once it serves.

        :param delegate: one of ``[runtime.delegates]``.
        :raises TrialError: it was rejected.
        :raises EdgedError: why it cannot be used.
        """
        from edged.model.live import load  # noqa: PLC0415  as above

        package = self.verify_installed(installed)
        manifest = package.manifest
        _check_not_rejected(package, state)
        with error_context(installed.path, _DAMAGED):
            package.check_minimum(self.lowest(manifest.name, state))
            if Floor(manifest.version, package.identity) not in state.good(manifest.name):
                self.check_acceptable(package, state)
            return load(
                package,
                self.keys.opener(package.recipients, keystore),
                engine,
                self.config.runtime.threads,
                self._delegate_libraries(delegate),
            )

    def _delegates_of(self, name: str) -> list[DelegateLibrary]:
        """Return the accelerator that runs a model here, by the first table that names it."""
        return self._delegate_libraries(next((one.delegate for one in self.config.model if one.name == name), None))

    def _delegate_libraries(self, delegate: str | None) -> list[DelegateLibrary]:
        if delegate is None:
            return []
        from edged.model.runtime import DelegateLibrary  # noqa: PLC0415  as above

        table = self.config.runtime.delegates[delegate]
        return [DelegateLibrary(delegate, table.library, table.options)]


def _check_not_rejected(package: VerifiedPackage, state: State) -> None:
    manifest = package.manifest
    why = state.why_rejected(package.identity)
    if why is not None:
        raise TrialError(
            f"{manifest.name} {manifest.version} failed on this board before: {why}",
            hint="a higher version is taken as usual",
        )


def mapped(path: Path) -> memoryview:
    """Map a file of this board's own into memory; the map lasts as long as a view of it does.

    Not for a file that others may cut short, which would end this process (SIGBUS).

    :raises MissingFileError: it is absent, unreadable or empty.
    """
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    except ValueError:
        raise MissingFileError(f"{path} is empty", hint="copy it again") from None
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}") from error
