"""``tpm2:``: keys that a TPM 2.0 made, which open in that TPM alone.

Each key is a file: the private half encrypted by the TPM under its storage key, in the form that OpenSSL's TPM 2.0
provider reads too (``TSS2 PRIVATE KEY``).

Nothing stays in the TPM between two operations: each one opens it, loads what it needs and flushes it, so that several
processes get along even without a resource manager. What goes to the TPM and comes back is encrypted by a session
salted to the storage key, so that nobody who listens on the bus between TPM and CPU learns a PIN or a shared secret.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import unquote

import msgspec

from edged.base.errors import ConfigError, KeystoreError, OutputError
from edged.base.files import PRIVATE_FILE, check_private, erase, make_private_directory, read_private, write_atomically
from edged.formats.cose.keys import PublicKey
from edged.keystore import PIN, SHARED_SECRET, Protection, coordinate

os.environ.setdefault("TSS2_LOG", "all+NONE")  # it writes to stderr by itself what its exceptions say again
try:
    import tpm2_pytss as tss
    from tpm2_pytss.tsskey import TSSPrivKey
except (ImportError, OSError) as error:
    raise ConfigError(
        f"keys in a TPM need tpm2-pytss: {error}", hint="apt install libtss2-dev; pip install 'edged[tpm2]'"
    ) from error

Purpose = Literal["sign", "ecdh"]

_TCTI = "device:/dev/tpmrm0"
_STORAGE_KEY = 0x81000001
"""Handle of the storage key in a TPM that was provisioned (TCG TPM v2.0 Provisioning Guidance, section 7.8)."""

_LIMIT = 8192
_ATTRIBUTES = tss.TPMA_OBJECT
_USES = {
    "sign": ("ecc256:ecdsa-sha256:null", _ATTRIBUTES.SIGN_ENCRYPT),
    "ecdh": ("ecc256", _ATTRIBUTES.DECRYPT),
}
_FIXED = _ATTRIBUTES.FIXEDTPM | _ATTRIBUTES.FIXEDPARENT | _ATTRIBUTES.SENSITIVEDATAORIGIN
_REASONS = {
    int(tss.TPM2_RC.AUTH_FAIL): ("the PIN is wrong", "correct it first: a TPM locks itself after some wrong ones"),
    int(tss.TPM2_RC.BAD_AUTH): ("the PIN is wrong", "or its owner password is set: make its storage key persistent"),
    int(tss.TPM2_RC.LOCKOUT): ("it is locked after wrong PINs", "it opens by itself after a while"),
    int(tss.TPM2_RC.INTEGRITY): ("the key file is another TPM's, or this one was cleared since", None),
}
_FULL = {int(tss.TPM2_RC.OBJECT_MEMORY), int(tss.TPM2_RC.SESSION_MEMORY), int(tss.TPM2_RC.OBJECT_HANDLES)}
_PATIENCE, _PAUSE = 5.0, 0.05
"""Seconds that others may fill a TPM without a resource manager, and between two looks whether they still do."""

_TURN = threading.Lock()
_Result = TypeVar("_Result")


class Tpm(msgspec.Struct, frozen=True):
    """The address of one TPM, and the PIN of the keys."""

    tcti: str
    pin: bytes | None

    def use(self, operate: Callable[[OpenedTpm], _Result]) -> _Result:
        """Return what ``operate`` makes of the TPM while it is open; all that it loaded is flushed then.

        :raises KeystoreError: the TPM cannot be reached, or refuses.
        """
        with _TURN:
            until = time.monotonic() + _PATIENCE
            while True:
                try:
                    return self._use_once(operate)
                except tss.TSS2_Exception as error:
                    code = int(error.error) & 0xFFFF  # without the layer that passed it on
                    if code not in _FULL or time.monotonic() > until:
                        what, hint = _REASONS.get(code, (str(error), None))
                        raise KeystoreError(f"the TPM at {self.tcti}: {what}", hint=hint) from error
                time.sleep(_PAUSE)

    def _use_once(self, operate: Callable[[OpenedTpm], _Result]) -> _Result:
        with ExitStack() as stack:
            try:
                esapi = stack.enter_context(tss.ESAPI(self.tcti))
            except tss.TSS2_Exception as error:
                raise KeystoreError(
                    f"the TPM at {self.tcti} cannot be reached: {error}",
                    hint="is there one, and may this user open it? adduser edged tss",
                ) from error
            return operate(OpenedTpm(esapi, stack))


class OpenedTpm:
    """A TPM while it is open."""

    def __init__(self, esapi: tss.ESAPI, stack: ExitStack) -> None:
        self.esapi = esapi
        self._stack = stack

    def storage_key(self, parent: int) -> int:
        """Return a handle of the storage key: a persistent one, or the one that the owner's seed gives."""
        if parent != tss.TPM2_RH.OWNER:
            handle: int = self.esapi.tr_from_tpmpublic(parent)
            return handle
        use = _FIXED | _ATTRIBUTES.USERWITHAUTH | _ATTRIBUTES.NODA | _ATTRIBUTES.RESTRICTED | _ATTRIBUTES.DECRYPT
        template = tss.TPM2B_PUBLIC.parse("ecc256:aes128cfb", objectAttributes=use)
        return self._flushed(self.esapi.create_primary(tss.TPM2B_SENSITIVE_CREATE(), template)[0])

    def load(self, key: TSSPrivKey, pin: bytes | None) -> tuple[int, int]:
        """Return a handle of ``key``, and of its storage key."""
        parent = self.storage_key(key.parent)
        handle = self._flushed(self.esapi.load(parent, key.private, key.public))
        if not key.empty_auth:
            self.esapi.tr_set_auth(handle, pin)
        return handle, parent

    def session(self, parent: int, *, answers: bool = True) -> int:
        """Return a session that encrypts the first parameter of a command and, if ``answers``, that of its answer."""
        symmetric = tss.TPMT_SYM_DEF.parse("aes128cfb")
        none = tss.ESYS_TR.NONE
        session: int = self.esapi.start_auth_session(parent, none, tss.TPM2_SE.HMAC, symmetric, tss.TPM2_ALG.SHA256)
        uses = tss.TPMA_SESSION
        self.esapi.trsess_set_attributes(
            self._flushed(session), uses.CONTINUESESSION | uses.DECRYPT | (uses.ENCRYPT if answers else 0)
        )
        return session

    def _flushed(self, handle: int) -> int:
        self._stack.callback(self.esapi.flush_context, handle)
        return handle


