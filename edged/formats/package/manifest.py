"""The signed manifest of a package: the model's name, its sealed parts, and the whole signal chain around it."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from edged.base.errors import ConfigError, FormatError
from edged.base.names import NAME
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, Aead
from edged.formats.package.self_test import SELF_TEST_LIMIT
from edged.formats.spec import Chain

AAD = cbor.encode(["edged.manifest.1"])
LIMITS = cbor.Limits(size=4 * 1024 * 1024, depth=12, items=65_536)
MOST_PARTS = 8
_COMMIT = _DIGEST = 32
_MOST_SIZE = 1 << 53
_DATE_LIMIT = 1 << 53
_MOST_OUTPUTS = 1 << 32
_MOST_TESTED, _LONGEST_TESTED = 8, 64
_MOST_ROUNDS, _MOST_RUN = 1 << 32, 1 << 53


class Digest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size in bytes and SHA-256 of something."""

    size: int
    sha256: bytes


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sealed part of a package.

    :ivar kind: ``model``: the .tflite file. ``self_test``: known answers (:mod:`edged.formats.package.self_test`).
        ``front_end`` and ``reference`` are encoded, and not used by this release.
    :ivar iv: 12 bytes, no two the same in one package.
    :ivar ciphertext: with its tag.
    """

    kind: Literal["model", "front_end", "self_test", "reference"]
    iv: bytes
    ciphertext: Digest
    plaintext: Digest


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The training record: how boards learned the weights together, signed with them by their publisher.

    :ivar run: its number at the aggregator that led it.
    :ivar aggregator: thumbprint of its signing key.
    :ivar rounds: number of rounds that led to these weights.
    :ivar boards: number of boards that took part in at least one round.
    :ivar strategy: the average of updates, in Flower's words.
    :ivar masked: True if the aggregator saw only sums of updates (SecAgg+).
    :ivar score: on the aggregator's held-out windows, 0 to 1; None without any.
    :ivar clip: the norm that updates, or with local noise the gradients of single examples, were clipped to.
    :ivar noise: standard deviation of the noise, as a multiple of ``clip``; 0: none.
    :ivar local: True if boards added the noise themselves, before anything left them.
    :ivar epsilon: the promise of privacy at ``delta``; None without noise.
    """

    run: int
    aggregator: bytes
    rounds: int
    boards: int
    strategy: str
    masked: bool
    score: float | None = None
    clip: float | None = None
    noise: float = 0.0
    local: bool = False
    epsilon: float | None = None
    delta: float | None = None

    def __post_init__(self) -> None:
        if not (0 < self.rounds < _MOST_ROUNDS and 0 < self.boards < _MOST_ROUNDS and 0 < self.run < _MOST_RUN):
            raise ConfigError("training: run, rounds and boards are whole numbers, and there was at least one of each")
        given = (self.score, self.clip, self.noise, self.epsilon, self.delta)
        if not all(value is None or (math.isfinite(value) and value >= 0) for value in given):
            raise ConfigError("training: score, clip, noise, epsilon and delta are finite numbers, 0 or above")

    def in_words(self) -> str:
        """Return one line for people."""
        said = f"{self.rounds} rounds of {self.boards} boards by {self.strategy}"
        if self.masked:
            said += ", updates masked"
        if self.noise:
            said += f", {'local' if self.local else 'central'} noise {self.noise:g} x {self.clip:g}"
        if self.epsilon is not None:
            said += f": epsilon {self.epsilon:.3g} at delta {self.delta:g}"
        return said if self.score is None else f"{said}; held-out score {self.score:.2%}"


