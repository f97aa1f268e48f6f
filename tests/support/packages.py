"""Packages made in this process: good ones at once, and wrong ones that `edged pack` would refuse to make."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edged.formats.cose import cbor
from edged.formats.cose.algorithms import Aead
from edged.formats.cose.keys import PrivateKey, PublicKey
from edged.formats.cose.sign1 import sign
from edged.formats.package.manifest import AAD, LIMITS, Digest, Manifest
from edged.formats.package.pack import pack
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
    """The three items of a package, each as its own bytes."""

    signed: bytes
    recipients: bytes
    ciphertext: bytes

    @classmethod
    def of(cls, package: bytes) -> Parts:
        """Cut a package where its items end."""
        first = cbor.scan(package, 0, LIMITS)
        second = cbor.scan(package, first, RECIPIENT_LIMITS)
        return cls(package[:first], package[first:second], package[second:])

    @property
    def head(self) -> int:
        """How many bytes stand before the ciphertext itself."""
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
        fields, created = self.author(**change).fields(self.path), int(time.time())
        chunks = pack(fields, memoryview(weights), signer=self.publisher, to=to, aead=aead, created=created)
        return b"".join(chunks)

    def resign(self, package: bytes, *, sealed: bytes | None = None, **change: Any) -> bytes:
        """Change what a manifest says and sign it again: only the publisher can, by mistake or on purpose.

        :param sealed: another ciphertext, which gets signed as if it were right.
        """
        parts = Parts.of(package)
        if sealed is not None:
            parts = parts._replace(ciphertext=cbor.encode(sealed))
            change["ciphertext"] = Digest(len(sealed), hashlib.sha256(sealed).digest())
        manifest = msgspec.structs.replace(read_manifest(package), **change)
        return parts._replace(signed=sign(manifest.encode(), AAD, self.publisher)).join()


def read_manifest(package: bytes) -> Manifest:
    """Return what a package claims to be."""
    return Manifest.parse(Package.parse(memoryview(package)).signed.unverified)


def pin(publisher: PublicKey, *names: str) -> Publishers:
    """Return a configuration's publishers where this one may sign ``names``."""
    return Publishers({publisher.thumbprint: (publisher, frozenset(names or ("gearbox",)))})


def open_package(package: bytes, publishers: Publishers, board: PrivateKey) -> bytes:
    """Go the whole way from bytes to weights."""
    verified = Package.parse(memoryview(package)).verify(publishers)
    unwrapped = verified.unwrap(board)
    buffer = bytearray(verified.manifest.plaintext.size)
    unwrapped.decrypt_into(memoryview(buffer))
    return bytes(buffer)
