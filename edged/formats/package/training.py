"""How the weights of a package came about, where boards learned them together: what its publisher signs of it."""

from __future__ import annotations

import math

import msgspec

from edged.base.errors import ConfigError

_MOST, _MOST_RUN = 1 << 32, 1 << 53


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The training record.

    :ivar run: its number at the aggregator that led it.
    :ivar aggregator: thumbprint of its signing key.
    :ivar rounds: how many led to these weights.
    :ivar boards: how many took part in at least one of them.
    :ivar strategy: how updates were averaged, in Flower's words.
    :ivar masked: whether the aggregator saw sums of updates alone (SecAgg+).
    :ivar score: on the aggregator's held-out windows, 0 to 1; None without any.
    :ivar clip: the norm that updates, or with local noise the gradients of single examples, were clipped to.
    :ivar noise: standard deviation of the noise, as a multiple of ``clip``; 0: none.
    :ivar local: whether boards added it themselves, before anything left them.
    :ivar epsilon: what that promises at ``delta``; None without noise.
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
        if not (0 < self.rounds < _MOST and 0 < self.boards < _MOST and 0 < self.run < _MOST_RUN):
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
