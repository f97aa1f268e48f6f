"""Results: a board's answer to a window, as a CBOR map that a hub reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from edged.base.errors import FormatError
from edged.formats.cose import cbor
from edged.formats.cose.encrypt0 import KID_SIZE

LIMITS = cbor.Limits(size=256 * 1024, depth=4, items=8192)
PAD_LEAST, PAD_MOST = 256, 65_535
"""Between these the head of `pad` has one size."""
LONGEST_SOURCE = 128
"""Bytes of a source in UTF-8."""
MOST_SCORES = 4096
_LEAST_VALUES, _MOST_NAMED, _MOST_BOXES, _MOST_TOP = 2, 64, 32, 5
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
    :ivar source: the levels that `+` stood for in the topic of the readings; empty where the filter has none.
    """

    label: str | None
    score: float | None
    value: float | None
    scores: Sequence[float]
    top: Sequence[tuple[str, float]] = ()
    source: str = ""


class Box(NamedTuple):
    """A part of a picture that a detector names; its sides are shares of the picture's, from left and top, 0 to 1."""

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


class Result(msgspec.Struct, frozen=True):
    """A result as a hub reads it; fields as in :class:`Answer` and of the encoder's ``encode``.

    :ivar late: True if it was sealed while no broker took it, or nobody subscribed to it.
    :ivar redelivered: True if it may repeat another result: its readings were handed out before, to a process that did
        not live to tell whether it answered them.
    :ivar scores: empty where the author leaves them out, or where there is ``top``.
    :ivar values: of a model with several named outputs.
    :ivar counts: how many of each label a detector sees.
    :ivar boxes: those that it is surest of, the best first.
    """

    model: str
    version: int
    digest: bytes
    time: float
    count: int
    late: bool
    input: Input
    redelivered: bool = False
    source: str = ""
    scores: tuple[float, ...] = ()
    label: str | None = None
    score: float | None = None
    value: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    values: Mapping[str, float] = {}
    counts: Mapping[str, int] = {}
    boxes: tuple[Box, ...] = ()
    tune: Mapping[str, float] = {}

    @classmethod
    def parse(cls, data: bytes) -> Result:
        """Take an opened result. Keys that this release does not know are passed over.

        :raises FormatError: a key is missing, or does not fit.
        """
        found = cbor.decode(data, LIMITS)
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise FormatError("a result is not a map with text as keys")
        fields: dict[str, Any] = {name: found[name] for name in _FIELDS if name in found}
        _check(fields)
        del fields["pad"]
        for name in fields.keys() & _TUPLES.keys():
            fields[name] = tuple(map(_TUPLES[name], fields[name]))
        fields["input"] = _input(fields["input"])
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """Return what people and scripts read: bytes as hex, absent fields left out."""
        source = {"source": self.source} if self.source else {}
        shown: dict[str, Any] = {"model": self.model, "version": self.version, **source}
        shown |= {"time": self.time, "count": self.count}
        for name in ("label", "score", "value"):
            if (value := getattr(self, name)) is not None:
                shown[name] = value
        for name in ("values", "counts"):
            if named := getattr(self, name):
                shown[name] = dict(named)
        if self.boxes:
            shown["boxes"] = [box._asdict() for box in self.boxes]
        if self.scores:
            shown["scores"] = list(self.scores)
        if self.top:
            shown["top"] = [{"label": label, "score": score} for label, score in self.top]
        shown["late"] = self.late
        if self.redelivered:
            shown["redelivered"] = True
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
    "redelivered": (bool, True),
    "source": (str, True),
    "scores": (list, True),
    "input": ((bytes, list), False),
    "pad": (bytes, False),
    "label": (str, True),
    "score": (float, True),
    "value": (float, True),
    "top": (list, True),
    "values": (dict, True),
    "counts": (dict, True),
    "boxes": (list, True),
    "tune": (dict, True),
}
_ANSWERS = frozenset({"label", "value", "values", "counts"})
_PAIRS = (
    ("score", "label", True),
    ("top", "score", True),
    ("top", "scores", False),
    ("boxes", "counts", True),
)
"""Keys that a result has with, or without, another."""


_TUPLES: dict[str, Callable[[Any], object]] = {"scores": float, "top": tuple, "boxes": lambda box: Box(*box)}


def _check(fields: Mapping[str, Any]) -> None:
    for name, (wanted, optional) in _FIELDS.items():
        if name not in fields:
            if not optional:
                raise FormatError(f"a result lacks {name!r}")
            continue
        value, fits = fields[name], _CHECKS.get(name)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise FormatError(f"{name!r} of a result is of another type")
        if fits is not None and not fits(value):
            raise FormatError(f"{name!r} of a result does not fit")
    for name, beside, together in _PAIRS:
        if name in fields and (beside in fields) is not together:
            raise FormatError(f"a result has {name!r} {'without' if together else 'beside'} {beside!r}")
    if fields.keys().isdisjoint(_ANSWERS):
        raise FormatError("a result has neither a label nor a value, nor values or counts")


def _are_named(value: dict[object, object], kind: type) -> bool:
    return all(type(name) is str and type(one) is kind for name, one in value.items())


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and [type(part) for part in value] == [str, float]


def _is_box(value: object) -> bool:
    if not isinstance(value, list) or [type(part) for part in value] != [str, *[float] * 5]:
        return False
    left, top, right, bottom = value[2:]
    return bool(0 <= left <= right <= 1 and 0 <= top <= bottom <= 1)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "version": lambda version: version >= 0,
    "digest": lambda digest: len(digest) == _DIGEST,
    "redelivered": lambda redelivered: redelivered,  # absent where it is not
    "source": lambda source: 0 < len(source.encode()) <= LONGEST_SOURCE,
    "scores": lambda scores: 0 < len(scores) <= MOST_SCORES and all(type(score) is float for score in scores),
    "top": lambda top: 0 < len(top) <= _MOST_TOP and all(map(_is_pair, top)),
    "values": lambda values: _LEAST_VALUES <= len(values) <= _MOST_NAMED and _are_named(values, float),
    "counts": lambda counts: (
        0 < len(counts) <= _MOST_NAMED and _are_named(counts, int) and all(count >= 0 for count in counts.values())
    ),
    "boxes": lambda boxes: len(boxes) <= _MOST_BOXES and all(map(_is_box, boxes)),
    "tune": lambda tune: _are_named(tune, float),
    "pad": lambda pad: PAD_LEAST <= len(pad) <= PAD_MOST and not any(pad),
}


def _input(value: object) -> Input:
    if isinstance(value, bytes) and len(value) == _DIGEST:
        return Plain(value)
    if isinstance(value, list) and [type(part) for part in value] == [bytes, int, int]:
        kid, first, last = value
        if len(kid) == KID_SIZE and 0 <= first <= last:
            return Sealed(kid, first, last)
    raise FormatError("'input' of a result is neither a digest nor a sensor's counts")
