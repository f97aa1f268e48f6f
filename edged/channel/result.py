"""What a board says of a window: a CBOR map of one size per model, so that its length does not tell the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cbor2

from edged.channel.epoch import MAX_COUNT
from edged.cose import cbor
from edged.cose.encrypt0 import KID_SIZE
from edged.errors import FormatError

LIMITS = cbor.Limits(size=256 * 1024, depth=4, items=8192)
PAD_LEAST, PAD_MOST = 24, 87
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


@dataclass(frozen=True)
class Answer:
    """What a model's decision says, before it is bound to a message.

    :ivar label: a classifier's decision; None for a regressor.
    :ivar score: the score of ``label``.
    :ivar value: a regressor's answer, in the manifest's unit; None for a classifier.
    :ivar scores: every output, after activation, in the order of the labels.
    """

    label: str | None
    score: float | None
    value: float | None
    scores: Sequence[float]


class ResultEncoder:
    """Encodes the results of one version of one model, all of one size.

    :param labels: a classifier's labels; empty for a regressor.
    :param scores: how many scores a result carries.
    :param tune: tunables that the site has set; recorded in each result.
    """

    def __init__(
        self,
        model: str,
        version: int,
        identity: bytes,
        *,
        labels: Sequence[str],
        scores: int,
        tune: Mapping[str, float],
    ) -> None:
        fixed: dict[str, object] = {"model": model, "version": version, "digest": identity}
        if tune:
            fixed["tune"] = dict(tune)
        self._fixed = cbor2.dumps(fixed)
        longest = max(labels, key=lambda label: len(label.encode()), default=None)
        answer = Answer(longest, 0.0 if labels else None, None if labels else 0.0, (0.0,) * scores)
        self._size = {
            Plain: self._measure(answer, Plain(bytes(32))),
            Sealed: self._measure(answer, Sealed(bytes(8), _UINT64, _UINT64)),
        }

    def _measure(self, answer: Answer, of: Input) -> int:
        return len(self._body(answer, MAX_COUNT, 0.0, of, late=False)) + PAD_LEAST

    def _body(self, answer: Answer, count: int, time: float, of: Input, *, late: bool) -> bytes:
        fields: dict[str, object] = {"time": time, "count": count, "late": late, "scores": list(answer.scores)}
        if answer.label is not None:
            fields["label"] = answer.label
            fields["score"] = answer.score
        if answer.value is not None:
            fields["value"] = answer.value
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
            raise FormatError("'pad' of a result is not 24 to 87 zero bytes")
        _check_values(fields)
        return cls(**{**fields, "scores": tuple(fields["scores"]), "input": _input(fields["input"])})

    def to_json(self) -> dict[str, Any]:
        """Return what people and scripts read: bytes as hex, absent fields left out."""
        shown: dict[str, Any] = {"model": self.model, "version": self.version, "time": self.time, "count": self.count}
        for name in ("label", "score", "value"):
            if (value := getattr(self, name)) is not None:
                shown[name] = value
        shown["scores"] = list(self.scores)
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


def _input(value: object) -> Input:
    if isinstance(value, bytes) and len(value) == _DIGEST:
        return Plain(value)
    if isinstance(value, list) and [type(part) for part in value] == [bytes, int, int]:
        kid, first, last = value
        if len(kid) == KID_SIZE and 0 <= first <= last:
            return Sealed(kid, first, last)
    raise FormatError("'input' of a result is neither a digest nor a sensor's counts")
