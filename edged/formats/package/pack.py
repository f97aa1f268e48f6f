"""Seal a model: encrypt its parts once, wrap the key to each board, sign the manifest. Grant it to more boards."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from edged import __version__
from edged.base.errors import UsageError
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, TAG_SIZE, Aead
from edged.formats.cose.encrypt import Encrypt, Recipient, content_aad
from edged.formats.cose.keys import Agreement, ContentKey, PublicKey, Signer
from edged.formats.cose.sign1 import sign
from edged.formats.identity import Record
from edged.formats.package.manifest import AAD, Manifest, Part, content_context
from edged.formats.package.self_test import SelfTest
from edged.formats.package.verify import RECIPIENTS, Package, VerifiedPackage

Chunks = list[bytes | bytearray | memoryview]
"""A package's bytes in pieces, to be written one behind the other."""

Contents = Sequence[tuple[str, bytes | bytearray | memoryview]]
"""Kind and plaintext of each part of a package, in their order."""


def preferred_aead(boards: Iterable[Record]) -> Aead:
    """Return the algorithm that most of ``boards`` are fastest with; AES-GCM where they are even."""
    votes = Counter(board.aead for board in boards if board.aead is not None)
    return max(Aead, key=lambda aead: (votes[aead], aead is Aead.A256GCM))


def pack(
    fields: Mapping[str, Any],
    contents: Contents,
    *,
    signer: Signer,
    to: Sequence[PublicKey],
    aead: Aead,
    created: int,
) -> Chunks:
    """Return a new package.

    :param fields: of the :class:`Manifest`, all that the author has a say in.
    :param contents: the .tflite file and its self-test at least.
    :param to: the boards and the operator, 1 to 4096.
    :param created: Unix seconds.
    :raises FormatError: boards would refuse the manifest, or its self-test.
    :raises UsageError: nobody could open it, or it has too many recipients.
    """
    if not 0 < len(to) <= RECIPIENTS:
        raise UsageError(
            f"a package has 1 to {RECIPIENTS} recipients, not {len(to)}", hint="--to for boards, or --operator"
        )
    key = ContentKey.generate(aead)
    parts, ciphertexts = [], []
    for number, (kind, plaintext) in enumerate(contents):
        iv, ciphertext = os.urandom(IV_SIZE), bytearray(len(plaintext) + TAG_SIZE)
        aad = content_aad(aead, content_context(fields["name"], fields["version"], number))
        aead.cipher(key.secret).encrypt_into(iv, plaintext, aad, ciphertext)
        parts.append({"kind": kind, "iv": iv, "ciphertext": _digest(ciphertext), "plaintext": _digest(plaintext)})
        ciphertexts.append(ciphertext)
    manifest = Manifest(
        **fields,
        created=created,
        publisher=signer.public.thumbprint,
        edged=__version__,
        alg=int(aead),
        commit=key.commit,
        sealed=msgspec.convert(parts, tuple[Part, ...]),
    )
    encoded = manifest.encode()
    Manifest.parse(encoded)
    SelfTest.parse(memoryview(contents[manifest.index("self_test")][1]), manifest)
    recipients = Encrypt(aead, manifest.sealed[0].iv, None, tuple(Recipient.wrap(key, one) for one in _distinct(to)))
    return _chunks(sign(encoded, AAD, signer), recipients, ciphertexts)


def repack(  # noqa: PLR0913  as many are decided anew
    package: VerifiedPackage,
    agreement: Agreement,
    version: int,
    *,
    signer: Signer,
    to: Sequence[PublicKey],
    aead: Aead,
    created: int,
    expires: int | None,
    minimum: int | None = None,
) -> Chunks:
    """Return the parts and the manifest of ``package`` under a higher version: how one goes back.

    :param agreement: a key that the package is sealed to, such as the operator's.
    :param expires: Unix seconds.
    :param minimum: default: what the package had.
    :raises UsageError: the version is not higher.
    :raises TrustError: the package does not open, or its parts are not those that were signed.
    """
    old = package.manifest
    if not old.version < version < 1 << 32:
        raise UsageError(
            f"--version: {version} is not above {old.version}, which {old.name} has", hint="versions only grow"
        )
    unwrapped = package.unwrap(agreement)
    contents = [(part.kind, bytearray(part.plaintext.size)) for part in old.sealed]
    for number, (_, plaintext) in enumerate(contents):
        unwrapped.decrypt_into(memoryview(plaintext), number)
    fields = {name: getattr(old, name) for name in Manifest.__struct_fields__ if name not in _SEALING}
    fields |= {"version": version, "expires": expires, "minimum": minimum or old.minimum}
    return pack(fields, contents, signer=signer, to=to, aead=aead, created=created)


_SEALING = frozenset({"created", "publisher", "edged", "alg", "commit", "sealed"})
"""Fields of a manifest that are each package's own."""


def grant(package: Package, operator: Agreement, to: Sequence[PublicKey]) -> Chunks:
    """Return ``package`` sealed to more boards: the same signature, the same ciphertexts, a longer recipient list.

    Nothing here is trusted: a board that installs the result verifies it from the start.

    :raises NotARecipientError: the package is not sealed to this operator.
    :raises MismatchError: its key is not the one that the manifest commits to.
    """
    key = _unwrap(package, operator)
    known = package.recipients.kids
    added = (Recipient.wrap(key, public) for public in _distinct(to) if public.thumbprint not in known)
    recipients = msgspec.structs.replace(package.recipients, recipients=(*package.recipients.recipients, *added))
    if len(recipients.recipients) > RECIPIENTS:
        raise UsageError(f"a package has at most {RECIPIENTS} recipients", hint="`edged grant --alone` needs no room")
    return _chunks(package.signed.encode(), recipients, package.parts)


def make_grant(package: Package, opener: Agreement, to: PublicKey) -> bytes:
    """Return a grant of its own: what one board needs to open ``package``, as a file beside it.

    :param opener: a key that the package, or the grant that it was parsed with, is sealed to.
    :raises TrustError: as :func:`grant`.
    """
    recipient = Recipient.wrap(_unwrap(package, opener), to)
    return msgspec.structs.replace(package.recipients, recipients=(recipient,)).encode()


def _unwrap(package: Package, opener: Agreement) -> ContentKey:
    return package.recipients.unwrap(opener, Manifest.parse(package.signed.unverified).commit)


def _distinct(keys: Sequence[PublicKey]) -> list[PublicKey]:
    return list({key.thumbprint: key for key in keys}.values())


def _chunks(signed: bytes, recipients: Encrypt, ciphertexts: Iterable[bytearray | memoryview]) -> Chunks:
    chunks: Chunks = [signed, recipients.encode()]
    for ciphertext in ciphertexts:
        chunks += [cbor.bytes_head(len(ciphertext)), ciphertext]
    return chunks


def _digest(data: bytes | bytearray | memoryview) -> dict[str, object]:
    return {"size": len(data), "sha256": hashlib.sha256(data).digest()}