class Manifest(Chain, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The manifest as it is signed; the signal chain stands in it under the names that authors use.

    :ivar created: Unix seconds, by the publisher's clock.
    :ivar expires: Unix seconds.
    :ivar publisher: thumbprint of the signing key.
    :ivar edged: oldest release of edged that can run it.
    :ivar commit: commitment to the content key (:attr:`edged.formats.cose.keys.ContentKey.commit`).
    :ivar sealed: the sealed parts, ``parts`` in the signed map, in the order of their byte strings.
    :ivar minimum: boards that accepted this package never serve a version of its name below it again; None: no bound.
    :ivar outputs: number of scores that the model gives; None where its publisher does not say.
    :ivar tested: engines that answered the self-test as signed where it was recorded and packed: names and versions.
    :ivar training: the record of weights that boards learned together; None for others.
    """

    name: str
    version: int
    created: int
    publisher: bytes
    edged: str
    alg: int
    commit: bytes
    sealed: tuple[Part, ...] = msgspec.field(name="parts")
    minimum: int | None = None
    expires: int | None = None
    summary: str = ""
    license: str = ""
    card: str = ""
    outputs: int | None = None
    tested: tuple[str, ...] = ()
    training: Training | None = None

    def encode(self) -> bytes:
        """Return the deterministic CBOR that gets signed."""
        return cbor.encode(msgspec.to_builtins(self, builtin_types=(bytes,)))

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Take a manifest's bytes.

        :raises FormatError: not deterministic CBOR, or a key is missing, unknown or does not fit.
        """
        value = cbor.decode_canonical(data, LIMITS)
        try:
            manifest = msgspec.convert(value, cls)
        except (msgspec.ValidationError, ConfigError) as error:
            raise FormatError(f"the manifest does not fit: {error}") from error
        Aead.parse(manifest.alg)
        if not NAME.fullmatch(manifest.name):
            raise FormatError("the manifest's name does not fit")
        if not 0 < manifest.version < 1 << 32:
            raise FormatError("the manifest's version is not between 1 and 2^32 - 1")
        if manifest.minimum is not None and not 0 < manifest.minimum <= manifest.version:
            raise FormatError("the manifest's minimum is not between 1 and its version")
        if len(manifest.commit) != _COMMIT:
            raise FormatError(f"the manifest's commit is not {_COMMIT} bytes long")
        if not all(0 <= date < _DATE_LIMIT for date in (manifest.created, manifest.expires or 0)):
            raise FormatError("the manifest's dates are negative or not below 2^53")
        if manifest.outputs is not None and not 0 < manifest.outputs <= _MOST_OUTPUTS:
            raise FormatError(f"the manifest's outputs is not between 1 and {_MOST_OUTPUTS}")
        if len(manifest.tested) > _MOST_TESTED or any(not one or len(one) > _LONGEST_TESTED for one in manifest.tested):
            raise FormatError(f"the manifest's tested is not up to {_MOST_TESTED} names of engines")
        _check_parts(manifest.sealed)
        return manifest

    @property
    def aead(self) -> Aead:
        """The content algorithm."""
        return Aead(self.alg)

    def index(self, kind: Literal["model", "self_test"]) -> int:
        """Return the number of the part of a kind, from 0."""
        return [part.kind for part in self.sealed].index(kind)

    @property
    def weights(self) -> Digest:
        """Size and digest of the .tflite file."""
        return self.sealed[self.index("model")].plaintext


def content_context(name: str, version: int, number: int) -> bytes:
    """Return the external_aad under which part ``number`` of a package is sealed, counted from 0."""
    return cbor.encode(["edged.package.1", name, version, number])


def _check_parts(parts: tuple[Part, ...]) -> None:
    if not 0 < len(parts) <= MOST_PARTS:
        raise FormatError(f"the manifest's parts are not 1 to {MOST_PARTS}")
    kinds = [part.kind for part in parts]
    if kinds.count("model") != 1 or kinds.count("self_test") != 1:
        raise FormatError("the manifest's parts are not exactly one model, one self_test, and others")
    if any(len(part.iv) != IV_SIZE for part in parts) or len({part.iv for part in parts}) != len(parts):
        raise FormatError(f"the IVs of the manifest's parts are not {IV_SIZE} bytes long and pairwise different")
    for part in parts:
        most = SELF_TEST_LIMIT if part.kind == "self_test" else _MOST_SIZE
        if not 0 < part.plaintext.size <= most or not 0 < part.ciphertext.size <= _MOST_SIZE:
            raise FormatError(f"the size of part {part.kind!r} is not between 1 and {most}")
        if {len(part.plaintext.sha256), len(part.ciphertext.sha256)} != {_DIGEST}:
            raise FormatError(f"the digests of part {part.kind!r} are not {_DIGEST} bytes long")
