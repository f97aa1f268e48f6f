"""A TPM 2.0, opened for one operation at a time.

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
from dataclasses import dataclass
from typing import TypeVar

from edged.base.errors import ConfigError, KeystoreError

os.environ.setdefault("TSS2_LOG", "all+NONE")  # it writes to stderr by itself what its exceptions say again
try:
    import tpm2_pytss as tss
    from tpm2_pytss.tsskey import TSSPrivKey
except (ImportError, OSError) as error:
    raise ConfigError(
        f"keys in a TPM need tpm2-pytss: {error}", hint="apt install libtss2-dev; pip install 'edged[tpm2]'"
    ) from error

__all__ = ["FIXED", "OpenedTpm", "TSSPrivKey", "Tpm", "tss"]

_ATTRIBUTES = tss.TPMA_OBJECT
FIXED = _ATTRIBUTES.FIXEDTPM | _ATTRIBUTES.FIXEDPARENT | _ATTRIBUTES.SENSITIVEDATAORIGIN
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


@dataclass(frozen=True)
class Tpm:
    """How one TPM is reached, and the PIN of the keys."""

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
        """Return a handle of the storage key: a persistent one, or made anew from the owner's seed, always the same."""
        if parent != tss.TPM2_RH.OWNER:
            handle: int = self.esapi.tr_from_tpmpublic(parent)
            return handle
        use = FIXED | _ATTRIBUTES.USERWITHAUTH | _ATTRIBUTES.NODA | _ATTRIBUTES.RESTRICTED | _ATTRIBUTES.DECRYPT
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
