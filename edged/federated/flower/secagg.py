"""SecAgg+ (Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", 2020), as Flower has it.

It hides each update in a sum from an aggregator that follows the protocol and is curious ("honest but curious"), and
from whoever carries its messages and lies. Put right here, on both sides:

- Flower's masks come of a generator that folds a secret of 32 bytes to 32 *bits* by XOR: whoever sees a masked update
  can try them all. :func:`masks` uses the whole secret.
- Boards believe no key that is only handed round: the signed order names the boards, and each signs for its keys
  (:mod:`edged.federated.statement`). What was signed is in the derivation of every mask.
- Boards check what the aggregator asks for: how many boards there are, how many shares open a secret, and that no
  secret of a board is ever opened together with the mask that it protects.
- Boards open secrets for one sum alone, which enough of them have signed for: told of different ones, they would open
  between them what none of them would.
- A board that is lost before it has handed out its shares does not spoil the round for the others.

What a board keeps between the four stages of a round stays in this process and goes no further than one round.
"""

from __future__ import annotations

import importlib
import math
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, RECORD_KEY_STATE, Key, Stage

from edged.base.errors import FormatError, NotAllowedError
from edged.federated.flower.protocol import CONFIRM, CONFIRMATION, CONFIRMATIONS, ORDER, ROUND, STATEMENT, STATEMENTS
from edged.federated.order import Order
from edged.federated.statement import MaskKeys, Parties, Party
from edged.formats.cose.algorithms import KEY_SIZE, keystream

_MASK, _SHARE = b"edged.mask.1", b"edged.share.1"
_BINDING: ContextVar[bytes] = ContextVar("edged.binding")
MODULUS = 1 << 32
_WORD = np.dtype("<u4")

STEPS = 1 << 22
"""Steps that the range of a weight's change is quantised to."""

_MOST_BOARDS = MODULUS // STEPS - 1
"""The sum of so many quantised updates stays below the modulus."""

# both packages give a function the name of the module that it stands in
_MOD = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
_WORKFLOW = importlib.import_module("flwr.server.workflow.secure_aggregation.secaggplus_workflow")


def masks(seed: bytes, num_range: int, dimensions_list: list[tuple[int, ...]]) -> list[npt.NDArray[np.int64]]:
    """Return arrays of these shapes, uniform over ``[0, num_range)``, from the whole of ``seed``.

    Takes the place of Flower's ``pseudo_rand_gen``, and has its parameters; called inside :func:`bound`.

    :param num_range: 2^32: everything else is refused, because it would not be uniform.
    """
    if num_range != MODULUS:
        raise NotAllowedError(f"masks modulo {num_range}, and edged masks modulo 2^32 alone")
    sizes = [math.prod(shape) for shape in dimensions_list]
    stream = np.frombuffer(keystream(seed, _MASK + _BINDING.get(), _WORD.itemsize * sum(sizes)), _WORD).astype(np.int64)
    parts = np.split(stream, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, dimensions_list, strict=True)]


def agree(private_key: ec.EllipticCurvePrivateKey, public_key: ec.EllipticCurvePublicKey) -> bytes:
    """Return what two boards share: 32 bytes as base64url. Takes the place of Flower's ``generate_shared_key``."""
    shared = private_key.exchange(ec.ECDH(), public_key)
    info = _SHARE + _BINDING.get()
    return urlsafe_b64encode(HKDF(hashes.SHA256(), KEY_SIZE, salt=None, info=info).derive(shared))


for _module in (_MOD, _WORKFLOW):
    _module.pseudo_rand_gen = masks  # type: ignore[attr-defined]
    _module.generate_shared_key = agree  # type: ignore[attr-defined]


@contextmanager
def bound(binding: bytes) -> Iterator[None]:
    """Derive all masks and keys in the block for these parties (:attr:`Parties.binding`)."""
    token = _BINDING.set(binding)
    try:
        yield
    finally:
        _BINDING.reset(token)


def is_masked(message: Message) -> bool:
    """Return True if a message belongs to a masked round."""
    return RECORD_KEY_CONFIGS in message.content.config_records


