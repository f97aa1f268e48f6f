"""Results: a board's answer to a window, in a CBOR map of one size per model: its length does not tell the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cbor2

from edged.base.errors import ConfigError, FormatError
from edged.formats.channel.epoch import MAX_COUNT
from edged.formats.cose import cbor
from edged.formats.cose.encrypt0 import KID_SIZE
from edged.formats.spec import Chain

LIMITS = cbor.Limits(size=256 * 1024, depth=4, items=8192)
PAD_LEAST, PAD_MOST = 24, 255
"""Between these the head of `pad` has one size."""
_PAD_KEY = cbor.encode("pad") + b"\x58"
_FEW = 0x1F
"""Mask of the number of keys in the head of a map that has fewer than 24."""
_UINT64 = (1 << 64) - 1
_DIGEST = 32


class Plain(NamedTuple):
    """Names unsealed readings: SHA-256 over the SHA-256 of each, in order."""

    digest: bytes


class Sealed(NamedTuple):
    """Names sealed readings: the sensor's key id, and the first and last count."""

    kid: bytes
    first: int
    last: int


Input = Plain | Sealed


class Answer(NamedTuple):
    """A model's decision, before it is bound to a message.

    :ivar label: a classifier's or an anomaly detector's decision; None for a regressor.
    :ivar score: the score of ``label``; an anomaly detector's error.
    :ivar value: a regressor's answer, in the manifest's unit; None for the others.
    :ivar scores: every output, after activation and smoothing, in the order of the labels; none beside ``top``.
    :ivar top: where the manifest has ``output.top_k``: the best labels with their scores, the best first.
    """

    label: str | None
    score: float | None
    value: float | None
    scores: Sequence[float]
    top: Sequence[tuple[str, float]] = ()


class ResultEncoder:
    """Encodes the results of one version of one model, all of one size.

    :param labels: a classifier's or an anomaly detector's labels; empty for a regressor.
    :param otherwise: one more label: ``decide.otherwise``.
    :param scores: number of scores in a result; 0 with ``top``.
    :param top: number of the best labels in a result.
    :param tune: tunables that the site has set; recorded in each result.
    :raises ConfigError: the labels differ in length by more than padding can hide.
    """

    def __init__(
        self,
        model: str,
        version: int,
        identity: bytes,
        *,
        labels: Sequence[str],
        otherwise: str | None = None,
        scores: int,
        top: int = 0,
        tune: Mapping[str, float],
    ) -> None:
        fixed: dict[str, object] = {"model": model, "version": version, "digest": identity}
        if tune:
            fixed["tune"] = dict(tune)
        self._fixed = cbor2.dumps(fixed)
        shortest, longest = _extremes(labels, otherwise, scores, top)
        self._size = {
            Plain: self._measure(longest, Plain(bytes(32))),
            Sealed: self._measure(longest, Sealed(bytes(8), _UINT64, _UINT64)),
        }
        least = len(self._body(shortest, 1, 0.0, Sealed(bytes(8), 0, 0), late=False))
        if (differ := self._size[Sealed] - PAD_LEAST - least) > PAD_MOST - PAD_LEAST:
            raise ConfigError(
                f"output.labels: by them results differ by {differ} bytes, and padding hides {PAD_MOST - PAD_LEAST}",
                hint="labels of more even lengths, or a smaller output.top_k",
            )

    @classmethod
    def of(
        cls, chain: Chain, model: str, version: int, identity: bytes, *, outputs: int, tune: Mapping[str, float]
    ) -> ResultEncoder:
        """Return what encodes the results of a signal chain.

        :param outputs: scores that the model gives.
        :raises ConfigError: as the constructor.
        """
        top = chain.output.top_k or 0
        otherwise = None if chain.decide is None else chain.decide.otherwise
        scores = 0 if top else outputs
        labels = chain.output.labels
        return cls(model, version, identity, labels=labels, otherwise=otherwise, scores=scores, top=top, tune=tune)

    def _measure(self, longest: Answer, of: Input) -> int:
        return len(self._body(longest, MAX_COUNT, 0.0, of, late=False)) + PAD_LEAST

    def _body(self, answer: Answer, count: int, time: float, of: Input, *, late: bool) -> bytes:
        fields: dict[str, object] = {"time": time, "count": count, "late": late, "scores": list(answer.scores)}
        if answer.label is not None:
            fields["label"] = answer.label
            fields["score"] = answer.score
        if answer.value is not None:
            fields["value"] = answer.value
        if answer.top:
            fields["top"] = list(answer.top)
        fields["input"] = list(of) if isinstance(of, Sealed) else of.digest
        varying = cbor2.dumps(fields)
        keys = self._fixed[0] + (varying[0] & _FEW)
        return bytes((keys,)) + self._fixed[1:] + varying[1:]

    def encode(self, answer: Answer, count: int, time: float, of: Input, *, late: bool = False) -> bytes:
        """Return the result map.

        :param count: that of the sealed message which carries it.
        :param time: Unix seconds by the board's clock.
        :param late: whether it was kept back by an absent broker and comes under a closed epoch.
        """
        body = self._body(answer, count, time, of, late=late)
        pad = self._size[type(of)] - len(body)
        return bytes((body[0] + 1,)) + body[1:] + _PAD_KEY + bytes((pad,)) + bytes(pad)


