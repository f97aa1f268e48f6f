"""From bytes that somebody sent to weights in memory, in the one order that the types allow.

Nothing here touches a file, a clock or a socket. What holds at each step:

1. :class:`Package`: the bytes have the shape of a package. Nothing of it is believed.
2. :class:`VerifiedPackage`: a publisher that may sign this model signed the manifest.
3. :class:`UnwrappedPackage`: the parts have the sizes that were signed, and the key is the one committed to.
4. :meth:`UnwrappedPackage.decrypt_into` returned: the buffer holds exactly the part that was signed.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from edged import __version__
from edged.base.clock import Clock
from edged.base.errors import (
    DecryptionError,
    ExpiredError,
    FastForwardError,
    FormatError,
    MismatchError,
    NotAllowedError,
    NotYetValidError,
    RollbackError,
    UnknownSignerError,
    error_context,
)
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import TAG_SIZE
from edged.formats.cose.decrypt import decrypt_and_hash
from edged.formats.cose.encrypt import Encrypt, content_aad
from edged.formats.cose.keys import Agreement, ContentKey, PublicKey
from edged.formats.cose.sign1 import Sign1
from edged.formats.package import Floor
from edged.formats.package.manifest import AAD, LIMITS, MOST_PARTS, Digest, Manifest, content_context

RECIPIENTS = 4096
RECIPIENT_LIMITS = cbor.Limits(size=1024 * 1024, depth=8, items=RECIPIENTS * 16 + 8)
_BYTE_STRING = 2
HEAD_LIMIT = LIMITS.size + RECIPIENT_LIMITS.size
"""Bytes that manifest and recipient list take at most."""
_USED = frozenset({"model", "self_test"})
"""Kinds of parts that this release makes use of."""


class Publishers(msgspec.Struct, frozen=True):
    """The publishers that a configuration pins: key id to public key and the model names that it may sign."""

    pinned: dict[bytes, tuple[PublicKey, frozenset[str]]]

    @classmethod
    def of(cls, key: PublicKey, *models: str) -> Publishers:
        """Pin one publisher, who may sign ``models``."""
        return cls({key.thumbprint: (key, frozenset(models))})

    def may_sign(self, kid: bytes, name: str) -> PublicKey:
        """Return the key ``kid`` if it may sign model ``name``: the one place where that is asked.

        :raises UnknownSignerError: no such key is pinned.
        :raises NotAllowedError: it is pinned for other models.
        """
        if kid not in self.pinned:
            raise UnknownSignerError(
                f"signed by publisher key {kid.hex()[:16]}, which is not pinned here",
                hint="name the publisher's record and this model under [publishers.NAME]",
            )
        key, names = self.pinned[kid]
        if name not in names:
            raise NotAllowedError(
                f"publisher key {kid.hex()[:16]} may not sign model {name!r}",
                hint="see `models` under [publishers.NAME]",
            )
        return key


class Package(msgspec.Struct, frozen=True):
    """A package that was parsed and not verified.

    :ivar recipients: its own recipient list, or the grant that was given beside it.
    :ivar parts: the ciphertexts with their tags, views of the file.
    """

    signed: Sign1
    recipients: Encrypt
    parts: tuple[memoryview, ...]

    @classmethod
    def parse(cls, data: bytes | memoryview, grant: bytes | None = None) -> Package:
        """Take a package's bytes: a CBOR sequence of a COSE_Sign1, a COSE_Encrypt and 1 to 8 byte strings.

        :param grant: one recipient's COSE_Encrypt, to be opened in the place of the package's own list.
        :raises FormatError: it is anything else, cut short, or has bytes behind it.
        """
        data = memoryview(data)
        head = bytes(data[:HEAD_LIMIT])
        with error_context("no package, or cut short"):
            first, second = _ends(head)
        parts: list[memoryview] = []
        at = second
        while at < len(data) or not parts:
            if len(parts) == MOST_PARTS:
                raise FormatError(f"a package has at most {MOST_PARTS} parts")
            with error_context("no package, or cut short"):
                major, length, start = cbor.read_head(data, at)
            if major != _BYTE_STRING or start - at != len(cbor.bytes_head(length)):
                raise FormatError(f"item {len(parts) + 3} of a package is not a byte string")
            at = start + length
            if at > len(data):
                raise FormatError(f"the package holds {len(data) - start} bytes of a part where {length} are announced")
            parts.append(data[start:at])
        recipients = parse_recipients(head[first:second]) if grant is None else parse_recipients(grant, 1)
        return cls(Sign1.parse(head[:first], LIMITS), recipients, tuple(parts))

    def verify(self, publishers: Publishers) -> VerifiedPackage:
        """Check that a publisher who may sign this model signed the manifest.

        :raises FormatError: the manifest is not one.
        :raises UnknownSignerError: nobody pinned signed it.
        :raises NotAllowedError: the signer may not sign this model.
        :raises SignatureError: the signature does not hold.
        :raises MismatchError: manifest and recipient list do not belong together.
        """
        manifest = _verified(self.signed, publishers)
        if (self.recipients.aead, self.recipients.iv) != (manifest.aead, manifest.sealed[0].iv):
            raise MismatchError("algorithm or IV of the recipient list are not those that were signed")
        if len(self.parts) != len(manifest.sealed):
            raise MismatchError(f"the package holds {len(self.parts)} parts, and {len(manifest.sealed)} were signed")
        identity = hashlib.sha256(self.signed.unverified).digest()
        return VerifiedPackage(manifest, identity, self.recipients, self.parts)


class VerifiedPackage(msgspec.Struct, frozen=True):
    """A package whose manifest a pinned publisher signed. Made by :meth:`Package.verify` only.

    :ivar identity: SHA-256 of the manifest's bytes, what this package is called everywhere.
    """

    manifest: Manifest
    identity: bytes
    recipients: Encrypt
    parts: tuple[memoryview, ...]

    def check_release(self) -> None:
        """Check that this release of edged is new enough, and makes use of every part.

        :raises MismatchError: it is not, or does not.
        """
        if _release(self.manifest.edged) > _release(__version__):
            raise MismatchError(
                f"{self.manifest.name} {self.manifest.version} needs edged {self.manifest.edged}, not {__version__}",
                hint="upgrade edged on this board",
            )
        for part in self.manifest.sealed:
            if part.kind not in _USED:
                raise MismatchError(
                    f"{self.manifest.name} {self.manifest.version} has a part {part.kind!r}, which edged {__version__}"
                    " does not use",
                    hint="upgrade edged on this board, or ask the publisher for a package without that part",
                )

    def check_minimum(self, minimum: int) -> None:
        """Check the version against the lowest that a publisher still lets boards serve.

        :raises RollbackError: it lies below.
        """
        if self.manifest.version < minimum:
            raise RollbackError(
                f"{self.manifest.name} {self.manifest.version} lies below version {minimum}, the lowest that its"
                " publisher lets boards serve since a newer version was accepted here",
                hint="ask its publisher for a newer version",
            )

    def check_floor(self, floor: Floor | None) -> None:
        """Check the version against the highest that was ever accepted; the same package again is fine.

        :raises RollbackError: it lies below, or it is another package under the same version.
        """
        if floor is None or self.manifest.version > floor.version:
            return
        if (self.manifest.version, self.identity) != floor:
            raise RollbackError(
                f"{self.manifest.name} {self.manifest.version} is not above version {floor.version},"
                " which this board accepted before",
                hint="to go back, publish the old weights under a higher version",
            )

    def check_step(self, floor: Floor | None, step: int) -> None:
        """Check that the version does not lie too far above the highest that was ever accepted.

        :raises FastForwardError: it lies more than ``step`` above.
        """
        if floor is not None and self.manifest.version > floor.version + step:
            raise FastForwardError(
                f"{self.manifest.name} {self.manifest.version} lies more than {step} above version {floor.version}",
                hint="`step` under [publishers.NAME] bounds it",
            )

    def check_dates(self, clock: Clock) -> None:
        """Check the dates that the publisher signed.

        :raises ExpiredError: it is past ``expires``.
        :raises NotYetValidError: it was created ahead of a clock that is synchronised.
        """
        if self.manifest.expires is not None and clock.now > self.manifest.expires:
            raise ExpiredError(
                f"{self.manifest.name} {self.manifest.version} has expired",
                hint="ask its publisher for a newer version",
            )
        if clock.synchronised and self.manifest.created > clock.now + _CLOCK_SKEW:
            raise NotYetValidError(
                f"{self.manifest.name} {self.manifest.version} was created in the future",
                hint="set this board's clock, or ask the publisher about theirs",
            )

    def check_sizes(self) -> None:
        """Check that the package holds as much as was signed, before any room is made for it.

        :raises MismatchError: it holds more or less.
        """
        for part, ciphertext in zip(self.manifest.sealed, self.parts, strict=True):
            _check_size(f"ciphertext of part {part.kind!r}", ciphertext, part.ciphertext)
            if part.ciphertext.size != part.plaintext.size + TAG_SIZE:
                raise MismatchError(f"the signed sizes of part {part.kind!r} do not belong together")

    def check_ciphertexts(self) -> None:
        """Check every ciphertext against its signed digest: at install, and where there is no key to open it with.

        :raises MismatchError: one is not the one that was signed.
        """
        check_ciphertexts(self.manifest, self.parts)

    def unwrap(self, agreement: Agreement) -> UnwrappedPackage:
        """Open this board's own copy of the content key.

        :raises MismatchError: a part has another size than was signed, or the key is not the one committed to.
        :raises NotARecipientError: the package is not sealed to this key.
        :raises DecryptionError: this board's copy of the key does not open.
        """
        self.check_sizes()
        return UnwrappedPackage(self.manifest, self.parts, self.recipients.unwrap(agreement, self.manifest.commit))


class UnwrappedPackage(msgspec.Struct, frozen=True):
    """A verified package with its content key. Made by :meth:`VerifiedPackage.unwrap` only."""

    manifest: Manifest
    parts: tuple[memoryview, ...]
    key: ContentKey

    def decrypt_into(self, buffer: memoryview, number: int) -> None:
        """Decrypt part ``number``, counted from 0, into ``buffer`` (``plaintext.size`` bytes) and check it, in place.

        On any exception ``buffer`` may hold plaintext: the caller wipes it. The digest is computed over ``buffer``
        itself: a tag alone does not bind those who hold the key, and the file could change between two reads of it.

        :raises DecryptionError: the tag does not hold.
        :raises MismatchError: the plaintext is not the one that was signed.
        """
        manifest = self.manifest
        part = manifest.sealed[number]
        aad = content_aad(manifest.aead, content_context(manifest.name, manifest.version, number))
        _check_size(f"plaintext of part {part.kind!r}", buffer, part.plaintext)
        try:
            digest = decrypt_and_hash(self.key, part.iv, self.parts[number], aad, buffer)
        except DecryptionError as error:  # the key is the one committed to: bytes were altered
            raise DecryptionError(f"part {part.kind!r}: {error.message}") from error
        _check_digest(f"plaintext of part {part.kind!r}", digest, part.plaintext)


def parse_recipients(data: bytes, most: int = RECIPIENTS) -> Encrypt:
    """Take a recipient list with at most ``most`` entries: a package's second item, or a grant, which has one.

    :raises FormatError: it is anything else.
    """
    recipients = Encrypt.parse(cbor.decode_canonical(data, RECIPIENT_LIMITS), most)
    if recipients.ciphertext is not None:
        raise FormatError("the ciphertext of a package is detached, and this one is not")
    return recipients


def signed_length(head: bytes, publishers: Publishers) -> int:
    """Return the length in bytes of the package that begins with ``head``, as its publisher signed it.

    :param head: its first :data:`HEAD_LIMIT` bytes, or all.
    :raises EdgedError: as :meth:`Package.parse` and :meth:`Package.verify`, as far as manifest and signature go.
    """
    with error_context("no package, or cut short"):
        first, second = _ends(head)
    manifest = _verified(Sign1.parse(head[:first], LIMITS), publishers)
    sizes = [part.ciphertext.size for part in manifest.sealed]
    return second + sum(len(cbor.bytes_head(size)) + size for size in sizes)


def check_ciphertexts(manifest: Manifest, parts: tuple[memoryview, ...]) -> None:
    """Check ciphertexts against the digests of a manifest.

    :raises MismatchError: their number is another, or one is not the one that the manifest names.
    """
    if len(parts) != len(manifest.sealed):
        raise MismatchError(f"the package holds {len(parts)} parts, and {len(manifest.sealed)} were signed")
    for part, ciphertext in zip(manifest.sealed, parts, strict=True):
        what = f"ciphertext of part {part.kind!r}"
        _check_size(what, ciphertext, part.ciphertext)
        _check_digest(what, hashlib.sha256(ciphertext).digest(), part.ciphertext)


def _ends(head: bytes) -> tuple[int, int]:
    """Return where manifest and recipient list end.

    :raises FormatError: they break a limit, or are no strict CBOR.
    """
    first = cbor.scan(head, 0, LIMITS)
    second = cbor.scan(head, first, RECIPIENT_LIMITS)
    if first > LIMITS.size or second - first > RECIPIENT_LIMITS.size:
        raise FormatError("the manifest or the recipient list is larger than allowed")
    return first, second


def _verified(signed: Sign1, publishers: Publishers) -> Manifest:
    claimed = Manifest.parse(signed.unverified)
    manifest = Manifest.parse(signed.verify(publishers.may_sign(signed.kid, claimed.name), AAD))
    if manifest.publisher != signed.kid:
        raise MismatchError("the manifest names another publisher key than its signature does")
    return manifest


_CLOCK_SKEW = 300.0
"""Seconds by which a publisher's clock may run ahead of a board's."""


def _check_size(what: str, data: memoryview, expected: Digest) -> None:
    if len(data) != expected.size:
        raise MismatchError(f"the {what} is {len(data)} bytes long, and {expected.size} were signed")


def _check_digest(what: str, digest: bytes, expected: Digest) -> None:
    if not hmac.compare_digest(digest, expected.sha256):
        raise MismatchError(f"the {what} is not the one that was signed")


def _release(version: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in version.split("."))
    except ValueError:
        raise FormatError(f"{version!r} is not a release of edged such as 0.1.0") from None
