"""Learned weights for the publisher: one signed file that also records how they came about.

``NAME-RUN.learned``: a COSE_Sign1 by the aggregator over deterministic CBOR ``{model, weights, training}``
(docs/formats.md). It carries a model's weights in plain: it stays between the aggregator and the publisher, who both
have them anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from edged.base.errors import ConfigError, FormatError, MismatchError, UsageError, error_context
from edged.base.files import PRIVATE_FILE, read_bounded, write_atomically
from edged.base.memory import SecretBuffer
from edged.base.names import NAME
from edged.federated.weights import Weights, decode, encode, rewritten, shapes
from edged.formats.cose import cbor
from edged.formats.cose.keys import PublicKey, Signer
from edged.formats.cose.sign1 import Sign1, sign
from edged.formats.package.manifest import Training
from edged.formats.package.self_test import FLOAT32, SelfTest, SelfTestCase, TypedArray
from edged.model.author import Author
from edged.model.dry_run import open_model
from edged.model.known_answers import clear_ones, to_floats
from edged.model.runtime import choose

_AAD = cbor.encode(["edged.learned.1"])
_LIMIT = 256 * 1024 * 1024
_LIMITS = cbor.Limits(size=_LIMIT, depth=8, items=4096)


@dataclass(frozen=True)
class Learned:
    """Weights that boards learned together.

    :ivar model: its name.
    :ivar weights: as the model's ``get_weights`` gives them, encoded.
    """

    model: str
    weights: bytes
    training: Training

    @classmethod
    def of(cls, model: str, weights: Weights, training: Training) -> Learned:
        """Encode ``weights``."""
        return cls(model, encode(weights), training)

    def write(self, path: Path, signer: Signer) -> None:
        """Write the signed file.

        :param signer: the aggregator's.
        :raises OutputError: it cannot be written.
        """
        training = msgspec.to_builtins(self.training, builtin_types=(bytes,))
        payload = cbor.encode({"model": self.model, "weights": self.weights, "training": training})
        write_atomically(path, [sign(payload, _AAD, signer)], mode=PRIVATE_FILE, replace=True)

    @classmethod
    def read(cls, path: Path, aggregator: PublicKey) -> Learned:
        """Read the file that ``aggregator`` signed.

        :raises TrustError: it did not.
        :raises FormatError: it is something else.
        """
        with error_context(path):
            payload = Sign1.parse(read_bounded(path, _LIMIT), _LIMITS).verify(aggregator, _AAD)
            value = cbor.decode_canonical(payload, _LIMITS)
            if not isinstance(value, dict) or set(value) != {"model", "weights", "training"}:
                raise FormatError("not what a training ends with: {model, weights, training}")
            model, weights = value["model"], value["weights"]
            if not (isinstance(model, str) and NAME.fullmatch(model) and isinstance(weights, bytes)):
                raise FormatError("its model is a name, and its weights are bytes")
            try:
                training = msgspec.convert(value["training"], Training)
            except (msgspec.ValidationError, ConfigError) as error:
                raise FormatError(f"its training record does not fit: {error}") from error
            if training.aggregator != aggregator.thumbprint:
                raise MismatchError("its training record names another aggregator than the one that signed it")
            return cls(model, weights, training)

    def into(self, author: Author, base: Path, model: bytes) -> tuple[bytes, SelfTest]:
        """Return ``model`` with these weights, and its answers to the windows of the author's self-test.

        :param base: directory of the author's manifest.
        :param model: the .tflite file that the boards train.
        :raises UsageError: they are another model's.
        :raises ConfigError: they answer no window of the self-test clearly.
        :raises ModelError: they do not fit it.
        """
        if self.model != author.name:
            raise UsageError(f"these are weights of {self.model}, and the manifest is of {author.name}")
        changed = rewritten(model, decode(self.weights, shapes(model)))
        before = author.read_self_test(base)
        with SecretBuffer(len(changed)) as buffer:
            buffer.view[:] = changed
            opened = open_model(author, Path(buffer.path), choose("auto"))
            try:
                shape = (-1, len(author.input.channels))
                scores = [opened.scores(to_floats(case.window).reshape(shape)) for case in before.cases]
            finally:
                opened.close()
        clear = clear_ones(scores, before.tolerance, author)
        if not clear:
            raise ConfigError(
                "with these weights no window of the self-test has a clear best label",
                hint="put windows into it that the model is surer of, or train further",
            )
        answers = (TypedArray(FLOAT32, scores[at].astype("<f4").tobytes()) for at in clear)
        cases = (SelfTestCase(before.cases[at].window, one) for at, one in zip(clear, answers, strict=True))
        return changed, SelfTest(before.tolerance, tuple(cases))