class TpmUri(NamedTuple):
    """``tpm2:[DIRECTORY][?tcti=NAME:OPTIONS]``.

    :ivar directory: where the key files are; None for the board's own.
    :ivar tcti: how the TPM is reached, as tpm2-tools name it.
    """

    directory: Path | None
    tcti: str

    @classmethod
    def parse(cls, text: str) -> TpmUri:
        """Take a URI.

        :raises ConfigError: it has more than a directory and a TCTI.
        """
        path, _, query = text.partition(":")[2].partition("?")
        name, _, tcti = query.partition("=")
        if query and (name != "tcti" or not tcti or "&" in tcti):
            raise ConfigError(f"keystore.uri: {text!r} has more than a TCTI", hint='"tpm2:?tcti=device:/dev/tpmrm0"')
        return cls(Path(unquote(path)) if path else None, unquote(tcti) or _TCTI)


class TpmKey:
    """One private key of a TPM: a :class:`Signer` or an :class:`Agreement`, as it was made.

    :raises KeystoreError: it is no P-256 key.
    """

    def __init__(self, tpm: Tpm, key: TSSPrivKey) -> None:
        self._tpm = tpm
        self._key = key
        area = key.public.publicArea
        if area.type != tss.TPM2_ALG.ECC or area.parameters.eccDetail.curveID != tss.TPM2_ECC_CURVE.NIST_P256:
            raise KeystoreError("the TPM's key is not on P-256")
        point = area.unique.ecc
        self.public = PublicKey(coordinate(bytes(point.x)), coordinate(bytes(point.y)))

    def sign(self, digest: bytes) -> bytes:
        """As :meth:`Signer.sign`."""
        scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.ECDSA)
        scheme.details.ecdsa.hashAlg = tss.TPM2_ALG.SHA256

        def sign(tpm: OpenedTpm) -> bytes:
            handle, parent = tpm.load(self._key, self._tpm.pin)
            session = tpm.session(parent, answers=False)  # a signature is no secret, and no parameter that encrypts
            signed = tpm.esapi.sign(handle, digest, scheme, session1=session)  # kept: its parts do not keep it
            pair = signed.signature.ecdsa
            return coordinate(bytes(pair.signatureR)) + coordinate(bytes(pair.signatureS))

        return self._tpm.use(sign)

    def ecdh(self, peer: PublicKey) -> bytes:
        """As :meth:`Agreement.ecdh`; the point was checked in software when ``peer`` was made."""
        point = tss.TPM2B_ECC_POINT(tss.TPMS_ECC_POINT(x=peer.x, y=peer.y))

        def agree(tpm: OpenedTpm) -> bytes:
            handle, parent = tpm.load(self._key, self._tpm.pin)
            shared = tpm.esapi.ecdh_zgen(handle, point, session1=tpm.session(parent))
            return coordinate(bytes(shared.point.x))

        return self._tpm.use(agree)

    def check(self) -> None:
        """Check that this TPM takes the key.

        :raises KeystoreError: it does not.
        """
        self._tpm.use(lambda tpm: tpm.load(self._key, self._tpm.pin))

    def guard(self, purpose: Purpose) -> str:
        """Return what the TPM vouches for of the key."""
        attributes = self._key.public.publicArea.objectAttributes
        origin = "made in the TPM" if attributes & _ATTRIBUTES.SENSITIVEDATAORIGIN else "imported: it was elsewhere"
        leaves = "cannot leave it" if attributes & _ATTRIBUTES.FIXEDTPM else "CAN BE MOVED to another"
        return f"{purpose} key: {origin}, {leaves}"