def _extremes(labels: Sequence[str], otherwise: str | None, scores: int, top: int) -> tuple[Answer, Answer]:
    """Return the answers of a model that are shortest and longest as CBOR."""
    if not labels:
        return (Answer(None, None, 0.0, (0.0,) * scores),) * 2
    by_size = sorted(labels, key=_size)
    every = by_size if otherwise is None else sorted((*labels, otherwise), key=_size)
    shortest, longest = (
        Answer(label, 0.0, None, (0.0,) * scores, [(one, 0.0) for one in best])
        for label, best in ((every[0], by_size[:top]), (every[-1], by_size[len(by_size) - top :]))
    )
    return shortest, longest


def _size(label: str) -> int:
    return len(label.encode())


@dataclass(frozen=True)
class Result:
    """A result as a hub reads it; fields as in :class:`Answer` and :meth:`ResultEncoder.encode`."""

    model: str
    version: int
    digest: bytes
    time: float
    count: int
    late: bool
    input: Input
    scores: tuple[float, ...]
    label: str | None = None
    score: float | None = None
    value: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    tune: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Result:
        """Take an opened result.

        :raises FormatError: a key is missing, unknown, or does not fit.
        """
        fields = cbor.decode(data, LIMITS)
        if not isinstance(fields, dict):
            raise FormatError("a result is not a map")
        for name, (wanted, optional) in _FIELDS.items():
            if name not in fields:
                if optional:
                    continue
                raise FormatError(f"a result lacks {name!r}")
            if not isinstance(fields[name], wanted) or (isinstance(fields[name], bool) and wanted is not bool):
                raise FormatError(f"{name!r} of a result does not fit")
        if unknown := set(fields) - set(_FIELDS):
            raise FormatError(f"a result has the unknown key {min(map(str, unknown))!r}")
        pad = fields.pop("pad")
        if any(pad) or not PAD_LEAST <= len(pad) <= PAD_MOST:
            raise FormatError(f"'pad' of a result is not {PAD_LEAST} to {PAD_MOST} zero bytes")
        _check_values(fields)
        fields["scores"] = tuple(fields["scores"])
        if "top" in fields:
            fields["top"] = _top(fields)
        fields["input"] = _input(fields["input"])
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """Return what people and scripts read: bytes as hex, absent fields left out."""
        shown: dict[str, Any] = {"model": self.model, "version": self.version, "time": self.time, "count": self.count}
        for name in ("label", "score", "value"):
            if (value := getattr(self, name)) is not None:
                shown[name] = value
        shown["scores"] = list(self.scores)
        if self.top:
            shown["top"] = [{"label": label, "score": score} for label, score in self.top]
        shown["late"] = self.late
        shown["digest"] = self.digest.hex()
        of = self.input
        shown["input"] = (
            of.digest.hex() if isinstance(of, Plain) else {"kid": of.kid.hex(), "first": of.first, "last": of.last}
        )
        if self.tune:
            shown["tune"] = dict(self.tune)
        return shown


_FIELDS: dict[str, tuple[type | tuple[type, ...], bool]] = {
    "model": (str, False),
    "version": (int, False),
    "digest": (bytes, False),
    "time": (float, False),
    "count": (int, False),
    "late": (bool, False),
    "scores": (list, False),
    "input": ((bytes, list), False),
    "pad": (bytes, False),
    "label": (str, True),
    "score": (float, True),
    "value": (float, True),
    "top": (list, True),
    "tune": (dict, True),
}


def _check_values(fields: Mapping[str, Any]) -> None:
    if not all(type(score) is float for score in fields["scores"]):
        raise FormatError("'scores' of a result are not all floats")
    if not all(type(name) is str and type(value) is float for name, value in fields.get("tune", {}).items()):
        raise FormatError("'tune' of a result is not a map from names to floats")
    if fields["version"] < 0 or len(fields["digest"]) != _DIGEST:
        raise FormatError("a result has a version or digest that does not fit")
    if ("label" in fields) is not ("score" in fields) or ("label" in fields) is ("value" in fields):
        raise FormatError("a result has neither a label with its score nor a value, or both")


def _top(fields: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    pairs = fields["top"]
    if not all(isinstance(pair, list) and [type(part) for part in pair] == [str, float] for pair in pairs):
        raise FormatError("'top' of a result is not a list of labels with their scores")
    if not pairs or fields["scores"] or "label" not in fields:
        raise FormatError("'top' of a result is empty, or stands beside scores or a value")
    return tuple((label, score) for label, score in pairs)


def _input(value: object) -> Input:
    if isinstance(value, bytes) and len(value) == _DIGEST:
        return Plain(value)
    if isinstance(value, list) and [type(part) for part in value] == [bytes, int, int]:
        kid, first, last = value
        if len(kid) == KID_SIZE and 0 <= first <= last:
            return Sealed(kid, first, last)
    raise FormatError("'input' of a result is neither a digest nor a sensor's counts")
