"""Packages made in this process: good ones at once, and wrong ones that `edged pack` would refuse to make."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.encrypt import content_aad
from edged.formats.cose.keys import PrivateKey, PublicKey
from edged.formats.cose.sign1 import sign
from edged.formats.package.manifest import AAD, LIMITS, Digest, Manifest, Part, content_context
from edged.formats.package.pack import pack
from edged.formats.package.self_test import SelfTest
from edged.formats.package.verify import RECIPIENT_LIMITS, Package, Publishers
from edged.formats.spec import Feature, Features, Input, Output, Window
from edged.keystore.people import PersonalKeys
from edged.model.author import Author, SelfTestFile

CHANNELS = ("a1", "a2", "a3", "a4")
SHAPE = (8, len(CHANNELS))
_GEARBOX: dict[str, Any] = {
    "name": "gearbox",
    "input": Input(channels=CHANNELS),
    "window": Window(size=SHAPE[0]),
    "features": Features(use=("sum_abs", Feature(name="std", ddof=1), "max", Feature(name="kurtosis", bias=False))),
    "output": Output(kind="classifier", labels=("healthy", "broken")),
}


class Parts(NamedTuple):
    """The four items of a package that `edged pack` makes, each as its own bytes."""

    signed: bytes
    recipients: bytes
    ciphertext: bytes
    self_test: bytes

    @classmethod
    def of(cls, package: bytes) -> Parts:
        """Cut a package where its items end."""
        first = cbor.scan(package, 0, LIMITS)
        second = cbor.scan(package, first, RECIPIENT_LIMITS)
        third = cbor.scan(package, second, cbor.Limits(len(package), 1, 1))
        return cls(package[:first], package[first:second], package[second:third], package[third:])

    @property
    def head(self) -> int:
        """How many bytes stand before the ciphertext of the model itself."""
        _, _, start = cbor.read_head(self.ciphertext, 0)
        return len(self.signed) + len(self.recipients) + start

    def join(self) -> bytes:
        """Put the package together again."""
        return b"".join(self)


@dataclass
class Workshop:
    """A publisher who packs the gearbox model with a window of eight rows, so that manifests are short.

    :param path: where its files go.
    """

    path: Path
    publisher: PrivateKey

    @classmethod
    def of_site(cls, path: Path, key: Path) -> Workshop:
        """Take over the publisher whose private key file is ``key``."""
        path.mkdir(exist_ok=True)
        return cls(path, PersonalKeys.read(key, None).signer)

    def author(self, **change: Any) -> Author:
        """Return a manifest; its self-test is read from this workshop's file."""
        fields: dict[str, Any] = {**_GEARBOX, "version": 1, "self_test": SelfTestFile(file="selftest.npz"), **change}
        return Author(**fields)

    def write_self_test(self, window: np.ndarray, scores: np.ndarray) -> None:
        """Set what :meth:`pack` signs as the answer to one window."""
        np.savez(self.path / "selftest.npz", windows=window[np.newaxis], scores=scores[np.newaxis])

    def pack(self, weights: bytes, to: Sequence[PublicKey], *, aead: Aead = Aead.A256GCM, **change: Any) -> bytes:
        """Seal and sign, without asking any runtime."""
        if not (self.path / "selftest.npz").exists():
            self.write_self_test(np.zeros(SHAPE, np.float32), np.zeros(2, np.float32))
        author = self.author(**change)
        contents = [("model", weights), ("self_test", author.read_self_test(self.path).encode())]
        chunks = pack(
            author.fields(self.path), contents, signer=self.publisher, to=to, aead=aead, created=int(time.time())
        )
        return b"".join(chunks)

    def resign(
        self, package: bytes, *, sealed: bytes | None = None, parts: tuple[Part, ...] | None = None, **change: Any
    ) -> bytes:
        """Change what a manifest says and sign it again: only the publisher can, by mistake or on purpose.

        :param sealed: another ciphertext of the model, which gets signed as if it were right.
        :param parts: what the manifest says of its parts.
        :param change: fields of the manifest; ``plaintext`` and ``ciphertext`` are those of the model's part.
        """
        cut, manifest = Parts.of(package), read_manifest(package)
        model = {name: change.pop(name) for name in ("iv", "plaintext", "ciphertext") if name in change}
        if sealed is not None:
            cut = cut._replace(ciphertext=cbor.encode(sealed))
            model["ciphertext"] = Digest(len(sealed), hashlib.sha256(sealed).digest())
        first, *others = manifest.sealed
        change["sealed"] = parts or (msgspec.structs.replace(first, **model), *others)
        manifest = msgspec.structs.replace(manifest, **change)
        return cut._replace(signed=sign(manifest.encode(), AAD, self.publisher)).join()

    def reseal(self, package: bytes, opener: PrivateKey, number: int, plaintext: bytes) -> bytes:
        """Put another plaintext into a part, and sign that: only who has both keys can.

        :param opener: a key that the package is sealed to.
        """
        cut, manifest = Parts.of(package), read_manifest(package)
        key = Package.parse(memoryview(package)).recipients.unwrap(opener, None)
        aad = content_aad(key.aead, content_context(manifest.name, manifest.version, number))
        old = manifest.sealed[number]
        ciphertext = key.aead.cipher(key.secret).encrypt(old.iv, plaintext, aad)
        new = Part(
            old.kind, old.iv, *(Digest(len(one), hashlib.sha256(one).digest()) for one in (ciphertext, plaintext))
        )
        sealed = tuple(new if at == number else one for at, one in enumerate(manifest.sealed))
        again = cut._replace(**{("ciphertext", "self_test")[number]: cbor.encode(ciphertext)}).join()
        return self.resign(again, sealed=None, parts=sealed)


def with_part(workshop: Workshop, package: bytes, kind: Literal["front_end", "reference"]) -> bytes:
    """Return ``package`` with a third part, as a later release would make it."""
    ciphertext = bytes(17)
    digests = (Digest(len(one), hashlib.sha256(one).digest()) for one in (ciphertext, bytes(1)))
    parts = (*read_manifest(package).sealed, Part(kind, b"another iv 3", *digests))
    return workshop.resign(package + cbor.encode(ciphertext), parts=parts)


def read_manifest(package: bytes) -> Manifest:
    """Return what a package claims to be."""
    return Manifest.parse(Package.parse(memoryview(package)).signed.unverified)


def pin(publisher: PublicKey, *names: str) -> Publishers:
    """Return a configuration's publishers where this one may sign ``names``."""
    return Publishers.of(publisher, *(names or ("gearbox",)))


def open_package(package: bytes, publishers: Publishers, board: PrivateKey) -> bytes:
    """Go the whole way from bytes to weights."""
    verified = Package.parse(memoryview(package)).verify(publishers)
    verified.check_sizes()
    verified.check_ciphertexts()
    unwrapped = verified.unwrap(board)
    opened = [bytearray(part.plaintext.size) for part in verified.manifest.sealed]
    for number, buffer in enumerate(opened):
        unwrapped.decrypt_into(memoryview(buffer), number)
    SelfTest.parse(memoryview(opened[verified.manifest.index("self_test")]), verified.manifest)
    return bytes(opened[verified.manifest.index("model")])
