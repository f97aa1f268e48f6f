"""The encoder of results: a CBOR map of one size per model and kind of input, so that its length tells nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import cbor2

from edged.base.errors import ConfigError
from edged.formats.channel.epoch import MAX_COUNT
from edged.formats.channel.result import LONGEST_SOURCE, MOST_SCORES, PAD_LEAST, Answer, Input, Plain, Sealed
from edged.formats.cose import cbor
from edged.formats.spec import Chain

_PAD_KEY = cbor.encode("pad") + b"\x59"
_FEW = 0x1F
"""Mask of the number of keys in the head of a map that has fewer than 24."""
_UINT64 = (1 << 64) - 1
Tell = Literal["label", "score", "scores"]
"""The share of an answer that a result tells: the label alone; its score, too; all scores or the best ones, too."""


class ResultEncoder:
    """Encodes the results of one version of one model, all of one size.

    :param labels: all that a classifier or an anomaly detector may say; empty for a regressor.
    :param scores: number of scores in a result; 0 with ``top``.
    :param top: number of the best labels in a result.
    :param tell: how much of an answer a result says.
    :param tune: tunables that the site has set; recorded in each result.
    :raises ConfigError: a result would hold more scores than hubs accept.
    """

    def __init__(
        self,
        model: str,
        version: int,
        identity: bytes,
        *,
        labels: Sequence[str],
        scores: int,
        top: int = 0,
        tell: Tell = "scores",
        tune: Mapping[str, float],
    ) -> None:
        if tell == "scores" and scores > MOST_SCORES:
            raise ConfigError(
                f"output.tell: {scores} scores in each result, and hubs accept {MOST_SCORES}",
                hint="output.tell = 'score' leaves them out",
            )
        self._tell = tell
        fixed: dict[str, object] = {"model": model, "version": version, "digest": identity}
        if tune:
            fixed["tune"] = dict(tune)
        self._fixed = cbor2.dumps(fixed)
        longest = _longest(labels, scores, top)
        inputs = (Plain(bytes(32)), Sealed(bytes(8), _UINT64, _UINT64))
        self._size = {
            (type(of), bool(source)): PAD_LEAST
            + len(self._body(longest._replace(source=source), MAX_COUNT, 0.0, of, late=False, redelivered=True))
            for of in inputs
            for source in ("", "+" * LONGEST_SOURCE)
        }

    @classmethod
    def of(
        cls, chain: Chain, model: str, version: int, identity: bytes, *, outputs: int, tune: Mapping[str, float]
    ) -> ResultEncoder:
        """Return what encodes the results of a signal chain.

        :param outputs: scores that the model gives.
        :raises ConfigError: as the constructor.
        """
        output = chain.output
        return cls(
            model,
            version,
            identity,
            labels=chain.all_labels,
            scores=0 if output.top_k else outputs,
            top=output.top_k or 0,
            tell=output.tell,
            tune=tune,
        )

    def _body(self, answer: Answer, count: int, time: float, of: Input, *, late: bool, redelivered: bool) -> bytes:
        fields: dict[str, object] = {"time": time, "count": count, "late": late}
        if redelivered:
            fields["redelivered"] = True
        if answer.source:
            fields["source"] = answer.source
        if answer.label is not None:
            fields["label"] = answer.label
            if self._tell != "label":
                fields["score"] = answer.score
        if answer.value is not None:
            fields["value"] = answer.value
        if self._tell == "scores":
            fields |= {"top": list(answer.top)} if answer.top else {"scores": list(answer.scores)}
        fields["input"] = list(of) if isinstance(of, Sealed) else of.digest
        varying = cbor2.dumps(fields)
        keys = self._fixed[0] + (varying[0] & _FEW)
        return bytes((keys,)) + self._fixed[1:] + varying[1:]

    def encode(
        self, answer: Answer, count: int, time: float, of: Input, *, late: bool = False, redelivered: bool = False
    ) -> bytes:
        """Return the result map.

        :param count: that of the sealed message which carries it.
        :param time: Unix seconds by the board's clock.
        :param late: True if no broker takes it now, or nobody subscribes to it.
        :param redelivered: True if the reading was handed out before, and nobody knows whether it was answered.
        """
        body = self._body(answer, count, time, of, late=late, redelivered=redelivered)
        pad = self._size[type(of), bool(answer.source)] - len(body)
        return bytes((body[0] + 1,)) + body[1:] + _PAD_KEY + pad.to_bytes(2, "big") + bytes(pad)


def _longest(labels: Sequence[str], scores: int, top: int) -> Answer:
    """Return the answer of a model that is longest as CBOR."""
    if not labels:
        return Answer(None, None, 0.0, (0.0,) * scores)
    by_size = sorted(labels, key=lambda label: len(label.encode()), reverse=True)
    return Answer(by_size[0], 0.0, None, (0.0,) * scores, [(one, 0.0) for one in by_size[:top]])
