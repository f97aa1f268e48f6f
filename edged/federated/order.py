"""Orders: what an aggregator asks of a board in one round, signed, and carried out once.

Flower authenticates boards to the aggregator and not the aggregator's wishes to the board: whoever reaches its control
interface may ask for anything. So a board believes an order, which the aggregator's own key signed, and nothing else.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edged.base.errors import ConfigError, FormatError, MismatchError, NotAllowedError, ReplayError, error_context
from edged.base.files import PRIVATE_FILE, make_private_directory, read_bounded, write_atomically
from edged.base.names import NAME
from edged.config.federated import FederatedTable
from edged.formats.cose import cbor
from edged.formats.cose.keys import PublicKey, Signer
from edged.formats.cose.sign1 import Sign1, sign
from edged.formats.identity import Record

_MOST_EPOCHS = 1000
_MOST_BATCH = 65_536
_MOST_RATE = 100.0
_MOST_PROXIMAL = 1e4
_LEAST_NORM, _MOST_NORM = 1e-6, 1e9
_MOST_NOISE = 1e3


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The training of one round on a board's own examples.

    :ivar epochs: how often it goes over them.
    :ivar batch: examples of one step; with noise, how many a step takes on average.
    :ivar rate: the step's size, times the mean gradient.
    :ivar proximal: FedProx's mu, which pulls towards the weights that the round began with; 0.0 is FedAvg.
    :ivar clip: L2 norm that no example's gradient exceeds; without it, gradients are as they are.
    :ivar noise: of local differential privacy: the standard deviation is ``noise * clip``, added to each step's sum.
    :ivar bound: L2 norm that the whole update does not exceed.
    :raises ConfigError: a value lies out of bounds, or noise is wanted without a clip.
    """

    epochs: int
    batch: int
    rate: float
    proximal: float = 0.0
    clip: float | None = None
    noise: float = 0.0
    bound: float | None = None

    def __post_init__(self) -> None:
        _check("epochs", self.epochs, _MOST_EPOCHS, least=1)
        _check("batch", self.batch, _MOST_BATCH, least=1)
        _check("rate", self.rate, _MOST_RATE, above=True)
        _check("proximal", self.proximal, _MOST_PROXIMAL)
        _check("noise", self.noise, _MOST_NOISE)
        for name, value in (("clip", self.clip), ("bound", self.bound)):
            if value is not None:
                _check(name, value, _MOST_NORM, least=_LEAST_NORM)
        if self.noise and self.clip is None:
            raise ConfigError("plan.noise: wants plan.clip, which it is measured by")


def _check(name: str, value: float, most: float, *, least: float = 0.0, above: bool = False) -> None:
    if not (math.isfinite(value) and least <= value <= most) or (above and value == least):
        raise ConfigError(f"plan.{name}: {'above' if above else 'from'} {least:g} up to {most:g}, not {value:g}")


_AAD = cbor.encode(["edged.order.1"])
_KEYS = {"run", "round", "model", "weights", "plan", "masked", "issued"}
_LIMITS = cbor.Limits(256 * 1024, 8, 4096)
_LEAST_BOARDS, _MOST_BOARDS = 2, 1023
_MOST_RUN, _MOST_ROUND, _MOST_DATE = 1 << 53, 1 << 20, 1 << 53
_DIGEST = 32
_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Order:
    """The request of one round to a board.

    :ivar run: number of the training run; an aggregator's numbers only grow.
    :ivar round: from 1 on, within the run.
    :ivar weights: SHA-256 of the weights that the round begins with (:func:`edged.federated.weights.digest`).
    :ivar masked: true if updates go through SecAgg+, so that the aggregator sees their sum alone.
    :ivar boards: of a masked round, all that are asked: the thumbprint of each one's signing key by its name.
    :ivar issued: Unix seconds, by the aggregator's clock.
    :ivar digest: SHA-256 of what was signed; empty in an order that was not opened.
    """

    run: int
    round: int
    model: str
    weights: bytes
    plan: Plan
    masked: bool
    boards: Mapping[str, bytes] = field(default_factory=dict)
    issued: int = field(default_factory=lambda: int(time.time()))
    digest: bytes = field(default=b"", compare=False)

    def encode(self, signer: Signer) -> bytes:
        """Return the signed order."""
        payload = {name: getattr(self, name) for name in _KEYS} | {"plan": msgspec.to_builtins(self.plan)}
        if self.masked:
            payload["boards"] = dict(self.boards)
        return sign(cbor.encode(payload), _AAD, signer)

    @classmethod
    def open(cls, data: bytes, aggregator: PublicKey) -> Order:
        """Take a signed order.

        :param aggregator: the key that is pinned.
        :raises FormatError: it is none.
        :raises UnknownSignerError: another key signed it.
        :raises SignatureError: the signature does not hold.
        """
        signed = Sign1.parse(data, _LIMITS).verify(aggregator, _AAD)
        payload = cbor.decode_canonical(signed, _LIMITS)
        if not isinstance(payload, dict) or set(payload) - {"boards"} != _KEYS:
            raise FormatError("the order has keys missing or unknown")
        for name, most in (("run", _MOST_RUN), ("round", _MOST_ROUND), ("issued", _MOST_DATE)):
            if type(payload[name]) is not int or not 0 <= payload[name] < most:
                raise FormatError(f"the order's {name} is no number below {most}")
        model, weights = payload["model"], payload["weights"]
        if not isinstance(model, str) or not NAME.fullmatch(model):
            raise FormatError("the order names no model")
        if not isinstance(weights, bytes) or len(weights) != _DIGEST or type(payload["masked"]) is not bool:
            raise FormatError("the order's weights are no SHA-256, or masked is neither true nor false")
        if payload["masked"] != ("boards" in payload):
            raise FormatError("an order names its boards where they are masked, and only there")
        _check_boards(payload.get("boards"))
        try:
            plan = msgspec.convert(payload.pop("plan"), Plan)
        except (msgspec.ValidationError, ConfigError) as error:
            raise FormatError(f"the order's plan does not fit: {error}") from error
        return cls(**payload, plan=plan, digest=hashlib.sha256(signed).digest())

    def check(self, table: FederatedTable) -> None:
        """Check that this board's owner allows what is asked.

        :raises NotAllowedError: the owner does not.
        """
        if self.model not in table.models:
            raise NotAllowedError(
                f"the order is to train {self.model}, which is not among federated.models",
                hint=f"this board trains {', '.join(table.models)}",
            )
        if table.secure and not self.masked:
            raise NotAllowedError(
                f"run {self.run} does not mask its updates, and federated.secure wants that",
                hint="the aggregator trains with --secure, or this board's owner sets secure = false",
            )
        _check_privacy(self.plan, table)

    def check_boards(self, table: FederatedTable, own: Record) -> None:
        """Check who would mask together.

        :param own: this board's record.
        :raises NotAllowedError: this board is not among them, nor are enough, or one of ``federated.peers``.
        """
        if self.boards.get(own.id) != own.sign.thumbprint:
            raise NotAllowedError("the order does not name this board with its key")
        if len(self.boards) < table.least:
            raise NotAllowedError(
                f"{len(self.boards)} boards take part, and {table.least} must",
                hint="federated.least, or more boards at the aggregator",
            )
        for name, digits in table.peers_by_name.items():
            if not self.boards.get(name, b"").hex().startswith(digits) or name not in self.boards:
                raise NotAllowedError(
                    f"{name} is among federated.peers, and not among the boards of this round, or with another key"
                )

    def board_of(self, key: PublicKey) -> str:
        """Return the name of the board whose signing key this is.

        :raises NotAllowedError: of none that takes part.
        """
        for name, thumbprint in self.boards.items():
            if thumbprint == key.thumbprint:
                return name
        raise NotAllowedError(f"key {key.thumbprint.hex()[:16]} is of no board that the order names")

    def check_weights(self, weights: bytes) -> None:
        """Check that these are the weights that the round begins with.

        :param weights: their digest.
        :raises MismatchError: they are others.
        """
        if self.weights != weights:
            raise MismatchError("the weights are not those that the order was signed for")


