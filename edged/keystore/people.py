"""Private keys of people and hubs: on a token, or PKCS#8 PEM in one file, the signing key first, under a passphrase."""

from __future__ import annotations

from pathlib import Path

from edged.base.errors import ConfigError, KeystoreError
from edged.base.files import PRIVATE_FILE, read_private, write_atomically
from edged.formats.cose.keys import Agreement, Keys, Signer
from edged.formats.cose.pem import is_outdated, read_keys, write_keys
from edged.keystore import exercise
from edged.keystore.token_uri import TokenUri

_LIMIT = 16 * 1024


class PersonalKeys(Keys, frozen=True):
    """Keys that are in a file or on a token."""

    @classmethod
    def make_file(cls, path: Path, passphrase: bytes | None, *, agreement: bool) -> PersonalKeys:
        """Make new keys, and write them to a new file, mode 0600.

        :raises OutputError: there is one already.
        """
        keys = Keys.generate(agreement=agreement)
        write_atomically(path, [write_keys(keys, passphrase)], mode=PRIVATE_FILE, replace=False)
        return cls(keys.signer, keys.agreement)

    @classmethod
    def make_on_token(cls, uri: TokenUri, pin: bytes | None, *, agreement: bool) -> PersonalKeys:
        """Make new keys on a token, and try what they are for.

        :raises OutputError: there are keys of these labels already.
        :raises KeystoreError: the token refuses, or cannot do what edged needs; no keys stay on it then.
        """
        from edged.keystore.pkcs11 import make_keys  # noqa: PLC0415  an extra
        from edged.keystore.token import Token  # noqa: PLC0415  as above

        made = make_keys(Token.of(uri, pin), uri, "sign", *(("ecdh",) if agreement else ()))
        keys = cls(made[0], made[1] if agreement else None)
        try:
            exercise(keys.signer, keys.agreement)
        except KeystoreError:
            for key in made:
                key.destroy()
            raise
        return keys

    @classmethod
    def on_token(cls, uri: TokenUri, pin: bytes | None) -> PersonalKeys:
        """Find keys that :meth:`make_on_token` made.

        :raises KeystoreError: module, token, PIN or keys are absent or wrong.
        """
        from edged.keystore.pkcs11 import find_key, holds_key  # noqa: PLC0415  an extra
        from edged.keystore.token import Token  # noqa: PLC0415  as above

        if uri.object is None:
            raise ConfigError(f"{uri.text!r} names no key", hint="add ;object=NAME, as `edged keygen` printed it")
        token = Token.of(uri, pin)
        agreement = find_key(token, uri, "ecdh") if holds_key(token, uri, "ecdh") else None
        return cls(find_key(token, uri, "sign"), agreement)

    @classmethod
    def read(cls, path: Path, passphrase: bytes | None) -> PersonalKeys:
        """Read a file that :meth:`make_file` wrote.

        :raises KeystoreError: it holds no such keys, or the passphrase does not open them.
        :raises PermissionsError: others may read it.
        """
        pem = read_private(path, _LIMIT)
        try:
            keys = read_keys(pem, passphrase)
        except KeystoreError as error:
            raise KeystoreError(f"{path}: {error.message}", hint="is the passphrase right?") from error
        return cls(keys.signer, keys.agreement)

    @staticmethod
    def renew(path: Path, passphrase: bytes) -> bool:
        """Write a file anew whose passphrase costs a guesser less than :func:`write_pem` makes it; return True then.

        :raises KeystoreError: the passphrase does not open it.
        :raises OutputError: it cannot be written.
        """
        pem = read_private(path, _LIMIT)
        if not is_outdated(pem):
            return False
        renewed = write_keys(read_keys(pem, passphrase), passphrase)
        write_atomically(path.resolve(), [renewed], mode=PRIVATE_FILE, replace=True)
        return True

    @staticmethod
    def is_encrypted(path: Path) -> bool:
        """Return whether a passphrase is needed to read the file."""
        return b"ENCRYPTED PRIVATE KEY" in read_private(path, _LIMIT)

    def need_publisher(self, path: Path) -> Signer:
        """Return :attr:`signer` if it signs models.

        :raises KeystoreError: the file holds an operator's or hub's keys: boards believe no model that those sign.
        """
        if self.agreement is not None:
            raise KeystoreError(
                f"{path} holds an operator's or a hub's keys, which sign no models", hint="name the publisher's key"
            )
        return self.signer

    def need_agreement(self, path: Path) -> Agreement:
        """Return :attr:`agreement`.

        :raises KeystoreError: the file holds a publisher's key, to which nothing is sealed.
        """
        if self.agreement is None:
            raise KeystoreError(
                f"{path} holds a publisher's key, which opens nothing", hint="name the hub's or operator's key"
            )
        return self.agreement
