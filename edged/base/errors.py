"""The one tree of errors.

Foreign exceptions are wrapped where they enter, so that callers need ``except EdgedError`` and nothing else.
The class name is what counters, logs and test vectors call a failure. ``exit_code`` follows ``sysexits.h``.
A message starts in lower case, has no full stop, and names the file, key or field; the hint says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class EdgedError(Exception):
    """Root of all errors that edged raises on purpose.

    :param message: what is wrong, and with which file, key or field.
    :param hint: what the reader can do about it.
    """

    exit_code: ClassVar[int] = 70  # EX_SOFTWARE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@contextmanager
def error_context(source: object, hint: str | None = None) -> Iterator[None]:
    """Put ``source`` in front of what an error inside the block says.

    :param hint: for errors that bring none of their own.
    """
    try:
        yield
    except EdgedError as error:
        raise type(error)(f"{source}: {error.message}", hint=error.hint or hint) from error


# --- what a person wrote ---------------------------------------------------------------------


class UsageError(EdgedError):
    """The command line asks for something that cannot be done."""

    exit_code = 64  # EX_USAGE


class ConfigError(EdgedError):
    """A configuration file or manifest names an unknown key, lacks one, or holds a value that does not fit."""

    exit_code = 78  # EX_CONFIG


class MissingFileError(EdgedError):
    """A file that was named does not exist or cannot be read."""

    exit_code = 66  # EX_NOINPUT


class OutputError(EdgedError):
    """A file cannot be written, or exists already and must not be overwritten."""

    exit_code = 73  # EX_CANTCREAT


# --- bytes that are not what they should be --------------------------------------------------


class FormatError(EdgedError):
    """Bytes break the format: not strict CBOR, not the COSE object expected, or beyond a limit."""

    exit_code = 65  # EX_DATAERR


# --- trust: each class is one reason to refuse -----------------------------------------------


class TrustError(EdgedError):
    """Well-formed, but not to be believed. Each subclass is one reason."""

    exit_code = 77  # EX_NOPERM


class SignatureError(TrustError):
    """A signature does not hold."""


class UnknownSignerError(TrustError):
    """Signed by a key that nothing here pins."""


class NotAllowedError(TrustError):
    """The signer is known, but may not sign this."""


class NotARecipientError(TrustError):
    """Sealed to others; this key is not among the recipients."""


class DecryptionError(TrustError):
    """The AEAD tag or the key wrap does not hold, for the key, IV and context at hand."""


class MismatchError(TrustError):
    """Two things that must agree do not: a digest, a size, a commitment, an algorithm."""


class RollbackError(TrustError):
    """A version at or below the highest one that was ever accepted."""


class FastForwardError(TrustError):
    """A version so far above the last one that hardly any would be left to come."""


class ExpiredError(TrustError):
    """Past its ``expires``."""


class NotYetValidError(TrustError):
    """Its ``created`` lies ahead of a clock that is synchronised."""


class ReplayError(TrustError):
    """A message that was accepted before, or that is older than one that was."""


class RepeatedError(ReplayError):
    """A result whose readings were answered before: no attack, but a board that died before it heard of its success."""


class UnknownKeyError(TrustError):
    """Sealed under a key id that is not known here (yet)."""


class DuplicateDeviceError(TrustError):
    """A second board speaks with this board's identity."""


# --- keys and state on this machine ----------------------------------------------------------


class KeystoreError(EdgedError):
    """A key cannot be used: absent, unreadable, or the passphrase or credential does not open it."""

    exit_code = 66  # EX_NOINPUT


class PermissionsError(KeystoreError):
    """A key file or directory is open to others than its owner."""

    exit_code = 77  # EX_NOPERM


class StateError(EdgedError):
    """The state directory or ``state.db`` cannot be used."""

    exit_code = 74  # EX_IOERR


class StateDamagedError(StateError):
    """The content of ``state.db`` is damaged."""


class StateLayoutError(StateError):
    """A newer release wrote ``state.db``."""


class StateLockedError(StateError):
    """Another daemon already runs on this state."""

    exit_code = 75  # EX_TEMPFAIL


class MachineError(EdgedError):
    """This machine lacks what edged needs: a clock that is set, randomness, room on its disk."""

    exit_code = 71  # EX_OSERR


# --- models ----------------------------------------------------------------------------------


class ModelError(EdgedError):
    """The runtime refuses the model, or the model does not fit its manifest."""

    exit_code = 65  # EX_DATAERR


class SelfTestError(ModelError):
    """The model runs, and answers its own test vectors differently from what was signed."""


class TrialError(ModelError):
    """A new version went wrong in its first windows."""


# --- readings: counted by class name, logged once per kind and minute, never fatal -----------


class ReadingError(EdgedError):
    """A reading that cannot be used."""

    exit_code = 65  # EX_DATAERR


class ReadingFormatError(ReadingError):
    """Not the format that the configuration states."""


class ReadingShapeError(ReadingError):
    """Too few or too many values."""


class ReadingValueError(ReadingError):
    """A value is missing, not finite, or outside the manifest's range."""


class ReadingSizeError(ReadingError):
    """Larger than the configured limit."""


class ReadingSourceError(ReadingError):
    """The source of a reading, which `+` stands for in its topic, is too long for a result, or empty."""


class ReadingOrderError(ReadingError):
    """Older than the reading before it."""


class ReadingGapError(ReadingError):
    """A pause, or too few rows, left a window that was being filled without what it needs."""


class RetainedError(ReadingError):
    """A retained message: its broker kept it, nobody knows for how long."""


class RateError(ReadingError):
    """More readings came on a topic than its limit."""


class OverloadError(ReadingError):
    """A window gave way to a newer one: the model is slower than its windows come."""


# --- the broker ------------------------------------------------------------------------------


class BrokerError(EdgedError):
    """The broker cannot be reached, or refuses."""

    exit_code = 69  # EX_UNAVAILABLE


class RefusedError(BrokerError):
    """The broker is there, and refuses a subscription or a message."""


class TakeoverError(BrokerError):
    """Another client takes this one's connections over, and gets them taken in turn."""
