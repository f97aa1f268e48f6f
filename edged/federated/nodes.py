"""Node records: the key that a board authenticates its connection with, vouched for by the board's own key.

Flower knows boards by a key of their own ("node key"), which the aggregator must have registered. It is made on the
board, kept there sealed to the board's ECDH key, so that a TPM or a token guards it too, and exists in the clear only
in RAM. The record that goes to the aggregator is the board's enrolment record followed by a COSE_Sign1 over the node
key by the key in that record.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from edged.base.errors import EdgedError, FormatError, KeystoreError, MismatchError, error_context
from edged.base.files import PRIVATE_FILE, make_private_directory, read_bounded, read_private, write_atomically
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, Aead
from edged.formats.cose.encrypt import Encrypt, seal
from edged.formats.cose.keys import ContentKey, PrivateKey, PublicKey
from edged.formats.cose.sign1 import Sign1, sign
from edged.formats.identity import Record, Role
from edged.keystore import Keystore

_RECORD_AAD = cbor.encode(["edged.node.1"])
_KEY_CONTEXT = "edged.node-key.1"
_LIMIT = 4096
_MOST_ITEMS = 3
"""An enrolment record, the signature of the key that it replaced, and the node key."""


@dataclass(frozen=True)
class NodeRecord:
    """A node record whose signatures hold.

    :ivar device: the board's enrolment record.
    :ivar node: the public half of the node key.
    """

    device: Record
    node: PublicKey

    @classmethod
    def parse(cls, data: bytes) -> NodeRecord:
        """Take a node record's bytes.

        :raises FormatError: it is none.
        :raises TrustError: a signature does not hold.
        """
        items = cbor.split_sequence(data, cbor.Limits(_LIMIT, 8, 64), most=_MOST_ITEMS)
        if len(items) < _MOST_ITEMS - 1:
            raise FormatError("a node record is an enrolment record and a node key")
        device = Record.parse(b"".join(items[:-1]))
        if device.role is not Role.DEVICE:
            raise MismatchError(f"it is the record of a {device.role}, not of a board")
        payload = cbor.decode_canonical(Sign1.parse(items[-1]).verify(device.sign, _RECORD_AAD))
        if not isinstance(payload, dict) or set(payload) != {"device", "node", "created"}:
            raise FormatError("the node key has keys missing or unknown")
        if payload["device"] != device.id:
            raise MismatchError(f"the node key is that of {payload['device']!r}, not of {device.id}")
        return cls(device, PublicKey.parse(payload["node"]))

    @classmethod
    def read(cls, path: Path) -> NodeRecord:
        """Read a node record's file.

        :raises EdgedError: as :meth:`parse`, with the file's name.
        """
        with error_context(path, "is it a node record? `edged federate init` writes it on the board"):
            return cls.parse(read_bounded(path, 3 * _LIMIT))


def make_node_key(path: Path, device: Record, record: bytes, keystore: Keystore) -> bytes:
    """Make a node key, sealed in file ``path``, and return the node record.

    :param record: the bytes of ``device``.
    :raises OutputError: there is a node key.
    """
    key = PrivateKey.generate()
    aead = device.aead or Aead.A256GCM
    aad = _key_aad(device)
    content = ContentKey.generate(aead)
    sealed = seal(content, os.urandom(IV_SIZE), key.scalar(), aad, [keystore.agreement.public])
    make_private_directory(path.parent)
    write_atomically(path, [cbor.encode(sealed.cose())], mode=PRIVATE_FILE, replace=False)
    return vouch(key.public, device, record, keystore)


def vouch(node: PublicKey, device: Record, record: bytes, keystore: Keystore) -> bytes:
    """Return the record of a node key."""
    payload = cbor.encode({"device": device.id, "node": node.cose(), "created": int(time.time())})
    return record + sign(payload, _RECORD_AAD, keystore.signer)


def open_node_key(path: Path, device: Record, keystore: Keystore) -> PrivateKey:
    """Open the node key in file ``path``.

    :raises KeystoreError: it is absent, or sealed to other keys.
    """
    if not path.exists():
        raise KeystoreError(f"{path} does not exist", hint="`edged federate init` makes this board's node key")
    try:
        sealed = Encrypt.parse(cbor.decode_canonical(read_private(path, _LIMIT)), most=1)
        return PrivateKey.from_scalar(sealed.open(sealed.unwrap(keystore.agreement, None), _key_aad(device)))
    except EdgedError as error:
        raise KeystoreError(
            f"{path} cannot be opened: {error.message}",
            hint="with new board keys it needs a new node key: remove it, and run `edged federate init` again",
        ) from error


def _key_aad(device: Record) -> bytes:
    return cbor.encode([_KEY_CONTEXT, device.id])