class TpmKeystore(msgspec.Struct, frozen=True):
    """A board's keys in its TPM, with their files in ``directory``."""

    directory: Path
    tpm: Tpm
    signer: TpmKey
    agreement: TpmKey

    @classmethod
    def create(cls, uri: str, default: Path, _wrapping: bytes | None, pin: bytes | None) -> TpmKeystore:
        """Make both keys, and their files below the URI's directory or ``default``.

        :raises OutputError: a key stands there already.
        """
        where = TpmUri.parse(uri)
        directory = make_private_directory(where.directory or default)
        for purpose in _USES:
            if _file(directory, purpose).exists():
                raise OutputError(f"{_file(directory, purpose)} exists already", hint='"tpm2:/another/directory"')
        tpm = Tpm(where.tcti, pin)
        keys = tpm.use(lambda opened: {purpose: _make(opened, purpose, pin) for purpose in _USES})
        for purpose, key in keys.items():
            write_atomically(_file(directory, purpose), [key.to_pem()], mode=PRIVATE_FILE, replace=False)
        return cls(directory, tpm, TpmKey(tpm, keys["sign"]), TpmKey(tpm, keys["ecdh"]))

    @classmethod
    def open(cls, uri: str, default: Path, _wrapping: bytes | None, pin: bytes | None) -> TpmKeystore:
        """Read both key files, and check that this TPM takes them.

        :raises KeystoreError: they are absent, or another TPM's.
        :raises PermissionsError: others may read them.
        """
        where = TpmUri.parse(uri)
        directory = where.directory or default
        if not _file(directory, "sign").exists():
            raise KeystoreError(f"there are no TPM keys at {directory}", hint="`edged init` makes this board's keys")
        check_private(directory)
        tpm = Tpm(where.tcti, pin)
        keystore = cls(directory, tpm, *(TpmKey(tpm, _read(_file(directory, purpose))) for purpose in _USES))
        keystore.signer.check()
        keystore.agreement.check()
        return keystore

    def protection(self) -> Protection:
        """Return what guards the keys, as the TPM says."""
        said = self.tpm.use(_read_properties)
        maker, *vendor = (
            said.get(int(key), 0).to_bytes(4, "big").strip(b"\0 ").decode("ascii", "replace") for key in _SAID
        )
        emulated = vendor[0] == _EMULATOR
        return Protection(
            store=f"TPM 2.0 by {maker} ({' '.join(filter(None, vendor))}) at {self.tpm.tcti}",
            hardware=not emulated,
            protected=(
                self.signer.guard("sign"),
                self.agreement.guard("ecdh"),
                "their files open in this TPM alone; what goes to it and comes back is encrypted",
            ),
            ram=(*(("both private keys, where the TPM's emulator runs",) if emulated else ()), SHARED_SECRET)
            + (() if self.tpm.pin is None else (PIN,)),
        )

    def destroy(self) -> None:
        """Overwrite and remove both key files: without them the keys are nowhere."""
        for purpose in _USES:
            erase(_file(self.directory, purpose))


_SAID = (
    tss.TPM2_PT.MANUFACTURER,
    tss.TPM2_PT_VENDOR.STRING_1,
    tss.TPM2_PT_VENDOR.STRING_2,
    tss.TPM2_PT_VENDOR.STRING_3,
    tss.TPM2_PT_VENDOR.STRING_4,
)
_EMULATOR = "SW"
"""The first word of libtpms' vendor string: the TPM of a virtual machine, or swtpm."""


def _read_properties(tpm: OpenedTpm) -> dict[int, int]:
    found = tpm.esapi.get_capability(tss.TPM2_CAP.TPM_PROPERTIES, tss.TPM2_PT.FIXED, 40)[1]
    return {int(one.property): int(one.value) for one in found.data.tpmProperties}


def _file(directory: Path, purpose: str) -> Path:
    return directory / f"{purpose}.tpm"


def _make(tpm: OpenedTpm, purpose: str, pin: bytes | None) -> TSSPrivKey:
    kind, use = _USES[purpose]
    guessed = _ATTRIBUTES.NODA if pin is None else 0  # only where a PIN can be guessed, wrong ones count
    template = tss.TPM2B_PUBLIC.parse(kind, objectAttributes=_FIXED | _ATTRIBUTES.USERWITHAUTH | use | guessed)
    secret = tss.TPM2B_SENSITIVE_CREATE(tss.TPMS_SENSITIVE_CREATE(userAuth=pin or b""))
    found = tpm.esapi.get_capability(tss.TPM2_CAP.HANDLES, _STORAGE_KEY, 1)[1]
    handles = found.data.handles
    parent = _STORAGE_KEY if handles.count and handles[0] == _STORAGE_KEY else tss.TPM2_RH.OWNER
    handle = tpm.storage_key(parent)
    private, public, *_ = tpm.esapi.create(handle, secret, template, session1=tpm.session(handle))
    return TSSPrivKey(private, public, pin is None, parent)


def _read(path: Path) -> TSSPrivKey:
    try:
        return TSSPrivKey.from_pem(read_private(path, _LIMIT))
    except (ValueError, TypeError, tss.TSS2_Exception) as error:
        raise KeystoreError(f"{path} is no TPM key: {error}", hint="restore a copy of it") from error
