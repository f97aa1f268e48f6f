"""SecAgg+ (Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", 2020), as Flower has it.

It hides each update in a sum from an aggregator that follows the protocol and is curious ("honest but curious"). Three
things are put right here, on both sides:

- Flower's masks come of a generator that folds a secret of 32 bytes to 32 *bits* by XOR: whoever sees a masked update
  can try them all. :func:`masks` uses the whole secret.
- Boards check what the aggregator asks for: how many boards there are, how many shares open a secret, and that no
  secret of a board is ever opened together with the mask that it protects.
- A board that is lost before it has handed out its shares does not spoil the round for the others.

What a board keeps between the four stages of a round stays in this process and goes no further than one round.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.fernet import InvalidToken
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, RECORD_KEY_STATE, Key, Stage
from flwr.server.workflow import SecAggPlusWorkflow

from edged.base.errors import FormatError, NotAllowedError
from edged.formats.cose.algorithms import keystream

_CONTEXT = "edged.mask.1"
_MODULUS = 1 << 32
_WORD = np.dtype("<u4")

STEPS = 1 << 22
"""Steps that the range of a weight's change is quantised to."""

_MOST_BOARDS = _MODULUS // STEPS - 1
"""The sum of so many quantised updates stays below the modulus."""

# both packages give a function the name of the module that it stands in
_MOD = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
_WORKFLOW = importlib.import_module("flwr.server.workflow.secure_aggregation.secaggplus_workflow")


def masks(seed: bytes, num_range: int, dimensions_list: list[tuple[int, ...]]) -> list[npt.NDArray[np.int64]]:
    """Return arrays of these shapes, uniform over ``[0, num_range)``, from the whole of ``seed``.

    Takes the place of Flower's ``pseudo_rand_gen``, and has its parameters.

    :param num_range: 2^32: everything else is refused, because it would not be uniform.
    """
    if num_range != _MODULUS:
        raise NotAllowedError(f"masks modulo {num_range}, and edged masks modulo 2^32 alone")
    sizes = [math.prod(shape) for shape in dimensions_list]
    stream = np.frombuffer(keystream(seed, _CONTEXT, _WORD.itemsize * sum(sizes)), _WORD).astype(np.int64)
    parts = np.split(stream, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, dimensions_list, strict=True)]


_MOD.pseudo_rand_gen = masks  # type: ignore[attr-defined]
_WORKFLOW.pseudo_rand_gen = masks  # type: ignore[attr-defined]


def is_masked(message: Message) -> bool:
    """Return True if a message belongs to a masked round."""
    return RECORD_KEY_CONFIGS in message.content.config_records


