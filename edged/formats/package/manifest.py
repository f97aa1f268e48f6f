"""The signed manifest of a package: what the model is, how it is sealed, and the whole signal chain around it."""

from __future__ import annotations

import math

import msgspec

from edged.base.errors import ConfigError, FormatError
from edged.base.names import NAME
from edged.formats.cose import cbor
from edged.formats.cose.algorithms import IV_SIZE, Aead
from edged.formats.spec import Chain

AAD = cbor.encode(["edged.manifest.1"])
LIMITS = cbor.Limits(size=4 * 1024 * 1024, depth=12, items=65_536)
MOST_CASES = 64
_COMMIT = 32
_FLOAT32 = 4
_DATE_LIMIT = 1 << 53
_MOST_ROUNDS, _MOST_RUN = 1 << 32, 1 << 53


class Digest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size in bytes and SHA-256 of something."""

    size: int
    sha256: bytes


class SelfTestCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One window and what the model answers to it.

    :ivar window: float32, little-endian, row by row: a window's rows of ``input.channels`` values.
    :ivar scores: float32, little-endian: one value an output, after activation.
    """

    window: bytes
    scores: bytes


class SelfTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Known answers: every score must lie within ``tolerance`` (absolute) of the one that was signed."""

    tolerance: float
    cases: tuple[SelfTestCase, ...]


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
    :ivar training: the record of weights that boards learned together; None for others.
    """

    name: str
    version: int
    created: int
    publisher: bytes
    edged: str
    alg: int
    iv: bytes
    commit: bytes
    ciphertext: Digest
    plaintext: Digest
    self_test: SelfTest
    expires: int | None = None
    summary: str = ""
    license: str = ""
    card: str = ""
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
        if len(manifest.iv) != IV_SIZE or len(manifest.commit) != _COMMIT:
            raise FormatError(f"the manifest's iv and commit are not {IV_SIZE} and {_COMMIT} bytes long")
        if not all(0 <= date < _DATE_LIMIT for date in (manifest.created, manifest.expires or 0)):
            raise FormatError("the manifest's dates are negative or not below 2^53")
        _check_self_test(manifest)
        return manifest

    @property
    def aead(self) -> Aead:
        """The content algorithm."""
        return Aead(self.alg)


def content_context(name: str, version: int) -> bytes:
    """Return the external_aad under which the weights of a package are sealed."""
    return cbor.encode(["edged.package.1", name, version])


def _check_self_test(manifest: Manifest) -> None:
    row = _FLOAT32 * len(manifest.input.channels)
    cases = manifest.self_test.cases
    if not 0 < len(cases) <= MOST_CASES or not all(_holds_window(case.window, row, manifest.rows) for case in cases):
        size = "some" if manifest.rows is None else manifest.rows
        raise FormatError(f"the manifest's self-test is not 1 to {MOST_CASES} windows of {size} rows of {row} bytes")
    if not all(case.scores and not len(case.scores) % _FLOAT32 for case in cases):
        raise FormatError("the manifest's self-test has scores that are not float32")


def _holds_window(window: bytes, row: int, rows: int | None) -> bool:
    return len(window) == row * rows if rows is not None else bool(window) and not len(window) % row