def _check_boards(boards: object) -> None:
    if boards is None:
        return
    if not isinstance(boards, dict) or not _LEAST_BOARDS <= len(boards) <= _MOST_BOARDS:
        raise FormatError(f"the order's boards are not {_LEAST_BOARDS} to {_MOST_BOARDS}")
    if not all(isinstance(name, str) and NAME.fullmatch(name) for name in boards):
        raise FormatError("a board of the order has no name")
    if not all(isinstance(one, bytes) and len(one) == _DIGEST for one in boards.values()):
        raise FormatError("a board of the order has no key")
    if len(set(boards.values())) != len(boards):
        raise FormatError("two boards of the order have one key")


def _check_privacy(plan: Plan, table: FederatedTable) -> None:
    wanted = table.privacy
    if wanted.clip is not None and (plan.clip is None or plan.clip > wanted.clip):
        raise NotAllowedError(
            f"the round clips examples at {plan.clip}, and federated.privacy.clip is {wanted.clip:g}",
            hint=f"the aggregator trains with --clip {wanted.clip:g}",
        )
    if plan.noise < wanted.noise:
        raise NotAllowedError(
            f"the round's noise is {plan.noise:g}, and federated.privacy.noise is {wanted.noise:g}",
            hint=f"the aggregator trains with --noise {wanted.noise:g}",
        )


class Rounds:
    """The last round that was taken of each aggregator, durably: a round is trained once, whatever is sent again.

    :param path: the file that holds them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: dict[bytes, Sequence[int]] = {}
        if path.exists():
            with error_context(path, "a copy of an older one lets older rounds be repeated; removing it, all of them"):
                self._last = _parse(cbor.decode_canonical(read_bounded(path, _LIMIT)))

    def check(self, aggregator: PublicKey, run: int, number: int) -> None:
        """Refuse a round that was taken before, or that is older than one that was.

        :raises ReplayError: it is.
        """
        last = self._last.get(aggregator.thumbprint, (0, 0))
        if (run, number) <= tuple(last):
            raise ReplayError(f"round {number} of run {run} is not newer than round {last[1]} of run {last[0]}")

    def take(self, aggregator: PublicKey, run: int, number: int) -> None:
        """Note a round as taken, before it is trained.

        :raises ReplayError: as :meth:`check`.
        :raises OutputError: it cannot be noted.
        """
        self.check(aggregator, run, number)
        self._last[aggregator.thumbprint] = [run, number]
        make_private_directory(self._path.parent)
        write_atomically(self._path, [cbor.encode(self._last)], mode=PRIVATE_FILE, replace=True)


def _parse(value: object) -> dict[bytes, Sequence[int]]:
    try:
        found: dict[bytes, Sequence[int]] = msgspec.convert(value, dict[bytes, tuple[int, int]])
    except msgspec.ValidationError as error:
        raise FormatError(f"not the rounds that a board took: {error}") from error
    return found
