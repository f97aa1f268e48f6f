"""Seal a model: encrypt the weights once, wrap the key to each board, sign the manifest. Grant it to more boards."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edged import __version__
from edged.base.errors import UsageError
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, TAG_SIZE, Aead
from edged.formats.cose.encrypt import Encrypt, Recipient, content_aad
from edged.formats.cose.keys import Agreement, ContentKey, PublicKey, Signer
from edged.formats.cose.sign1 import sign
from edged.formats.identity import Record
from edged.formats.package.manifest import AAD, Digest, Manifest, content_context
from edged.formats.package.verify import RECIPIENTS, Package, VerifiedPackage

Chunks = list[bytes | bytearray | memoryview]
"""A package's bytes in pieces, to be written one behind the other; the last is the ciphertext."""


def preferred_aead(boards: Iterable[Record]) -> Aead:
    """Return the algorithm that most of ``boards`` are fastest with; AES-GCM where they are even."""
    votes = Counter(board.aead for board in boards if board.aead is not None)
    return max(Aead, key=lambda aead: (votes[aead], aead is Aead.A256GCM))


def pack(
    fields: Mapping[str, Any],
    weights: memoryview,
    *,
    signer: Signer,
    to: Sequence[PublicKey],
    aead: Aead,
    created: int,
) -> Chunks:
    """Return a new package.

    :param fields: of the :class:`Manifest`, all that the author has a say in.
    :param weights: the .tflite file.
    :param to: the boards and the operator, at most 4096.
    :param created: Unix seconds.
    """
    key, iv = ContentKey.generate(aead), os.urandom(IV_SIZE)
    ciphertext = bytearray(len(weights) + TAG_SIZE)
    aad = content_aad(aead, content_context(fields["name"], fields["version"]))
    aead.cipher(key.secret).encrypt_into(iv, weights, aad, ciphertext)
    manifest = Manifest(
        **fields,
        created=created,
        publisher=signer.public.thumbprint,
        edged=__version__,
        alg=int(aead),
        iv=iv,
        commit=key.commit,
        ciphertext=_digest(memoryview(ciphertext)),
        plaintext=_digest(weights),
    )
    recipients = Encrypt(aead, iv, None, tuple(Recipient.wrap(key, public) for public in _distinct(to)))
    return [*_head(sign(manifest.encode(), AAD, signer), recipients, len(ciphertext)), ciphertext]


def repack(
    package: VerifiedPackage,
    agreement: Agreement,
    version: int,
    *,
    signer: Signer,
    to: Sequence[PublicKey],
    aead: Aead,
    created: int,
    expires: int | None,
) -> Chunks:
    """Return the weights and the manifest of ``package`` under a higher version: how one goes back.

    :param agreement: a key that the package is sealed to, such as the operator's.
    :param expires: Unix seconds.
    :raises UsageError: the version is not higher.
    :raises TrustError: the package does not open, or its weights are not those that were signed.
    """
    old = package.manifest
    if not old.version < version < 1 << 32:
        raise UsageError(
            f"--version: {version} is not above {old.version}, which {old.name} has", hint="versions only grow"
        )
    weights = bytearray(old.plaintext.size)
    package.unwrap(agreement).decrypt_into(memoryview(weights))
    fields = {name: getattr(old, name) for name in Manifest.__struct_fields__ if name not in _SEALING}
    fields |= {"version": version, "expires": expires}
    return pack(fields, memoryview(weights), signer=signer, to=to, aead=aead, created=created)


_SEALING = frozenset({"created", "publisher", "edged", "alg", "iv", "commit", "ciphertext", "plaintext"})
"""Fields of a manifest that are each package's own."""


def grant(package: Package, operator: Agreement, to: Sequence[PublicKey]) -> Chunks:
    """Return ``package`` sealed to more boards: the same signature, the same ciphertext, a longer recipient list.

    Nothing here is trusted: a board that installs the result verifies it from the start.

    :raises NotARecipientError: the package is not sealed to this operator.
    :raises MismatchError: its key is not the one that the manifest commits to.
    """
    commit = Manifest.parse(package.signed.unverified).commit
    key = package.recipients.unwrap(operator, commit)
    known = {recipient.kid for recipient in package.recipients.recipients}
    added = (Recipient.wrap(key, public) for public in _distinct(to) if public.thumbprint not in known)
    recipients = replace(package.recipients, recipients=(*package.recipients.recipients, *added))
    if len(recipients.recipients) > RECIPIENTS:
        raise UsageError(f"a package has at most {RECIPIENTS} recipients")
    return [*_head(package.signed.encode(), recipients, len(package.ciphertext)), package.ciphertext]


def _distinct(keys: Sequence[PublicKey]) -> list[PublicKey]:
    return list({key.thumbprint: key for key in keys}.values())


def _head(signed: bytes, recipients: Encrypt, size: int) -> list[bytes]:
    return [signed, cbor.encode(recipients.cose()), cbor.bytes_head(size)]


def _digest(data: memoryview) -> Digest:
    return Digest(len(data), hashlib.sha256(data).digest())