class _Round:
    """One board's memory of one masked round: it goes no further."""

    def __init__(self, message: Message, party: Party) -> None:
        metadata = message.metadata
        # what Flower's side of a round keeps its keys in, and nothing that Flower would hand on
        self.context = Context(metadata.run_id, metadata.dst_node_id, {}, RecordDict(), {})
        self.party = party
        self.parties = Parties(party.order, {}, b"")
        self.summing: frozenset[int] = frozenset()
        self.confirmed = False

    @property
    def threshold(self) -> int:
        return _int(self.context.state.config_records[RECORD_KEY_STATE]["threshold"])


class Masking:
    """A board's side of masked rounds.

    :param least: boards that a masked round must have.
    :param join: believes a signed order and notes its round.
    :param train: answers Flower's FitIns with what to mask, and the largest change in it; gets the order of the round.
    """

    def __init__(
        self, least: int, join: Callable[[bytes], Party], train: Callable[[Message, Order], tuple[Message, float]]
    ) -> None:
        self._least = least
        self._join = join
        self._train = train
        self._round: _Round | None = None

    def __call__(self, message: Message) -> Message:
        """Return the reply to one stage. After a refusal, only a new round's first stage is answered.

        :raises TrustError: the order is not believed, or the aggregator asks for what would give an update away.
        :raises FormatError: the message does not fit the protocol.
        """
        records = message.content.config_records
        configs, beside = records[RECORD_KEY_CONFIGS], records.get(ROUND, ConfigRecord())
        stage = configs.get(Key.STAGE)
        this, self._round = self._round, None  # whatever goes wrong, secrets are not used again
        try:
            if stage == Stage.SETUP:
                self._check_setup(configs)
                this = _Round(message, self._join(_bytes(beside[ORDER])))
            elif this is None or this.context.run_id != message.metadata.run_id:
                raise NotAllowedError(f"masked stage {stage!r} outside of a round")
            self._check(str(stage), configs, beside, this)
            reply = self._confirm(message, configs, this) if stage == CONFIRM else self._flower(message, this)
        except (KeyError, ValueError, TypeError, AttributeError, InvalidToken) as error:
            raise FormatError(f"masked stage {stage!r}: {type(error).__name__}: {error}") from error
        if stage == Stage.SETUP:
            keys = reply.content.config_records[RECORD_KEY_CONFIGS]
            said = this.party.state(message.metadata.dst_node_id, (keys[Key.PUBLIC_KEY_1], keys[Key.PUBLIC_KEY_2]))
            reply.content.config_records[ROUND] = ConfigRecord({STATEMENT: said})
        if stage != Stage.UNMASK:
            self._round = this
        return reply

    def _flower(self, message: Message, this: _Round) -> Message:
        """Return what Flower's side of SecAgg+ answers."""

        def call(message: Message, context: Context) -> Message:
            reply, largest = self._train(message, this.party.order)
            allowed = context.state.config_records[RECORD_KEY_STATE]["clipping_range"]
            if not isinstance(allowed, float) or largest > allowed:
                raise NotAllowedError(
                    f"a weight moved by {largest:.4g}, and the round masks moves up to {allowed}: it would be cut off",
                    hint="the aggregator trains with a lower --rate or --bound",
                )
            return reply

        with bound(this.parties.binding):
            return _MOD.secaggplus_mod(message, this.context, call)

    def _confirm(self, message: Message, configs: ConfigRecord, this: _Round) -> Message:
        if this.confirmed:
            raise NotAllowedError("a second sum of one round")
        this.confirmed = True
        said = this.party.confirm(this.parties, *_active_and_dead(configs))
        return Message(RecordDict({ROUND: ConfigRecord({CONFIRMATION: said})}), reply_to=message)

    def _check(self, stage: str, configs: ConfigRecord, beside: ConfigRecord, this: _Round) -> None:
        own = this.context.node_id
        if stage == Stage.SHARE_KEYS:
            this.parties = Parties.gather(this.party.order, _byte_strings(beside[STATEMENTS]))
            this.parties.check_keys(_keys(configs))
            if (said := this.parties.by_node.get(own)) is None or said.device != this.party.device.id:
                raise NotAllowedError("this board's own statement is not among those of the round")
            self._check_enough(len(this.parties.by_node), this.threshold, "share keys")
        elif stage == Stage.COLLECT_MASKED_VECTORS:
            this.summing = _nodes([*_ints(configs[Key.SOURCE_LIST]), own])
            if not this.summing <= this.parties.by_node.keys():
                raise NotAllowedError("shares of boards that gave no keys")
            self._check_enough(len(this.summing), this.threshold, "add up")
        elif stage in {CONFIRM, Stage.UNMASK}:
            active, dead = _active_and_dead(configs)
            self._check_sum(active, dead, own, this)
            if stage == Stage.UNMASK:
                signed = this.parties.check_sum(_byte_strings(beside[CONFIRMATIONS]), active, dead)
                self._check_enough(signed, this.threshold, "have confirmed the sum")

    def _check_setup(self, configs: ConfigRecord) -> None:
        boards, shares, threshold = (_int(configs[key]) for key in (Key.SAMPLE_NUMBER, Key.SHARE_NUMBER, Key.THRESHOLD))
        self._check_enough(boards, 0, "take part")
        if not self._least <= shares <= boards <= _MOST_BOARDS:
            raise NotAllowedError(f"{shares} shares among {boards} boards: {self._least} to {boards} are safe")
        if not shares < 2 * threshold <= 2 * shares:
            raise NotAllowedError(
                f"{threshold} of {shares} shares open a secret: two groups of boards could open both of one board's",
                hint="more than half are wanted",
            )
        if configs[Key.MOD_RANGE] != MODULUS or configs[Key.TARGET_RANGE] != STEPS or configs[Key.MAX_WEIGHT] != 1.0:
            raise NotAllowedError(f"masks modulo 2^32, {STEPS} steps and weights of 1 are all that this board does")
        largest = configs[Key.CLIPPING_RANGE]
        if not isinstance(largest, float) or not 0 < largest < math.inf:
            raise NotAllowedError(f"a range of {largest} holds no update")

    def _check_sum(self, active: frozenset[int], dead: frozenset[int], own: int, this: _Round) -> None:
        if both := active & dead:
            raise NotAllowedError(f"both secrets of board {min(both)}: together they open its update")
        if not active | dead <= this.summing:
            raise NotAllowedError("secrets of boards that are not in the sum")
        if own not in active:
            raise NotAllowedError("this board's own key, though it is there")
        self._check_enough(len(active), this.threshold, "are in the sum")

    def _check_enough(self, boards: int, threshold: int, what: str) -> None:
        wanted = max(self._least, threshold)
        if boards < wanted:
            raise NotAllowedError(
                f"{boards} boards {what}, and {wanted} must", hint="federated.least, or more boards at the aggregator"
            )


def _keys(configs: ConfigRecord) -> dict[int, MaskKeys]:
    """Return the keys that Flower's side is about to use, by number."""
    found = {name: _byte_strings(value) for name, value in configs.items() if name != Key.STAGE}
    _nodes(map(int, found))
    return {int(name): (pk1, pk2) for name, (pk1, pk2) in found.items()}


def _active_and_dead(configs: ConfigRecord) -> tuple[frozenset[int], frozenset[int]]:
    return _nodes(_ints(configs[Key.ACTIVE_NODE_ID_LIST])), _nodes(_ints(configs[Key.DEAD_NODE_ID_LIST]))


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{value!r} is no byte string")
    return value


def _byte_strings(value: object) -> list[bytes]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return [_bytes(one) for one in value]


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no number")
    return value


def _ints(value: object) -> list[int]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return [_int(one) for one in value]


def _nodes(numbers: Any) -> frozenset[int]:  # noqa: ANN401  any iterable
    listed = list(numbers)
    if len(set(listed)) != len(listed):
        raise ValueError("a board is named twice")
    return frozenset(listed)


def quantisation_step(largest: float) -> float:
    """Return how far the mean of masked updates may lie from the mean of the updates."""
    return 2 * largest / STEPS