class Masking:
    """A board's side of masked rounds.

    :param least: boards that a masked round must have.
    :param train: answers Flower's FitIns with what to mask, and the largest change in it.
    """

    def __init__(self, least: int, train: Callable[[Message], tuple[Message, float]]) -> None:
        self._least = least
        self._train = train
        self._context: Context | None = None
        self._sharing: frozenset[int] = frozenset()
        self._summing: frozenset[int] = frozenset()

    def __call__(self, message: Message) -> Message:
        """Return the reply to one stage. After a refusal, only a new round's first stage is answered.

        :raises NotAllowedError: the aggregator asks for what would give a board's update away.
        :raises FormatError: the message does not fit the protocol.
        """
        configs = message.content.config_records[RECORD_KEY_CONFIGS]
        stage = configs.get(Key.STAGE)
        context, self._context = self._context, None  # whatever goes wrong, secrets are not used again
        if stage == Stage.SETUP:
            context = _fresh(message)
        elif context is None or context.run_id != message.metadata.run_id:
            raise NotAllowedError(f"masked stage {stage!r} outside of a round")
        try:
            self._check(str(stage), configs, message.metadata.dst_node_id, context)
            reply: Message = _MOD.secaggplus_mod(message, context, self._call)
        except (KeyError, ValueError, TypeError, AttributeError, InvalidToken) as error:
            raise FormatError(f"masked stage {stage!r}: {type(error).__name__}: {error}") from error
        if stage != Stage.UNMASK:
            self._context = context
        return reply

    def _call(self, message: Message, context: Context) -> Message:
        reply, largest = self._train(message)
        allowed = context.state.config_records[RECORD_KEY_STATE]["clipping_range"]
        if not isinstance(allowed, float) or largest > allowed:
            raise NotAllowedError(
                f"a weight moved by {largest:.4g}, and the round masks moves up to {allowed}: it would be cut off",
                hint="the aggregator trains with a lower --rate or --bound",
            )
        return reply

    def _check(self, stage: str, configs: ConfigRecord, own: int, context: Context) -> None:
        if stage == Stage.SETUP:
            self._check_setup(configs)
        elif stage == Stage.SHARE_KEYS:
            self._sharing = _nodes(int(name) for name in configs if name != Key.STAGE)
            self._check_enough(len(self._sharing), _threshold(context), "share keys")
        elif stage == Stage.COLLECT_MASKED_VECTORS:
            self._summing = _nodes([*_ints(configs[Key.SOURCE_LIST]), own])
            if not self._summing <= self._sharing:
                raise NotAllowedError("shares of boards that gave no keys")
            self._check_enough(len(self._summing), _threshold(context), "add up")
        elif stage == Stage.UNMASK:
            self._check_unmask(configs, own, _threshold(context))

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
        if configs[Key.MOD_RANGE] != _MODULUS or configs[Key.TARGET_RANGE] != STEPS or configs[Key.MAX_WEIGHT] != 1.0:
            raise NotAllowedError(f"masks modulo 2^32, {STEPS} steps and weights of 1 are all that this board does")
        largest = configs[Key.CLIPPING_RANGE]
        if not isinstance(largest, float) or not 0 < largest < math.inf:
            raise NotAllowedError(f"a range of {largest} holds no update")

    def _check_unmask(self, configs: ConfigRecord, own: int, threshold: int) -> None:
        active, dead = (_nodes(_ints(configs[key])) for key in (Key.ACTIVE_NODE_ID_LIST, Key.DEAD_NODE_ID_LIST))
        if both := active & dead:
            raise NotAllowedError(f"both secrets of board {min(both)}: together they open its update")
        if not active | dead <= self._summing:
            raise NotAllowedError("secrets of boards that are not in the sum")
        if own not in active:
            raise NotAllowedError("this board's own key, though it is there")
        self._check_enough(len(active), threshold, "are in the sum")

    def _check_enough(self, boards: int, threshold: int, what: str) -> None:
        wanted = max(self._least, threshold)
        if boards < wanted:
            raise NotAllowedError(
                f"{boards} boards {what}, and {wanted} must", hint="federated.least, or more boards at the aggregator"
            )


def _fresh(message: Message) -> Context:
    """Return what Flower's side of a round keeps its keys in: new for each round, and never handed on."""
    metadata = message.metadata
    return Context(metadata.run_id, metadata.dst_node_id, {}, RecordDict(), {})


def _threshold(context: Context) -> int:
    return _int(context.state.config_records[RECORD_KEY_STATE]["threshold"])


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


class MaskedRound(SecAggPlusWorkflow):  # type: ignore[misc]
    """The aggregator's side of a masked round.

    Each board has a share of every other's secrets, and two thirds of them open one: above half, so that no two groups
    of boards open both secrets of a board, and few enough to do without some.

    :param largest: change of a weight that boards can mask; what lies beyond, they refuse to send.
    :param patience: seconds to wait in each of the four stages.
    """

    def __init__(self, largest: float, patience: float) -> None:
        super().__init__(
            num_shares=1.0,
            reconstruction_threshold=2 / 3,
            max_weight=1.0,
            clipping_range=float(largest),
            quantization_range=STEPS,
            modulus_range=_MODULUS,
            timeout=patience,
        )

    def share_keys_stage(self, grid: Any, context: Any, state: Any) -> bool:  # noqa: ANN401  Flower's
        """Hand keys round, and go on with the boards that answered: nobody holds shares of the others."""
        enough = bool(super().share_keys_stage(grid, context, state))
        state.sampled_node_ids = set(state.active_node_ids)
        state.nid_to_neighbours = {
            node: state.nid_to_neighbours[node] & state.sampled_node_ids for node in state.sampled_node_ids
        }
        return enough


def quantisation_step(largest: float) -> float:
    """Return how far the mean of masked updates may lie from the mean of the updates."""
    return 2 * largest / STEPS
