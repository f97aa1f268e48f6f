"""``pkcs11:``: keys that were made on a token and cannot leave it (a smart card, an HSM, OP-TEE, SoftHSM).

Keys are found by their labels, ``LABEL-sign`` and ``LABEL-ecdh``. The shared secret of an agreement is a key object of
the session, which the token hands out: it is in this process's memory from there on, as it is with every key store.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from edged.base.errors import FormatError, KeystoreError, OutputError
from edged.formats.cose.keys import PublicKey
from edged.keystore import PIN, SHARED_SECRET, Protection, coordinate
from edged.keystore.token import Token, pkcs11
from edged.keystore.token_uri import TokenUri

Purpose = Literal["sign", "ecdh"]

LABEL = "edged"
"""Begins the labels of a board's keys where the URI names no object."""

_P256 = bytes.fromhex("06082a8648ce3d030107")  # OBJECT IDENTIFIER prime256v1, as CKA_EC_PARAMS holds it
_POINT = 65  # 04 || x || y
_ALLOWS = {"sign": pkcs11.Attribute.SIGN, "ecdh": pkcs11.Attribute.DERIVE}
_MAY = {"sign": pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY, "ecdh": pkcs11.MechanismFlag.DERIVE}
_CLOSED = {pkcs11.Attribute.PRIVATE: True, pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False}
_SECRET = {pkcs11.Attribute.SENSITIVE: False, pkcs11.Attribute.EXTRACTABLE: True}


