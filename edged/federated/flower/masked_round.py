"""The aggregator's side of a masked round: Flower's SecAgg+, with what boards sign carried beside it."""

# ruff: noqa: ANN401  Flower's messages, states and grids

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message_type import MessageType
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey

from edged.base.errors import EdgedError, FormatError, MismatchError
from edged.base.nothing import nothing
from edged.federated.flower.protocol import CONFIRM, CONFIRMATION, CONFIRMATIONS, ORDER, ROUND, STATEMENT, STATEMENTS
from edged.federated.flower.secagg import MODULUS, STEPS, bound
from edged.federated.flower.strategy import GuardedStrategy
from edged.federated.order import Order
from edged.federated.statement import Parties, open_statement


class MaskedRound(SecAggPlusWorkflow):  # type: ignore[misc]
    """The aggregator's side of masked rounds.

    Each board has a share of every other's secrets, and two thirds of them open one: above half, so that no two groups
    of boards open both secrets of a board, and few enough to do without some.

    :param guard: gives out each round's order.
    :param largest: change of a weight that boards can mask; what lies beyond, they refuse to send.
    :param patience: seconds to wait in each of the five stages.
    """

    def __init__(self, guard: GuardedStrategy, largest: float, patience: float) -> None:
        super().__init__(
            num_shares=1.0,
            reconstruction_threshold=2 / 3,
            max_weight=1.0,
            clipping_range=float(largest),
            quantization_range=STEPS,
            modulus_range=MODULUS,
            timeout=patience,
        )
        self._guard = guard
        self._statements: dict[int, bytes] = {}

    def setup_stage(self, grid: Any, context: Any, state: Any) -> bool:
        """Hand out the order, and go on with the boards that state their keys."""
        self._statements = {}
        carrier = _Carrier(grid, lambda: {ORDER: self._guard.ordered}, self._take_statement)
        return bool(super().setup_stage(carrier, context, state))

    def share_keys_stage(self, grid: Any, context: Any, state: Any) -> bool:
        """Hand keys and statements round, and go on with the boards that answered: of others nobody holds shares."""
        said = [self._statements[node] for node in sorted(self._statements)]
        self._parties = Parties.gather(self._order, said)
        enough = bool(super().share_keys_stage(_Carrier(grid, lambda: {STATEMENTS: said}), context, state))
        state.sampled_node_ids = set(state.active_node_ids)
        state.nid_to_neighbours = {
            node: state.nid_to_neighbours[node] & state.sampled_node_ids for node in state.sampled_node_ids
        }
        return enough

    def unmask_stage(self, grid: Any, context: Any, state: Any) -> bool:
        """Let the boards in the sum confirm it, then unmask it."""
        active, dead = sorted(state.active_node_ids), sorted(state.sampled_node_ids - state.active_node_ids)
        number = str(context.state.config_records[MAIN_CONFIGS_RECORD][WorkflowKey.CURRENT_ROUND])
        asked = ConfigRecord({Key.STAGE: CONFIRM, Key.ACTIVE_NODE_ID_LIST: active, Key.DEAD_NODE_ID_LIST: dead})
        content = RecordDict({RECORD_KEY_CONFIGS: asked})
        said: dict[int, bytes] = {}

        def take(reply: Message) -> None:
            confirmation = _signed(reply, CONFIRMATION)
            self._parties.check_sum([confirmation], active, dead)
            said[reply.metadata.src_node_id] = confirmation

        messages = [
            Message(content, dst_node_id=node, message_type=MessageType.TRAIN, group_id=number) for node in active
        ]
        _Carrier(grid, dict, take).send_and_receive(messages, timeout=self.timeout)
        confirmed = _Carrier(grid, lambda: {CONFIRMATIONS: [*said.values()]}, only=said)
        with bound(self._parties.binding):
            return bool(super().unmask_stage(confirmed, context, state))

    @property
    def _order(self) -> Order:
        if self._guard.order is None:
            raise FormatError("a round without an order")
        return self._guard.order

    def _take_statement(self, reply: Message) -> None:
        node, data = reply.metadata.src_node_id, _signed(reply, STATEMENT)
        said = open_statement(data, self._order)
        keys = reply.content.config_records[RECORD_KEY_CONFIGS]
        if said.device != self._guard.name_of(node) or said.node != node:
            raise MismatchError(f"{self._guard.name_of(node)} states keys of {said.device} at node {said.node}")
        if said.keys != (keys.get(Key.PUBLIC_KEY_1), keys.get(Key.PUBLIC_KEY_2)):
            raise MismatchError(f"{said.device} uses other keys than it states")
        self._statements[node] = data


def _signed(reply: Message, key: str) -> bytes:
    data = reply.content.config_records.get(ROUND, ConfigRecord()).get(key)
    if not isinstance(data, bytes):
        raise FormatError(f"the reply holds no {key}")
    return data


class _Carrier:
    """A grid that puts edged's own record beside Flower's in what it sends, and drops replies that do not hold.

    :param record: makes the record.
    :param check: raises an EdgedError for a reply that is to be dropped, and named as silent.
    :param only: nodes to send to; None for all.
    """

    def __init__(
        self,
        grid: Any,
        record: Callable[[], dict[str, Any]],
        check: Callable[[Message], None] = nothing,
        only: Any = None,
    ) -> None:
        self._grid = grid
        self._record = record
        self._check = check
        self._only = only

    def send_and_receive(self, messages: list[Message], *, timeout: float | None) -> list[Message]:
        """Send, and return the replies that came in time and hold."""
        wanted = [one for one in messages if self._only is None or one.metadata.dst_node_id in self._only]
        for message in wanted:
            message.content.config_records[ROUND] = ConfigRecord(self._record())
        return [reply for reply in self._grid.send_and_receive(wanted, timeout=timeout) if self._holds(reply)]

    def _holds(self, reply: Message) -> bool:
        if reply.has_error():
            return True
        try:
            self._check(reply)
        except EdgedError as error:
            self._grid.silent[reply.metadata.src_node_id] = type(error).__name__
            return False
        return True
