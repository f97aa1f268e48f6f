"""A PKCS#11 token, logged in to: the only importer of python-pkcs11.

A login belongs to the process, not to a session, and closing a session that logged in logs all others out. So each
token has one session that is logged in, which all keys of the process share, one operation at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from edged.base.errors import ConfigError, KeystoreError
from edged.base.nothing import nothing
from edged.keystore.token_uri import TokenUri

try:
    import pkcs11
    from pkcs11 import exceptions as failures
except ImportError as error:
    raise ConfigError("keys on tokens need python-pkcs11", hint="pip install 'edged[pkcs11]'") from error

__all__ = ["Token", "pkcs11"]

_Result = TypeVar("_Result")

_GONE = (
    failures.DeviceError,
    failures.DeviceRemoved,
    failures.KeyHandleInvalid,
    failures.ObjectHandleInvalid,
    failures.SessionClosed,
    failures.SessionHandleInvalid,
    failures.TokenNotPresent,
    failures.UserNotLoggedIn,
)
"""Errors of a token that was pulled out and put in again, or whose service was restarted."""

_PIN = "keystore.pin on a board, else --passphrase-file, names the file or credential that holds it"
_REASONS = {
    failures.PinIncorrect: ("the PIN is wrong", "tokens lock after some wrong ones: correct it before you try again"),
    failures.PinLenRange: ("the PIN has a length that the token does not take", _PIN),
    failures.PinLocked: ("the PIN is locked after wrong ones", "unlock the token with its own tool"),
    failures.UserPinNotInitialized: ("no PIN was ever set", "initialise the token with its own tool"),
    failures.TokenWriteProtected: ("the token cannot be written to", None),
    failures.MechanismInvalid: ("the token cannot do this on P-256", "edged needs ECDSA and ECDH1 derive"),
}


class Token:
    """One token of this process; :meth:`of` returns it.

    :ivar found: as its module describes it.
    """

    _known: dict[tuple[str, str, bytes], Token] = {}  # noqa: RUF012  one of a kind, on purpose
    _lock = threading.RLock()

    def __init__(self, uri: TokenUri, found: pkcs11.Token, pin: str | None) -> None:
        self._uri = uri
        self.found = found
        self.pin = pin
        self._session: pkcs11.Session | None = None

    @classmethod
    def of(cls, uri: TokenUri, pin: bytes | None) -> Token:
        """Return the token that ``uri`` names, logged in.

        :raises KeystoreError: module, token or PIN is absent or wrong.
        """
        with cls._lock:
            found = _find(uri)
            key = (uri.module, found.label, found.serial)
            text = None if pin is None else _text(pin)
            token = cls._known.get(key)
            if token is None or token.pin != text:
                if token is not None:
                    token.close()
                token = cls._known[key] = cls(uri, found, text)
            token.use(nothing)
            return token

    @property
    def name(self) -> str:
        """The token's name in messages."""
        return f"token {self.found.label!r}"

    def use(self, operate: Callable[[pkcs11.Session], _Result]) -> _Result:
        """Return what ``operate`` returns; it is called again, in a new session, if the token went away meanwhile.

        :raises KeystoreError: the token refuses.
        """
        with self._lock, self._naming():
            try:
                return operate(self._opened())
            except _GONE:
                self.close()
                return operate(self._opened())

    def write(self, operate: Callable[[pkcs11.Session], _Result]) -> _Result:
        """As :meth:`use`, in a session that may change what the token holds; it is called once.

        :raises KeystoreError: the token refuses.
        """
        with self._lock, self._naming():
            self._opened()
            with self.found.open(rw=True) as session:  # logs nobody in, and so nobody out
                return operate(session)

    def _opened(self) -> pkcs11.Session:
        if self._session is None:
            if self.pin is None and self.found.flags & pkcs11.TokenFlag.LOGIN_REQUIRED:
                raise KeystoreError(f"{self.name} wants a PIN", hint=_PIN)
            self.found = _find(self._uri)
            self._session = self.found.open(user_pin=self.pin)
        return self._session

    def close(self) -> None:
        """Log out; the next operation logs in again."""
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except failures.PKCS11Error:  # it was gone before
                return

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except failures.PKCS11Error as error:
            what, hint = _REASONS.get(type(error), (_describe(error), None))
            raise KeystoreError(f"{self.name}: {what}", hint=hint) from error


def _find(uri: TokenUri) -> pkcs11.Token:
    try:
        slots = pkcs11.lib(uri.module).get_slots(token_present=True)
        present = [slot.get_token() for slot in slots]
        present = [token for token in present if pkcs11.TokenFlag.TOKEN_INITIALIZED in token.flags]
    except failures.PKCS11Error as error:
        raise KeystoreError(
            f"the PKCS#11 module {uri.module} cannot be used: {_describe(error)}",
            hint="name your token's module in the URI: ?module-path=/usr/lib/.../module.so",
        ) from error
    found = [token for token in present if all(_said(token)[name] == value for name, value in uri.wanted.items())]
    wanted = ";".join(f"{name}={value}" for name, value in uri.wanted.items())
    if not found:
        labels = ", ".join(repr(token.label) for token in present if token.label)
        raise KeystoreError(
            f"there is no token {wanted} behind {uri.module}",
            hint=f"there are {labels}" if labels else "is it plugged in, and may this user reach it?",
        )
    if len(found) > 1:
        serials = ", ".join(_said(token)["serial"] for token in found)
        raise KeystoreError(f"{len(found)} tokens are {wanted}", hint=f"add ;serial=: {serials}")
    return found[0]


def _said(token: pkcs11.Token) -> dict[str, str]:
    return {
        "token": token.label,
        "manufacturer": token.manufacturer_id,
        "serial": token.serial.decode("utf-8", "replace"),
        "model": token.model,
    }


def _text(pin: bytes) -> str:
    try:
        return pin.decode()
    except UnicodeDecodeError:
        raise KeystoreError("the PIN is not UTF-8 text") from None


def _describe(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()