class TokenKey:
    """One private key on a token: a :class:`Signer` or an :class:`Agreement`, as it was made.

    :raises KeystoreError: there is no such key, it lies on another curve, or it may not do this.
    """

    def __init__(self, token: Token, label: str, purpose: Purpose) -> None:
        self._token = token
        self.label = label
        self._purpose = purpose
        self._held: pkcs11.PrivateKey | None = None
        self.public = token.use(self._read_public)

    def sign(self, digest: bytes) -> bytes:
        """As :meth:`Signer.sign`."""

        def sign(session: pkcs11.Session) -> bytes:
            return bytes(cast("pkcs11.SignMixin", self._key(session)).sign(digest, mechanism=pkcs11.Mechanism.ECDSA))

        signature = self._token.use(sign)
        return coordinate(signature[: len(signature) // 2]) + coordinate(signature[len(signature) // 2 :])

    def ecdh(self, peer: PublicKey) -> bytes:
        """As :meth:`Agreement.ecdh`; the point was checked in software when ``peer`` was made."""
        point = b"\x04" + peer.x + peer.y

        def derive(session: pkcs11.Session) -> bytes:
            secret = cast("pkcs11.DeriveMixin", self._key(session)).derive_key(
                pkcs11.KeyType.GENERIC_SECRET,
                256,
                capabilities=pkcs11.MechanismFlag(0),
                mechanism=pkcs11.Mechanism.ECDH1_DERIVE,
                mechanism_param=(pkcs11.KDF.NULL, None, point),
                template=_SECRET,
            )
            try:
                return bytes(secret[pkcs11.Attribute.VALUE])
            finally:
                secret.destroy()

        return coordinate(self._token.use(derive))

    def guard(self) -> str:
        """Return what the token says of where the key came from and whether it can leave."""

        def read(session: pkcs11.Session) -> tuple[bool, bool, bool]:
            key = self._key(session)
            return (
                bool(key[pkcs11.Attribute.LOCAL]),
                bool(key[pkcs11.Attribute.NEVER_EXTRACTABLE]),
                bool(key[pkcs11.Attribute.SENSITIVE]) and not key[pkcs11.Attribute.EXTRACTABLE],
            )

        made_there, never, closed = self._token.use(read)
        origin = "made on the token" if made_there else "imported: it was elsewhere before"
        leaves = "never could leave it" if never else "cannot leave it now" if closed else "CAN BE EXPORTED"
        return f"{self._purpose} key: {origin}, {leaves}"

    def destroy(self) -> None:
        """Remove both halves from the token."""
        _destroy(self._token, self.label)

    def _key(self, session: pkcs11.Session) -> pkcs11.PrivateKey:
        if self._held is None or self._held.session is not session:
            self._held = self._find(session)
        return self._held

    def _find(self, session: pkcs11.Session) -> pkcs11.PrivateKey:
        found = self._objects(session, pkcs11.ObjectClass.PRIVATE_KEY)
        if len(found) != 1:
            raise KeystoreError(
                f"{self._token.name} holds {len(found) or 'no'} private keys labelled {self.label!r}",
                hint="is the object in the URI right? `edged init` and `edged keygen --keystore` make keys",
            )
        key: pkcs11.PrivateKey = found[0]
        if key[pkcs11.Attribute.KEY_TYPE] is not pkcs11.KeyType.EC or key[pkcs11.Attribute.EC_PARAMS] != _P256:
            raise KeystoreError(f"{self._token.name}: key {self.label!r} is not on P-256")
        if not key[_ALLOWS[self._purpose]]:
            raise KeystoreError(f"{self._token.name}: key {self.label!r} may not be used for {self._purpose}")
        return key

    def _read_public(self, session: pkcs11.Session) -> PublicKey:
        self._key(session)
        found = self._objects(session, pkcs11.ObjectClass.PUBLIC_KEY)
        if len(found) != 1:
            raise KeystoreError(f"{self._token.name} holds {len(found) or 'no'} public keys labelled {self.label!r}")
        if found[0][pkcs11.Attribute.EC_PARAMS] != _P256:
            raise KeystoreError(f"{self._token.name}: public key {self.label!r} is not on P-256")
        point = bytes(found[0][pkcs11.Attribute.EC_POINT])[-_POINT:]  # in a DER OCTET STRING, or bare
        if len(point) != _POINT or point[0] != 4:  # noqa: PLR2004  uncompressed
            raise KeystoreError(f"{self._token.name}: public key {self.label!r} is no uncompressed point")
        try:
            return PublicKey(point[1:33], point[33:])
        except FormatError as error:
            raise KeystoreError(f"{self._token.name}: public key {self.label!r}: {error.message}") from error

    def _objects(self, session: pkcs11.Session, kind: pkcs11.ObjectClass) -> list[Any]:
        return list(session.get_objects({pkcs11.Attribute.CLASS: kind, pkcs11.Attribute.LABEL: self.label}))


class TokenKeystore(msgspec.Struct, frozen=True):
    """A board's keys on a token."""

    token: Token
    signer: TokenKey
    agreement: TokenKey

    @classmethod
    def create(cls, uri: str, _default: Path, _wrapping: bytes | None, pin: bytes | None) -> TokenKeystore:
        """Make both keys on the token.

        :raises OutputError: there are keys of these labels already.
        """
        where = TokenUri.parse(uri).labelled(LABEL)
        token = Token.of(where, pin)
        signer, agreement = make_keys(token, where, "sign", "ecdh")
        return cls(token, signer, agreement)

    @classmethod
    def open(cls, uri: str, _default: Path, _wrapping: bytes | None, pin: bytes | None) -> TokenKeystore:
        """Find both keys on the token.

        :raises KeystoreError: module, token, PIN or keys are absent or wrong.
        """
        where = TokenUri.parse(uri).labelled(LABEL)
        token = Token.of(where, pin)
        return cls(token, find_key(token, where, "sign"), find_key(token, where, "ecdh"))

    def protection(self) -> Protection:
        """Return what guards the keys, as the token says."""
        token = self.token.found
        hardware = pkcs11.SlotFlag.HW_SLOT in token.slot.flags
        here = "both private keys, where the token's software runs: in this process, unless its module talks to another"
        return Protection(
            store=f"{self.token.name}, {token.manufacturer_id} {token.model}, serial {token.serial.decode()}",
            hardware=hardware,
            protected=(self.signer.guard(), self.agreement.guard()),
            ram=(SHARED_SECRET, PIN) if hardware else (here, SHARED_SECRET, PIN),
        )

    def destroy(self) -> None:
        """Remove both keys from the token."""
        self.signer.destroy()
        self.agreement.destroy()


def find_key(token: Token, where: TokenUri, purpose: Purpose) -> TokenKey:
    """Return a key that is there.

    :raises KeystoreError: it is not.
    """
    return TokenKey(token, _label(where, purpose), purpose)


def holds_key(token: Token, where: TokenUri, purpose: Purpose) -> bool:
    """Return whether the token holds anything under the key's label."""
    return bool(token.use(lambda session: _labelled(session, _label(where, purpose))))


def make_keys(token: Token, where: TokenUri, *purposes: Purpose) -> list[TokenKey]:
    """Make keys on the token, all or none.

    :raises OutputError: there are objects of these labels already.
    """
    for purpose in purposes:
        if holds_key(token, where, purpose):
            raise OutputError(
                f"{token.name} holds {_label(where, purpose)!r} already", hint="add another ;object= to the URI"
            )
    try:
        for purpose in purposes:
            token.write(partial(_generate, label=_label(where, purpose), purpose=purpose))
        return [find_key(token, where, purpose) for purpose in purposes]
    except KeystoreError:
        for purpose in purposes:
            _destroy(token, _label(where, purpose))
        raise


def _generate(session: pkcs11.Session, *, label: str, purpose: Purpose) -> None:
    domain = session.create_domain_parameters(pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: _P256}, local=True)
    domain.generate_keypair(
        id=os.urandom(8),
        label=label,
        store=True,
        capabilities=_MAY[purpose],
        mechanism=pkcs11.Mechanism.EC_KEY_PAIR_GEN,
        private_template=_CLOSED,
    )


def _destroy(token: Token, label: str) -> None:
    def destroy(session: pkcs11.Session) -> None:
        for each in _labelled(session, label):
            each.destroy()

    token.write(destroy)


def _labelled(session: pkcs11.Session, label: str) -> list[Any]:
    return list(session.get_objects({pkcs11.Attribute.LABEL: label}))


def _label(where: TokenUri, purpose: Purpose) -> str:
    return f"{where.object}-{purpose}"
